"""Keypoints of pose estimators → label maps.

An estimator finds joints; `body_drawing` draws a body around them. The result is coarser than
DensePose's parts or a parser's classes, but pose estimators run everywhere.
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from magnifier_plugin.annotators.body_drawing import draw_body
from magnifier_plugin.annotators.body_shape import definition
from magnifier_plugin.annotators.coco import (
    annotated_size,
    read_images,
    read_results,
    refuse_unknown_images,
)
from magnifier_plugin.annotators.joints import JOINTS
from magnifier_plugin.annotators.keypoint_files import FORMATS, TEXT, Person, from_coco
from magnifier_plugin.annotators.people import choose_person, extent
from magnifier_plugin.annotators.source import Annotation, annotation_files, check_size
from magnifier_plugin.files import absolute_path
from magnifier_plugin.regions import NUM_REGIONS

# Points with a lower confidence are guesses, mostly about hidden joints.
MIN_SCORE = 0.3
# Estimators place a joint that is cut off by the image's edge a little outside the image. Points
# farther outside than this fraction of the larger side must belong to another image size.
OUTSIDE = 0.25
_LINE = 4096  # characters of a line that are enough to recognise numbers


@dataclass(frozen=True)
class PosedPeople:
    """All people that COCO results list for one image."""

    name: str
    """The image's name."""
    people: tuple[Person, ...]
    """At least one."""
    min_score: float
    """Points and people with a lower score are left out."""
    size: tuple[int, int] | None = None
    """The image's height and width according to the COCO annotations; None if not given."""

    def read(self, size: tuple[int, int]) -> Annotation | None:
        if self.size is not None:
            check_size(f"{self.name} in the COCO annotations", self.size, size)
        return annotate(self.people, size, self.min_score)


@dataclass(frozen=True)
class PeopleFile:
    """The file of one image, which has not been read yet."""

    path: Path
    suffix: str
    """A key of `keypoint_files.FORMATS`."""
    min_score: float
    """Points and people with a lower score are left out."""

    @property
    def name(self) -> str:
        return str(self.path).removesuffix(self.suffix)

    def read(self, size: tuple[int, int]) -> Annotation | None:
        kind = FORMATS[self.suffix]
        people = kind.read(self.path, size)
        try:
            return annotate(people, size, self.min_score, kind.expected)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error


class KeypointSource:
    """A pose estimator's output.

    Args:
        path: a JSON file of COCO results, or a folder of OpenPifPaf, OpenPose or Ultralytics with a
            file for each image; the files' names show which of the three.
        annotations: the COCO annotations that name the images of COCO results; None if
            `image_id` is the file's name, as AlphaPose writes it.
        min_score: points and people with a lower score, 0..1, are left out; people only if the
            files give them a score.
    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: it has none of these formats, or the annotations are missing or not needed.
    """

    name = "keypoints"
    has_iuv = False
    label_set = "keypoints"
    folders: tuple[Path, ...] = ()
    definition: ClassVar[Mapping[str, Any]] = definition()

    def __init__(
        self,
        path: str | os.PathLike[str],
        annotations: str | os.PathLike[str] | None = None,
        min_score: float = MIN_SCORE,
    ):
        self.path, self.min_score = absolute_path(path), min_score
        self._annotations: Sequence[PosedPeople | PeopleFile]
        if not self.path.is_dir():
            images = None if annotations is None else absolute_path(annotations)
            self.files = [path for path in (self.path, images) if path is not None]
            self._annotations = list(self._results(images))
        elif annotations is not None:
            raise ValueError(
                f"{annotations}: not needed, the files in a folder are named after their images; "
                "COCO results are a single file"
            )
        else:
            suffix, self.files = _files_of_one_format(self.path)
            self._annotations = [PeopleFile(path, suffix, min_score) for path in self.files]

    def __iter__(self) -> Iterator[PosedPeople | PeopleFile]:
        return iter(self._annotations)

    def _results(self, annotations: Path | None) -> Iterator[PosedPeople]:
        people: dict[int | str, list[Person]] = defaultdict(list)
        for number, result in enumerate(read_results(self.path, "keypoint")):
            try:
                person, image = from_coco(result), result.get("image_id")
                if not isinstance(image, str if annotations is None else int | str):
                    hint = "" if annotations else "; --annotations FILE gives the names of numbers"
                    raise ValueError(f"image_id {image!r}, expected a file's name{hint}")
            except ValueError as error:
                raise ValueError(f"{self.path}: result {number}: {error}") from error
            people[image].append(person)
        images: dict[Any, dict[str, Any]] = {name: {"file_name": name} for name in people}
        if annotations is not None:
            images = read_images(annotations)
            refuse_unknown_images(annotations, self.path, images, people)
        for key, found in people.items():
            name, size = images[key]["file_name"], annotated_size(images[key])
            yield PosedPeople(name, tuple(found), self.min_score, size)


def annotate(
    people: Sequence[Person],
    size: tuple[int, int],
    min_score: float = MIN_SCORE,
    expected: str = "pixels",
) -> Annotation | None:
    """The label map of the target person in an image.

    Args:
        people: all people found in the image, with coordinates in pixels.
        size: the image's height and width.
        min_score: points and people with a lower score, 0..1, are left out.
        expected: the unit of the file's coordinates, for the message.
    Returns:
        None if no person is left whose size can be estimated.
    Raises:
        ValueError: a point is far outside the image, or all coordinates are between -1 and 1
            although they should be pixels.
    """
    bodies, extents, scores = [], [], []
    drawn = None  # one map at a time, however many people a file lists
    for person in people:
        if person.score is not None and person.score < min_score:
            continue
        points = _reliable(person.points, min_score)
        _check_places(points, size, expected)
        labels = draw_body(points, size)
        if labels is not None:
            drawn = labels
            bodies.append(points)
            extents.append(extent((labels > 0) & (labels < NUM_REGIONS)))
            found = points[points[:, 2] > 0, 2]
            scores.append(float(found.mean()) if person.score is None else person.score)
    if drawn is None:
        return None
    best, ambiguity = choose_person(extents, scores)
    if best < len(bodies) - 1:
        drawn = draw_body(bodies[best], size)
    return None if drawn is None else Annotation(drawn, ambiguity=ambiguity)


def _reliable(points: np.ndarray, min_score: float) -> np.ndarray:
    """The points, with confidence 0 for those below the limit and those at (0, 0)."""
    points = points.copy()
    # Some tools write (0, 0) for a point that they did not find, but with a confidence.
    points[(points[:, 2] < min_score) | ~points[:, :2].any(axis=1), 2] = 0
    return points


def _check_places(points: np.ndarray, size: tuple[int, int], expected: str) -> None:
    found = np.flatnonzero(points[:, 2] > 0)
    places = points[found, :2]
    if len(found) > 1 and expected == "pixels" and np.abs(places).max() <= 1:
        raise ValueError(
            "all coordinates are between -1 and 1, expected pixels; were they divided by the "
            "image's size (OpenPose: --keypoint_scale 0)?"
        )
    margin = OUTSIDE * max(size)
    outside = np.maximum(-places, places - size[::-1]).max(axis=1, initial=0) > margin
    if outside.any():
        joint = found[outside][0]
        x, y = points[joint, :2]
        raise ValueError(
            f"{JOINTS[joint]} at ({x:.0f}, {y:.0f}) is far outside an image of {size[0]} × "
            f"{size[1]} (height × width), expected {expected}; annotate the data set's own "
            "images, not resized ones"
        )


def _begins_with_numbers(path: Path) -> bool:
    """Whether the first line of a text file has numbers alone, as Ultralytics's files do."""
    with path.open(encoding="utf-8", errors="replace") as file:
        words = file.readline(_LINE).split()
    try:
        return bool([float(word) for word in words])
    except ValueError:
        return False


def _files_of_one_format(folder: Path) -> tuple[str, list[Path]]:
    """The suffix of a folder's files, a key of FORMATS, and the files."""
    paths = annotation_files(folder, *FORMATS)
    by_suffix = {
        suffix: [path for path in paths if path.name.endswith(suffix)] for suffix in FORMATS
    }
    texts = by_suffix[TEXT]
    if len(texts) < len(paths) and not any(map(_begins_with_numbers, texts)):
        by_suffix[TEXT] = []  # lists and notes of a data set, among whose images the others are
    found = [suffix for suffix, ours in by_suffix.items() if ours]
    if len(found) > 1:
        kinds = ", ".join(f"*{suffix} ({FORMATS[suffix].title})" for suffix in found)
        raise ValueError(
            f"{folder}: files of several pose estimators, {kinds}; expected the files of a single "
            "estimator; put each estimator's files into its own folder"
        )
    return found[0], by_suffix[found[0]]
