"""Keypoints for tests: a standing person, and the file formats of each estimator."""

import json

import numpy as np

from magnifier_plugin.annotators.joints import COCO, FEET, JOINTS, OPENPOSE_18, OPENPOSE_25

SIZE = (128, 64)
# x and y at 128 × 64 of a person who faces the camera; the left side is the mirror of the right.
_MIDDLE = 31.5
_RIGHT = {
    "eye": (29.5, 17),
    "ear": (27, 18),
    "shoulder": (19, 32),
    "elbow": (15, 51.2),
    "wrist": (14, 67),
    "hip": (26, 64),
    "knee": (25, 90.3),
    "ankle": (25, 115),
    "big toe": (25, 122),
    "small toe": (21, 121),
    "heel": (26, 118),
}


def person(**moved: tuple[float, float, float]) -> np.ndarray:
    """float [23, 3] in the order of JOINTS, confidence 0.9; `left_wrist=(1, 2, 0.1)` overrides."""
    points = np.zeros((len(JOINTS), 3))
    for row, joint in enumerate(JOINTS):
        side, _, name = joint.partition(" ")
        x, y = _RIGHT.get(name, (_MIDDLE + 0.5, 19.5))  # the nose, a little to the right
        points[row] = (2 * _MIDDLE - x if side == "left" else x), y, 0.9
    for joint, place in moved.items():
        points[JOINTS.index(joint.replace("_", " "))] = place
    return points


def without(points: np.ndarray, *joints: str) -> np.ndarray:
    """The same points without some joints; "wrist" stands for both wrists."""
    points = points.copy()
    for row, joint in enumerate(JOINTS):
        if joint in joints or joint.partition(" ")[2] in joints:
            points[row] = 0
    return points


def mirrored(points: np.ndarray, width: int) -> np.ndarray:
    """The keypoints of the mirrored image, in which the person's left and right are exchanged."""
    swap = {"left": "right", "right": "left"}
    names = [" ".join(swap.get(word, word) for word in joint.split()) for joint in JOINTS]
    points = points[[JOINTS.index(name) for name in names]]
    points[points[:, 2] > 0, 0] = width - 1 - points[points[:, 2] > 0, 0]
    return points


def flat(points: np.ndarray, order=COCO) -> list[float]:
    """The numbers in a file's order; neck and mid hip are midpoints, as OpenPose writes them."""
    known = dict(zip(JOINTS, points, strict=True))
    for name, of in (("neck", "shoulder"), ("mid hip", "hip")):
        known[name] = (known[f"left {of}"] + known[f"right {of}"]) / 2
    return [float(value) for name in order for value in known[name]]


def write_coco(path, people, feet=False, **more):
    """`people`: image_id → list of points."""
    entries = []
    for image, found in people.items():
        for points in found:
            entry = {"image_id": image, "category_id": 1, "keypoints": flat(points), "score": 0.8}
            if feet:
                entry["foot_kpts"] = flat(points, FEET)
            entries.append(entry | more)
    path.write_text(json.dumps(entries))
    return path


def write_openpifpaf(folder, name, found):
    folder.mkdir(parents=True, exist_ok=True)
    entries = [{"keypoints": flat(points), "score": 0.6, "category_id": 1} for points in found]
    (folder / f"{name}.jpg.predictions.json").write_text(json.dumps(entries))
    return folder


def write_openpose(folder, name, found, order=OPENPOSE_25):
    folder.mkdir(parents=True, exist_ok=True)
    people = [{"pose_keypoints_2d": flat(points, order)} for points in found]
    file = folder / f"{name}_keypoints.json"
    file.write_text(json.dumps({"version": 1.3, "people": people}))
    return folder


def write_ultralytics(folder, name, found, size=SIZE, confidence=True):
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for points in found:
        body = points[: len(COCO)].copy()
        body[body[:, 2] > 0, :2] = (body[body[:, 2] > 0, :2] + 0.5) / size[::-1]
        numbers = [0, 0.5, 0.5, 0.4, 0.9, *body.ravel(), *([0.7] if confidence else [])]
        lines.append(" ".join(f"{number:.6g}" for number in numbers) + "\n")
    (folder / f"{name}.txt").write_text("".join(lines))
    return folder


FORMATS = {
    "COCO": lambda folder, name, found: write_coco(folder / "r.json", {f"{name}.jpg": found}),
    "OpenPifPaf": write_openpifpaf,
    "OpenPose 25": write_openpose,
    "OpenPose 18": lambda *arguments: write_openpose(*arguments, order=OPENPOSE_18),
    "Ultralytics": write_ultralytics,
}
