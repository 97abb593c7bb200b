"""Checks of a data set before a training run is wasted on it: its lists, and each of its images.

Checking the lists takes a moment, so it is done before every run; checking the images takes
minutes.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tqdm import tqdm

from magnifier_plugin.catalogue.names import ImageRecord, OriginalIds
from magnifier_plugin.catalogue.problems import DatasetProblem
from magnifier_plugin.images import read_image
from magnifier_plugin.wording import many, name_examples
from magnifier_plugin.workers import on_all_cores

# Training identities are renumbered; file names like Market-1501's still have the original number.
_IDENTITY_IN_NAME = re.compile(r"(-?\d+)_c\d")


class Subset(NamedTuple):
    """The counts of one list."""

    name: str
    """train, query or gallery."""
    images: int
    identities: int
    cameras: int
    images_of_identity: tuple[int, float, int]
    """Images of one identity: the fewest, the median and the most."""


class Lists(NamedTuple):
    """The result of checking a data set's lists."""

    subsets: list[Subset]
    """Counts of train, query and gallery."""
    absent: list[ImageRecord]
    """Queries whose identity is not in the gallery."""
    same_camera: list[ImageRecord]
    """Queries whose identity is in the gallery only in images of the query's own camera."""
    problems: list[DatasetProblem]
    """What is wrong with them."""


class Images(NamedTuple):
    """The result of checking a data set's image files."""

    sizes: Counter[tuple[int, int]]
    """(width, height) → number of images."""
    problems: list[DatasetProblem]
    """Files that do not decode, and files that are both training and test images."""


def check_lists(
    train: Sequence[ImageRecord],
    query: Sequence[ImageRecord],
    gallery: Sequence[ImageRecord],
    *,
    compare_names: bool = True,
    original_ids: OriginalIds | None = None,
) -> Lists:
    """Checks torchreid's three lists, without opening any file.

    A data set only for training may have neither query nor gallery; one only for testing may have
    no training images.

    Args:
        train, query, gallery: torchreid's lists.
        compare_names: whether to look in the files' names for identities that are in both the
            training and the test images.
        original_ids: how messages name identities and cameras; None: by the numbers in query and
            gallery. An image that is not in it is named only by its path.
    """
    parts = {"train": train, "query": query, "gallery": gallery}
    absent, same_camera = _without_match(query, gallery)
    ids = numbers_as_ids([*query, *gallery]) if original_ids is None else original_ids
    problems = _training_problems(train, ids)
    if bool(query) != bool(gallery) or not any(parts.values()):
        empty = [name for name in ("query", "gallery") if not parts[name]]
        problems += [DatasetProblem(True, f"{name}: no images") for name in empty]
    if query and gallery:
        problems += _matching_problems(query, gallery, absent, same_camera, ids)
    if compare_names:
        problems += _overlap(train, [*query, *gallery])
    subsets = [_count(name, part) for name, part in parts.items()]
    return Lists(subsets, absent, same_camera, problems)


def numbers_as_ids(records: Iterable[ImageRecord]) -> OriginalIds:
    """Identity and camera of torchreid's records by their numbers, for messages."""
    return {path: (str(pid), str(camid)) for path, pid, camid, _ in records}


def check_images(
    train: Iterable[ImageRecord],
    test: Iterable[ImageRecord],
    *,
    workers: int | None = None,
    progress: bool = True,
) -> Images:
    """Decodes every image, on all cores, and looks for files with the same content in both lists.

    Args:
        train: training images.
        test: query and gallery images.
        workers: number of processes; None: one for each core.
        progress: show a progress bar, if there is a terminal.
    """
    in_train, in_test = ({record[0] for record in part} for part in (train, test))
    paths = sorted(in_train | in_test)
    files = on_all_cores(_decode, paths, workers)
    bar = tqdm(files, total=len(paths), unit="image", disable=None if progress else True)
    sizes: Counter[tuple[int, int]] = Counter()
    same: defaultdict[str, list[str]] = defaultdict(list)
    problems = []
    for path, (size, digest, failure) in zip(paths, bar, strict=True):
        if failure:
            problems.append(DatasetProblem(True, failure))
        else:
            sizes[size] += 1
            same[digest].append(path)
    for equal in same.values():
        if in_train.intersection(equal) and in_test.intersection(equal):
            text = f"in both training and test images: {' = '.join(equal)}"
            problems.append(DatasetProblem(True, text))
    return Images(sizes, problems)


class _DecodedFile(NamedTuple):
    """What is kept of one image file."""

    size: tuple[int, int] | None
    """Width and height; None if it does not decode."""
    digest: bytes
    """Equal for files with the same content."""
    failure: str = ""
    """Why it does not decode; "" if it does."""


def _decode(path: str) -> _DecodedFile:
    try:
        size = read_image(path).size
        digest = hashlib.blake2b(Path(path).read_bytes(), digest_size=16).digest()
        return _DecodedFile(size, digest)
    except OSError as error:
        return _DecodedFile(None, b"", str(error))


def _count(name: str, part: Sequence[ImageRecord]) -> Subset:
    images = Counter(record[1] for record in part)
    counts = list(images.values()) or [0]
    cameras = {record[2] for record in part}
    span = min(counts), median(counts), max(counts)
    return Subset(name, len(part), len(images), len(cameras), span)


def _without_match(
    query: Sequence[ImageRecord], gallery: Sequence[ImageRecord]
) -> tuple[list[ImageRecord], list[ImageRecord]]:
    cameras = defaultdict(set)
    for record in gallery:
        cameras[record[1]].add(record[2])
    absent = [record for record in query if record[1] not in cameras]
    same_camera = [record for record in query if cameras.get(record[1]) == {record[2]}]
    return absent, same_camera


def _name_images(paths: Iterable[str], ids: OriginalIds) -> str:
    """Examples of images, with their identity and camera."""
    names = []
    for path in paths:
        pid, camid = ids.get(path, ("", ""))
        words = [f"identity {pid}"] * bool(pid) + [f"camera {camid}"] * bool(camid)
        names.append(f"{path} ({', '.join(words)})" if words else path)
    return name_examples(names)


def _training_problems(train: Sequence[ImageRecord], ids: OriginalIds) -> list[DatasetProblem]:
    problems = []
    images = Counter(record[1] for record in train)
    if train and set(images) != set(range(len(images))):
        problems.append(
            DatasetProblem(
                True,
                f"train: identities are numbered {min(images)}..{max(images)}; a classifier for "
                f"{many(len(images), 'identity')} needs the numbers 0..{len(images) - 1}",
            )
        )
    single = [record[0] for record in train if images[record[1]] == 1]
    if single:
        text = f"train: {many(len(single), 'identity')} with only one image, no pair to learn from"
        problems.append(DatasetProblem(False, f"{text}{_name_images(single, ids)}"))
    repeated = [path for path, count in Counter(r[0] for r in train).items() if count > 1]
    if repeated:
        text = (
            f"train: {many(len(repeated), 'image')} listed more than once{name_examples(repeated)}"
        )
        problems.append(DatasetProblem(False, text))
    return problems


def _matching_problems(
    query: Sequence[ImageRecord],
    gallery: Sequence[ImageRecord],
    absent: Sequence[ImageRecord],
    same_camera: Sequence[ImageRecord],
    ids: OriginalIds,
) -> list[DatasetProblem]:
    none_left = len(absent) + len(same_camera) == len(query)
    problems = []
    for records, why in (
        (absent, "of an identity that is not in the gallery"),
        (same_camera, "of an identity that is in the gallery only in the query's own camera"),
    ):
        if records:
            examples = _name_images((record[0] for record in records), ids)
            text = f"query: {many(len(records), 'image')} {why}, left out of all metrics{examples}"
            problems.append(DatasetProblem(none_left, text))
    if none_left:
        text = "query: no image has a match in the gallery, so nothing can be measured"
        if len({record[2] for record in [*query, *gallery]}) == 1:
            text += (
                "; all images are of one camera: the metrics need two, or set test.same_camera keep"
            )
        problems.append(DatasetProblem(True, text))
    return problems


def _overlap(train: Sequence[ImageRecord], test: Sequence[ImageRecord]) -> list[DatasetProblem]:
    """Identities in both lists by the files' names, since training identities are renumbered."""
    old = [
        {match[1] for record in part if (match := _IDENTITY_IN_NAME.match(Path(record[0]).name))}
        for part in (train, test)
    ]
    both = sorted(old[0] & old[1])
    if not both:
        return []
    text = f"{many(len(both), 'identity')} in both training and test images, by the files' names"
    return [DatasetProblem(True, f"{text}{name_examples(both)}")]
