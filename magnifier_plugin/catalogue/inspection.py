"""A data set looked at before it costs a run: its lists, and, one by one, its images.

The lists take a moment and are worth checking before every run; the images take minutes.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tqdm import tqdm

from magnifier_plugin.catalogue.names import ImageRecord
from magnifier_plugin.files import read_image
from magnifier_plugin.workers import on_all_cores

_LISTED = 3  # examples that a problem names
# Training identities are renumbered, but files named as in Market-1501 still tell the old number.
_OLD_IDENTITY = re.compile(r"(-?\d+)_c\d")


class Problem(NamedTuple):
    """What somebody should know; an error makes training or testing wrong or impossible."""

    is_error: bool
    text: str


class Subset(NamedTuple):
    """Counts of one list; images of an identity: the fewest, the median and the most."""

    name: str
    images: int
    identities: int
    cameras: int
    images_of_identity: tuple[int, float, int]


class Lists(NamedTuple):
    """What a data set's lists say.

    absent: queries whose identity the gallery lacks.
    same_camera: queries whose identity the gallery has in their own camera only.
    """

    subsets: list[Subset]
    absent: list[ImageRecord]
    same_camera: list[ImageRecord]
    problems: list[Problem]


class Images(NamedTuple):
    """What the image files are like.

    sizes: (width, height) → how many images have it.
    problems: files that do not decode; files that are training and test images at once.
    """

    sizes: Counter
    problems: list[Problem]


def check_lists(
    train: Sequence[ImageRecord],
    query: Sequence[ImageRecord],
    gallery: Sequence[ImageRecord],
    combined: bool = False,
) -> Lists:
    """Looks at torchreid's three lists; opens no file.

    Args:
        train, query, gallery: torchreid's.
        combined: query and gallery images are trained on too, on purpose (combineall).
    """
    parts = {"train": train, "query": query, "gallery": gallery}
    absent, same_camera = _without_match(query, gallery)
    problems = [Problem(True, f"{name}: no images") for name, part in parts.items() if not part]
    problems += _training_problems(train)
    if query and gallery:
        problems += _matching_problems(query, gallery, absent, same_camera)
    if not combined:
        problems += _overlap(train, [*query, *gallery])
    subsets = [_count(name, part) for name, part in parts.items()]
    return Lists(subsets, absent, same_camera, problems)


def check_images(
    train: Iterable[ImageRecord],
    test: Iterable[ImageRecord],
    *,
    workers: int | None = None,
    progress: bool = True,
) -> Images:
    """Decodes every image, on all cores, and compares the files of both lists.

    Args:
        train: training images.
        test: query and gallery images.
        workers: processes; None: one for each core.
        progress: show a bar, where there is a terminal.
    """
    in_train, in_test = ({record[0] for record in part} for part in (train, test))
    paths = sorted(in_train | in_test)
    looks = on_all_cores(_look, paths, workers)
    bar = tqdm(looks, total=len(paths), unit="image", disable=None if progress else True)
    sizes, problems, same = Counter(), [], defaultdict(list)
    for path, (size, digest, reason) in zip(paths, bar, strict=True):
        if reason:
            problems.append(Problem(True, reason))
        else:
            sizes[size] += 1
            same[digest].append(path)
    for files in same.values():
        if in_train.intersection(files) and in_test.intersection(files):
            problems.append(Problem(True, f"trained and tested on: {' = '.join(files)}"))
    return Images(sizes, problems)


def many(count: int, noun: str) -> str:
    """`many(1, "identity")` is "1 identity", `many(2000, "identity")` "2,000 identities"."""
    if count != 1:
        noun = noun.removesuffix("y") + "ies" if noun.endswith("y") else noun + "s"
    return f"{count:,} {noun}"


class _Look(NamedTuple):
    size: tuple[int, int] | None
    digest: bytes
    reason: str = ""


def _look(path: str) -> _Look:
    try:
        image = read_image(path)
        return _Look(image.size, hashlib.blake2b(Path(path).read_bytes(), digest_size=16).digest())
    except OSError as error:
        return _Look(None, b"", str(error))


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


def _training_problems(train: Sequence[ImageRecord]) -> list[Problem]:
    problems = []
    images = Counter(record[1] for record in train)
    if train and set(images) != set(range(len(images))):
        problems.append(
            Problem(
                True,
                f"train: identities are numbered {min(images)}..{max(images)}; a "
                f"classifier of {many(len(images), 'identity')} needs 0..{len(images) - 1}",
            )
        )
    single = sum(count == 1 for count in images.values())
    if single:
        text = f"train: {many(single, 'identity')} with one image, no pair to learn from"
        problems.append(Problem(False, text))
    repeated = [path for path, count in Counter(r[0] for r in train).items() if count > 1]
    if repeated:
        text = f"train: {many(len(repeated), 'image')} listed more than once{_such_as(repeated)}"
        problems.append(Problem(False, text))
    return problems


def _matching_problems(
    query: Sequence[ImageRecord],
    gallery: Sequence[ImageRecord],
    absent: Sequence[ImageRecord],
    same_camera: Sequence[ImageRecord],
) -> list[Problem]:
    none_left = len(absent) + len(same_camera) == len(query)
    problems = []
    for records, why in (
        (absent, "of an identity that the gallery does not have"),
        (same_camera, "of an identity that the gallery has in the query's own camera only"),
    ):
        if records:
            examples = _such_as([f"{r[0]} (identity {r[1]}, camera {r[2]})" for r in records])
            text = f"query: {many(len(records), 'image')} {why}, left out of all metrics{examples}"
            problems.append(Problem(none_left, text))
    if none_left:
        text = "query: no image has a match in the gallery, nothing can be measured"
        if len({record[2] for record in [*query, *gallery]}) == 1:
            text += "; all images are of one camera, the metrics need two"
        problems.append(Problem(True, text))
    return problems


def _overlap(train: Sequence[ImageRecord], test: Sequence[ImageRecord]) -> list[Problem]:
    """Identities on both sides; only file names can tell, for training renumbers them."""
    old = [
        {match[1] for record in part if (match := _OLD_IDENTITY.match(Path(record[0]).name))}
        for part in (train, test)
    ]
    both = sorted(old[0] & old[1])
    if not both:
        return []
    text = f"{many(len(both), 'identity')} trained and tested on, by the files' names"
    return [Problem(True, f"{text}{_such_as(both)}")]


def _such_as(examples: Sequence[str]) -> str:
    more = ", …" if len(examples) > _LISTED else ""
    return f": {', '.join(examples[:_LISTED])}{more}"
