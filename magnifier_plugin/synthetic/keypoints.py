"""Exact keypoints of every rendered image, written as `<root>/synthetic/keypoints.json`.

The format is that of COCO results; `image_id` is the image's path below the data set's folder
`market1501`, and `foot_kpts` holds the feet as in COCO-WholeBody's results. The third number of a
point is COCO's visibility: 2 visible, 1 hidden by an object or by the body itself, 0 (with x and y
0) outside the image. x and y are in pixels, with integers at the pixels' centres.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from magnifier_plugin.annotators.joints import COCO, FEET, JOINTS
from magnifier_plugin.regions import PARTS
from magnifier_plugin.synthetic.body import lowest
from magnifier_plugin.synthetic.camera import Camera, look, rotation
from magnifier_plugin.synthetic.outfit import dress
from magnifier_plugin.synthetic.renderer import Scene
from magnifier_plugin.synthetic.skeleton import SIDES, Skeleton, length_of, skeleton
from magnifier_plugin.synthetic.wardrobe import Wardrobe

KEYPOINTS = Path("keypoints.json")
_HIDDEN, _SEEN = 1, 2
# Rows of the head's frame that point to the front and to the body's left.
_FRONT, _SIDEWAYS = 0, 2


class _Place(NamedTuple):
    """The position of a joint on the body."""

    segment: str
    """The segment whose frame gives the position; for limbs, without the side."""
    at: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Offsets along the segment and along its other two axes, as fractions of the stature; see
    skeleton.Skeleton.point."""
    parts: tuple[str, ...] = ()
    """Segments whose DensePose parts the joint's pixel must show for the joint to be visible."""
    faces: int | None = None
    """Row of the segment's frame that must point to the camera for the joint to be visible."""


# Joint without its side → its position. A limb's frame begins at its joint.
_PLACES = {
    "nose": _Place("head", (0.075, 0.068, 0.0), ("head",), faces=_FRONT),
    "eye": _Place("head", (0.087, 0.047, 0.019), ("head",), faces=_FRONT),
    "ear": _Place("head", (0.085, 0.0, 0.047), ("head",), faces=_SIDEWAYS),
    "shoulder": _Place("upper arm", parts=("torso", "upper arm")),
    "elbow": _Place("lower arm", parts=("upper arm", "lower arm")),
    "wrist": _Place("hand", parts=("lower arm", "hand")),
    "hip": _Place("upper leg", parts=("torso", "upper leg")),
    "knee": _Place("lower leg", parts=("upper leg", "lower leg")),
    "ankle": _Place("lower leg", (length_of("lower leg"), 0.0, 0.0), ("lower leg", "foot")),
    "big toe": _Place("foot", (0.140, -0.008, -0.010), ("foot",)),
    "small toe": _Place("foot", (0.122, -0.008, 0.018), ("foot",)),
    "heel": _Place("foot", (0.004, -0.004, 0.0), ("foot",)),
}
_SIDELESS = ("head", "torso")


def project(scene: Scene, wardrobe: Wardrobe, camera: Camera, iuv: np.ndarray) -> np.ndarray:
    """The keypoints of the person in a rendered image.

    Args:
        scene, wardrobe, camera: as in `renderer.render`.
        iuv: uint8 [H, W, 3], the image's labels.
    Returns:
        float [23, 3] in the order of JOINTS: x, y, visibility.
    """
    bones = skeleton(scene.pose, wardrobe.build)
    lift = np.array([0, -lowest(dress(bones, wardrobe)), 0])
    turn = rotation(scene.heading, camera.pitch)
    view = look(camera, wardrobe.build.height, iuv.shape[:2], scene.zoom, scene.shift)
    points = np.zeros((len(JOINTS), 3))
    for row, joint in enumerate(JOINTS):
        side, name = _split_side(joint)
        place = _PLACES[name]
        x, y, _ = turn @ (_locate(bones, place, side, wardrobe.build.height) + lift)
        column, line = (x - view.x[0]) * view.scale, (view.y[0] - y) * view.scale
        pixel = round(line), round(column)
        if 0 <= pixel[0] < iuv.shape[0] and 0 <= pixel[1] < iuv.shape[1]:
            seen = _is_seen(bones, place, side, turn, PARTS[iuv[(*pixel, 0)]])
            points[row] = column, line, _SEEN if seen else _HIDDEN
    return points


def write_keypoints(path: Path, images: Iterable[tuple[str, np.ndarray]]) -> None:
    """Writes the keypoints of images, one line each.

    Args:
        path: the JSON file.
        images: each image's path in the data set, and the result of `project`.
    """
    lines = [json.dumps(_result(place, points)) for place, points in images]
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def _result(place: str, points: np.ndarray) -> dict[str, object]:
    """One image's entry of COCO results."""
    body, feet = points[: len(COCO)], points[-len(FEET) :]
    found = points[points[:, 2] > 0, :2]
    box = np.zeros(4)
    if len(found):
        box[:2], box[2:] = found.min(axis=0), np.ptp(found, axis=0)
    return {
        "image_id": place,
        "category_id": 1,
        "keypoints": _plain(body),
        "foot_kpts": _plain(feet),
        "bbox": _plain(box),
        "score": 1.0,
    }


def _plain(values: np.ndarray) -> list[float]:
    return np.round(values, 2).ravel().tolist()


def _split_side(joint: str) -> tuple[str, str]:
    side, _, name = joint.partition(" ")
    return (side, name) if side in SIDES else ("", joint)


def _segment(place: _Place, side: str) -> str:
    return place.segment if place.segment in _SIDELESS else f"{side} {place.segment}"


def _locate(bones: Skeleton, place: _Place, side: str, stature: float) -> np.ndarray:
    """The joint's position in the body's frame, float [3], metres."""
    along, sideways, ahead = np.array(place.at) * stature
    if place.segment in _SIDELESS and side == "right":
        ahead = -ahead  # the head's third axis points to the body's left
    return bones.point(_segment(place, side), along, sideways, ahead)


def _is_seen(bones: Skeleton, place: _Place, side: str, turn: np.ndarray, part: str) -> bool:
    """Whether the joint's pixel shows one of its parts, and its side of the head faces the camera.

    Args:
        bones: the skeleton.
        place: the joint's position.
        side: "left", "right" or "".
        turn: float [3, 3], rotation body → view.
        part: name of the DensePose part at the joint's pixel.
    """
    own = [name if name in _SIDELESS else f"{side} {name}" for name in place.parts]
    if not any(part.startswith(name) for name in own):
        return False
    if place.faces is None:
        return True
    outward = bones.frame(place.segment)[place.faces]
    if place.faces == _SIDEWAYS and side == "right":
        outward = -outward
    return bool((turn @ outward)[2] > 0)
