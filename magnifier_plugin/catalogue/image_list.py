"""A data set as a list of images: what a CSV, or the names in a folder, say of each of them."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from magnifier_plugin.catalogue.names import OriginalIds
from magnifier_plugin.catalogue.problems import DatasetProblem
from magnifier_plugin.wording import many, name_examples

TRAIN, QUERY, GALLERY = SPLITS = ("train", "query", "gallery")
# Market-1501's identities of false detections, which torchreid leaves out, and of gallery images
# that show none of the queries' identities.
JUNK, DISTRACTORS = "-1", "0"
TWIN = "twin"  # the condition that holds the pid of the image's near-twin, empty for none
_NUMBER = re.compile(r"-?[0-9]{1,18}")  # longer ones are words


class ListedImage(NamedTuple):
    """What is known of one image."""

    path: Path
    """Absolute."""
    pid: str
    """Identity, a number or a word; see `plain_id`."""
    camid: str = ""
    """Camera, likewise; empty where cameras are not known."""
    split: str = ""
    """train, query or gallery; empty before there is a split."""
    conditions: tuple[str, ...] = ()
    """Values of the list's conditions, in their order."""


@dataclass(frozen=True)
class ConditionFile:
    """What a file says of its images."""

    file: Path
    """The file, for messages."""
    columns: tuple[str, ...]
    """The conditions' names."""
    rows: Mapping[Path, tuple[str, ...]]
    """Absolute path of an image → its values, in the order of `columns`."""


@dataclass(frozen=True)
class ImageList:
    """The images of a data set, and what is wrong with them."""

    source: Path
    """The CSV or folder, absolute."""
    images: list[ListedImage]
    """The images that can be used, in the order of their list."""
    conditions: tuple[str, ...] = ()
    """Names of the conditions."""
    problems: list[DatasetProblem] = field(default_factory=list)
    """What is wrong with the list."""
    notes: list[str] = field(default_factory=list)
    """What was decided where the list leaves it open."""

    def of_split(self, split: str) -> list[ListedImage]:
        """The images of train, query or gallery."""
        return [image for image in self.images if image.split == split]

    @property
    def original_ids(self) -> OriginalIds:
        """Identity and camera of each image as the list has them."""
        return {str(image.path): (image.pid, image.camid) for image in self.images}

    def require(self, name: str) -> None:
        """Refuses a list with errors.

        Args:
            name: the data set's, for the message.
        Raises:
            ValueError: there are errors; the message has all of them.
        """
        errors = [problem.text for problem in self.problems if problem.is_error]
        if errors:
            raise ValueError(
                f"{name}: {self.source}: {many(len(errors), 'error')}:\n  "
                + ";\n  ".join(errors)
                + f".\nHow it is read: python scripts/check_dataset.py -s {name}={self.source}"
            )


class Findings:
    """Lines or files with the same mistake, collected so that all are reported at once."""

    def __init__(self) -> None:
        self.examples: defaultdict[str, list[str]] = defaultdict(list)
        """Mistake → where it was found."""

    def add(self, mistake: str, where: object) -> None:
        self.examples[mistake].append(str(where))

    def problems(self, noun: str) -> list[DatasetProblem]:
        """One error for each mistake: "3 lines without a pid: line 5, line 6, line 9"."""
        return [
            DatasetProblem(True, f"{many(len(found), noun)} {mistake}{name_examples(found)}")
            for mistake, found in self.examples.items()
        ]


def plain_id(text: str) -> str:
    """An identity or camera as it is compared: numbers by their value, "0007" as "7"."""
    return str(int(text)) if _NUMBER.fullmatch(text) else text


def id_order(text: str) -> tuple[bool, int, str]:
    """The key to sort identities and cameras by: numbers by value, then words."""
    number = _NUMBER.fullmatch(text)
    return not number, int(text) if number else 0, text


def checked_list(
    source: Path,
    images: Iterable[ListedImage],
    problems: Sequence[DatasetProblem] = (),
    conditions: tuple[str, ...] = (),
    *,
    need_split: bool = True,
) -> ImageList:
    """A list without junk, with what is wrong with it as a whole.

    Args:
        source: the CSV or folder.
        images: all that it names.
        problems: found while they were read.
        conditions: names of the conditions.
        need_split: the images have a split.
    """
    given = list(images)
    kept = [image for image in given if image.pid != JUNK]
    found, notes = list(problems), []
    if len(kept) < len(given):
        junk = many(len(given) - len(kept), "image")
        notes.append(f"{junk} of identity {JUNK} (junk) left out, as torchreid does")
    if kept:
        without = [image for image in kept if not image.camid]
        if len(without) == len(kept):
            notes.append("no cameras, each image counts as its own camera")
        elif without:
            text = f"{many(len(without), 'image')} without a camera, the others have one; give all"
            where = [str(image.path) for image in without]
            found.append(DatasetProblem(True, f"{text} of them one, or none{name_examples(where)}"))
        if need_split:
            found += _split_problems(kept)
            found += _twin_problems(kept, conditions)
        found += _shared_label_maps(kept)
    elif not any(problem.is_error for problem in found):
        found.append(DatasetProblem(True, "no images"))
    return ImageList(source, kept, conditions, found, notes)


def _shared_label_maps(images: Sequence[ListedImage]) -> list[DatasetProblem]:
    """Images that differ in their suffix alone: a.jpg and a.png both have the label map a.png."""
    by_stem: defaultdict[Path, set[Path]] = defaultdict(set)
    for image in images:
        by_stem[image.path.with_suffix("")].add(image.path)
    shared = [" = ".join(sorted(map(str, paths))) for paths in by_stem.values() if len(paths) > 1]
    if not shared:
        return []
    text = f"{many(len(shared), 'label map')} would be of two images, which differ in their suffix"
    return [DatasetProblem(False, f"{text}{name_examples(shared)}")]


def _split_problems(images: Sequence[ListedImage]) -> list[DatasetProblem]:
    pids: dict[str, set[str]] = {split: set() for split in SPLITS}
    for image in images:
        pids[image.split].add(image.pid)
    problems = []
    if bool(pids[QUERY]) != bool(pids[GALLERY]):
        empty = GALLERY if pids[QUERY] else QUERY
        problems.append(DatasetProblem(True, f"{empty}: no images"))
    both = sorted(pids[TRAIN] & (pids[QUERY] | pids[GALLERY]), key=id_order)
    if both:
        text = f"{many(len(both), 'identity')} in train and in query or gallery"
        problems.append(DatasetProblem(True, f"{text}{name_examples(both)}"))
    return problems


def _twin_problems(
    images: Sequence[ListedImage], conditions: Sequence[str]
) -> list[DatasetProblem]:
    """Near-twins of queries that the gallery does not have, so that no hit can be one of them."""
    if TWIN not in conditions:
        return []
    place = conditions.index(TWIN)
    there = {image.pid for image in images if image.split == GALLERY}
    twins = {plain_id(image.conditions[place]) for image in images if image.split == QUERY}
    absent = sorted(twins - there - {""}, key=id_order)
    if not absent:
        return []
    text = f"{many(len(absent), 'near-twin')} of queries not in the gallery (column {TWIN})"
    return [DatasetProblem(False, f"{text}{name_examples(absent)}")]
