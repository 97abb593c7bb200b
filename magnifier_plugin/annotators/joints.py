"""The joints that pose estimators find, and the orders in which their files list them."""

from collections.abc import Sequence

import numpy as np

# COCO's 17 joints, then COCO-WholeBody's for the feet. "Left" is the person's left.
JOINTS = (
    *("nose", "left eye", "right eye", "left ear", "right ear"),
    *("left shoulder", "right shoulder", "left elbow", "right elbow", "left wrist", "right wrist"),
    *("left hip", "right hip", "left knee", "right knee", "left ankle", "right ankle"),
    *("left big toe", "left small toe", "left heel"),
    *("right big toe", "right small toe", "right heel"),
)
COCO, FEET = JOINTS[:17], JOINTS[17:]

# OpenPose's BODY_25 and its older COCO model. Neck and mid hip are the midpoints of the shoulders
# and of the hips, so they add no information.
_BETWEEN = ("neck", "mid hip")
_RIGHT_ARM = ("nose", "neck", "right shoulder", "right elbow", "right wrist")
_LEFT_ARM = ("left shoulder", "left elbow", "left wrist")
_RIGHT_LEG = ("right hip", "right knee", "right ankle")
_LEFT_LEG = ("left hip", "left knee", "left ankle")
_FACE = ("right eye", "left eye", "right ear", "left ear")
OPENPOSE_18 = (*_RIGHT_ARM, *_LEFT_ARM, *_RIGHT_LEG, *_LEFT_LEG, *_FACE)
OPENPOSE_25 = (*_RIGHT_ARM, *_LEFT_ARM, "mid hip", *_RIGHT_LEG, *_LEFT_LEG, *_FACE, *FEET)


def arrange(points: np.ndarray, order: Sequence[str]) -> np.ndarray:
    """Points in a file's order → points in the order of JOINTS.

    Args:
        points: float [len(order), 3]: x, y, confidence.
        order: the joints' names.
    Returns:
        float [len(JOINTS), 3]; all 0 for joints that are not in the file's order.
    """
    arranged = np.zeros((len(JOINTS), 3))
    for name, point in zip(order, points, strict=True):
        if name not in _BETWEEN:
            arranged[JOINTS.index(name)] = point
    return arranged
