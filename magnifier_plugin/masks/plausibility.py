"""Plausibility of one label map: the body's size, position and order, and its left and right."""

from collections.abc import Sequence

import numpy as np

from magnifier_plugin.regions import BODY_REGIONS, PARTS, REGIONS

# A body that covers a smaller fraction of the image is odd.
SMALL_BODY = 0.03
# A body whose mean column is within this fraction of the width from a side is probably that of
# another person.
SIDE = 0.2
# The order of the regions from top to bottom in a person who stands, walks or sits.
_DOWNWARDS = ("head", "chest", "upper leg", "lower leg", "foot")
# By what fraction of the image's height the lower of two regions may be higher than the upper one;
# for left and right, the fraction of the width.
_TOLERANCE = 0.05
_TORSO_BACK, _TORSO_FRONT = (PARTS.index(f"torso {side}") for side in ("back", "front"))
# Part ids of the limbs of each side, without the head, which can turn independently of the torso.
_LEFT, _RIGHT = (
    [i for i, part in enumerate(PARTS) if side in part.split() and "head" not in part]
    for side in ("left", "right")
)
# How many times as many pixels the torso's front must have as its back, or the reverse, to tell
# which way the person faces.
_FACING = 4


def oddities(labels: np.ndarray, regions: Sequence[int]) -> list[str]:
    """What looks odd in a label map.

    Args:
        labels: uint8 [H, W], region ids.
        regions: ids of the body regions that count as visible, at least one.
    Returns:
        The oddities in words; empty if there are none.
    """
    height, width = labels.shape
    body = np.isin(labels, BODY_REGIONS)
    found = []
    if body.mean() < SMALL_BODY:
        found.append(f"the body covers {body.mean():.1%} of the image")
    middle = np.nonzero(body)[1].mean() / width
    if not SIDE <= middle <= 1 - SIDE:
        found.append(f"the body is at the image's {'left' if middle < SIDE else 'right'} side")
    downwards = [name for name in _DOWNWARDS if REGIONS.index(name) in regions]
    rows = [np.nonzero(labels == REGIONS.index(name))[0].mean() / height for name in downwards]
    for upper, lower, above, below in zip(downwards, downwards[1:], rows, rows[1:], strict=False):
        if below < above - _TOLERANCE:
            found.append(f"{lower} above {upper}")
    return found


def sides_may_be_swapped(parts: np.ndarray) -> bool:
    """Whether the left and right limbs are where those of a mirrored person would be.

    A person who shows the front of the torso has the right limbs on the image's left. Arms that
    cross the body and side views look swapped too, so this is a hint, not a fault.

    Args:
        parts: uint8 [H, W], DensePose's part ids, 0..24.
    """
    back, front = (int((parts == torso).sum()) for torso in (_TORSO_BACK, _TORSO_FRONT))
    if max(back, front) < _FACING * max(min(back, front), 1):
        return False
    left, right = (np.nonzero(np.isin(parts, side))[1] for side in (_LEFT, _RIGHT))
    if not left.size or not right.size:
        return False
    # Positive if left and right are where they should be: for a person who faces the camera, the
    # left limbs are on the image's right.
    lead = (left.mean() - right.mean()) / parts.shape[1] * (1 if front > back else -1)
    return bool(lead < -_TOLERANCE)
