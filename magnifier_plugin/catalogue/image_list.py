"""A data set as a list of images, with what a CSV or the names in a folder say about each image."""

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
# Market-1501's identity of junk detections, which torchreid leaves out, and that of distractors:
# gallery images that show none of the queries' identities.
JUNK, DISTRACTORS = "-1", "0"
TWIN = "twin"  # the condition that holds the pid of the image's near-twin; empty if it has none
_NUMBER = re.compile(r"-?[0-9]{1,18}")  # longer numbers count as words


class ListedImage(NamedTuple):
    """What is known about one image."""

    path: Path
    """Absolute."""
    pid: str
    """Identity, a number or a word; see `plain_id`."""
    camid: str = ""
    """Camera, a number or a word; empty if cameras are unknown."""
    split: str = ""
    """train, query or gallery; empty if there is no split yet."""
    conditions: tuple[str, ...] = ()
    """The image's values of the list's conditions, in their order."""


@dataclass(frozen=True)
class ConditionFile:
    """The conditions of images, as a file gives them."""

    file: Path
    """The file, for messages."""
    columns: tuple[str, ...]
    """Names of the conditions."""
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
    """Choices that were made where the list leaves something open, for the log."""

    def of_split(self, split: str) -> list[ListedImage]:
        """The images of train, query or gallery."""
        return [image for image in self.images if image.split == split]

    @property
    def original_ids(self) -> OriginalIds:
        """Identity and camera of each image as the list gives them."""
        return {str(image.path): (image.pid, image.camid) for image in self.images}

    def require(self, name: str) -> None:
        """Refuses a list with errors.

        Args:
            name: the data set's name, for the message.
        Raises:
            ValueError: there are errors; the message lists all of them.
        """
        errors = [problem.text for problem in self.problems if problem.is_error]
        if errors:
            raise ValueError(
                f"{name}: {self.source}: {many(len(errors), 'error')}:\n  "
                + ";\n  ".join(errors)
                + ".\nTo see how it was read: python scripts/check_dataset.py -s "
                f"{name}={self.source}"
            )


class Findings:
    """Lines or files with the same mistake, collected so that all are reported at once."""

    def __init__(self) -> None:
        self.examples: defaultdict[str, list[str]] = defaultdict(list)
        """Mistake → where it was found."""

    def add(self, mistake: str, where: object) -> None:
        self.examples[mistake].append(str(where))

    def problems(self, noun: str) -> list[DatasetProblem]:
        """One error for each mistake, such as "3 lines without a pid: line 5, line 6, line 9"."""
        return [
            DatasetProblem(True, f"{many(len(found), noun)} {mistake}{name_examples(found)}")
            for mistake, found in self.examples.items()
        ]


def plain_id(text: str) -> str:
    """An identity or camera in the form in which it is compared: a number by value, 0007 as 7."""
    return str(int(text)) if _NUMBER.fullmatch(text) else text


def id_order(text: str) -> tuple[bool, int, str]:
    """The sort key of identities and cameras: numbers by value, then words."""
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
    """Builds a list without junk images, and checks it as a whole.

    Args:
        source: the CSV or folder.
        images: all images that it names.
        problems: those found while reading it.
        conditions: names of the conditions.
        need_split: whether the images must have a split; if so, the split is checked too.
    """
    given = list(images)
    kept = [image for image in given if image.pid != JUNK]
    found, notes = list(problems), []
    if len(kept) < len(given):
        junk = many(len(given) - len(kept), "image")
        notes.append(f"{junk} of identity {JUNK} (junk) left out, as in torchreid")
    if kept:
        without = [image for image in kept if not image.camid]
        if len(without) == len(kept):
            notes.append("no cameras, each image counts as its own camera")
        elif without:
            text = f"{many(len(without), 'image')} without a camera although others have one; give"
            where = [str(image.path) for image in without]
            found.append(
                DatasetProblem(True, f"{text} all images a camera, or none{name_examples(where)}")
            )
        if need_split:
            found += _split_problems(kept)
            found += _twin_problems(kept, conditions)
        found += _shared_label_maps(kept)
    elif not any(problem.is_error for problem in found):
        found.append(DatasetProblem(True, "no images"))
    return ImageList(source, kept, conditions, found, notes)


def _shared_label_maps(images: Sequence[ListedImage]) -> list[DatasetProblem]:
    """Images that differ only in their suffix: a.jpg and a.png both have the label map a.png."""
    by_stem: defaultdict[Path, set[Path]] = defaultdict(set)
    for image in images:
        by_stem[image.path.with_suffix("")].add(image.path)
    shared = [" = ".join(sorted(map(str, paths))) for paths in by_stem.values() if len(paths) > 1]
    if not shared:
        return []
    text = f"{many(len(shared), 'label map')} shared by images that differ only in their suffix"
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
    """Near-twins of queries that are not in the gallery, so that no hit can be one of them."""
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
