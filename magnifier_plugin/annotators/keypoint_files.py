"""Files of pose estimators → people, each with the joints of `joints.JOINTS`.

| format | files | points |
|---|---|---|
| COCO results (MMPose, ViTPose, AlphaPose, detectron2) | one JSON | 17, with `foot_kpts` 23 |
| OpenPifPaf | `NAME.jpg.predictions.json` | 17 |
| OpenPose | `NAME_keypoints.json` | 25 or 18 |
| Ultralytics, `save_txt` | `NAME.txt`, in fractions of the image's size | 17 |
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from magnifier_plugin.annotators.joints import COCO, FEET, OPENPOSE_18, OPENPOSE_25, arrange
from magnifier_plugin.text_files import read_json
from magnifier_plugin.wording import one_line

# More people than any estimator finds in one image.
MAX_PEOPLE = 1000
_COCO_ORDERS = {3 * len(COCO): COCO}
_OPENPOSE_ORDERS = {3 * len(OPENPOSE_25): OPENPOSE_25, 3 * len(OPENPOSE_18): OPENPOSE_18}
# A line of Ultralytics has the class, the box (4 numbers), the points, and perhaps the box's
# confidence; so many numbers come before the points.
_BEFORE = 5


class Person(NamedTuple):
    """One person that an estimator found."""

    points: np.ndarray
    """float [23, 3] in the order of JOINTS: x, y, confidence; not yet checked."""
    score: float | None
    """The estimator's confidence in the whole person; None if its files do not give it."""


def from_coco(result: Any) -> Person:
    """One entry of COCO results, or of OpenPifPaf's list.

    Raises:
        ValueError: it has no keypoints, a number of them that is not COCO's, or damaged ones.
    """
    points = _points(_get(result, "keypoints"), _COCO_ORDERS)
    if "foot_kpts" in result:
        points = points + _points(_get(result, "foot_kpts"), {3 * len(FEET): FEET})
    score = result.get("score")
    return Person(points, None if score is None else float(_numbers([score])[0]))


def read_openpifpaf(path: Path, size: tuple[int, int]) -> list[Person]:
    """Reads a `NAME.jpg.predictions.json`."""
    content = read_json(path)
    if not isinstance(content, list):
        raise ValueError(f"{path}: holds a {type(content).__name__}, expected OpenPifPaf's list")
    return _read_all(path, content, from_coco)


def read_openpose(path: Path, size: tuple[int, int]) -> list[Person]:
    """Reads a `NAME_keypoints.json`."""
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("people"), list):
        raise ValueError(
            f"{path}: not OpenPose's output, expected an object with a list `people`; COCO results "
            "are a single file: --keypoints FILE.json"
        )
    return _read_all(path, content["people"], _from_openpose)


def read_ultralytics(path: Path, size: tuple[int, int]) -> list[Person]:
    """Reads the `NAME.txt` of an image of this height and width."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file ({one_line(error)})") from error
    people = _read_all(path, [line.split() for line in lines if line.strip()], _from_ultralytics)
    # From fractions of the size to pixels, whose centres have integer coordinates.
    for person in people:
        person.points[:, :2] *= size[::-1]
        person.points[:, :2][person.points[:, :2].any(axis=1)] -= 0.5
    return people


class Format(NamedTuple):
    """A format with one file for each image."""

    title: str
    read: Callable[[Path, tuple[int, int]], list[Person]]
    """(file, (height, width) of the image) → people; raises ValueError if the file is damaged."""
    expected: str = "pixels"
    """The unit of its coordinates, for messages."""


TEXT = ".txt"
# The end of the file's name → its format.
FORMATS: Mapping[str, Format] = {
    ".predictions.json": Format("OpenPifPaf", read_openpifpaf),
    "_keypoints.json": Format("OpenPose", read_openpose),
    TEXT: Format("Ultralytics", read_ultralytics, "fractions of the image's size"),
}


def _from_openpose(person: Any) -> Person:
    return Person(_points(_get(person, "pose_keypoints_2d"), _OPENPOSE_ORDERS), None)


def _from_ultralytics(fields: Sequence[str]) -> Person:
    count = 3 * len(COCO)
    if len(fields) not in (_BEFORE + count, _BEFORE + count + 1):
        raise ValueError(
            f"{len(fields)} numbers, expected class, box, {len(COCO)} points with confidence and "
            f"perhaps the box's confidence, {_BEFORE + count} or {_BEFORE + count + 1} numbers; is "
            "it the output of a pose model?"
        )
    numbers = _numbers(fields)
    points = arrange(numbers[_BEFORE : _BEFORE + count].reshape(-1, 3), COCO)
    return Person(points, float(numbers[-1]) if len(fields) > _BEFORE + count else None)


def _get(entry: Any, key: str) -> Any:
    if not isinstance(entry, dict) or not isinstance(entry.get(key), list):
        raise ValueError(f"no list `{key}`")
    return entry[key]


def _points(numbers: Any, orders: Mapping[int, Sequence[str]]) -> np.ndarray:
    """A flat list of numbers, whose length determines the joints' order → float [23, 3]."""
    if len(numbers) not in orders:
        known = " or ".join(f"{count} ({count // 3} points)" for count in orders)
        raise ValueError(
            f"{len(numbers)} numbers, expected {known}: x, y and confidence of each point"
        )
    return arrange(_numbers(numbers).reshape(-1, 3), orders[len(numbers)])


def _numbers(values: Sequence[Any]) -> np.ndarray:
    try:
        numbers = np.array([float(value) for value in values])
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"not a number ({one_line(error)})") from error
    if not np.isfinite(numbers).all():
        raise ValueError("a number is not finite")
    return numbers


def _read_all(path: Path, entries: Sequence[Any], read: Callable[[Any], Person]) -> list[Person]:
    if len(entries) > MAX_PEOPLE:
        raise ValueError(f"{path}: {len(entries):,} people, expected at most {MAX_PEOPLE:,}")
    people = []
    for number, entry in enumerate(entries):
        try:
            people.append(read(entry))
        except ValueError as error:
            raise ValueError(f"{path}: person {number}: {error}") from error
    return people
