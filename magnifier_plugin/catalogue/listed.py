"""The user's own data sets in torchreid: a CSV or a folder under a name."""

import logging
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torchreid

from magnifier_plugin.catalogue.csv_list import read_image_csv
from magnifier_plugin.catalogue.folder_list import read_folder
from magnifier_plugin.catalogue.image_list import (
    DISTRACTORS,
    QUERY,
    SPLITS,
    TRAIN,
    ConditionFile,
    ImageList,
)
from magnifier_plugin.catalogue.names import MASKED_SUFFIX, plain_name, registered_datasets
from magnifier_plugin.catalogue.numbering import common_folder, number_images
from magnifier_plugin.files import absolute_path

logger = logging.getLogger(__name__)

ANY = "any"  # the mode of a data set that is opened only to read its lists
_NAME = re.compile(r"[\w-]+")
ImageDataset: Any = torchreid.data.ImageDataset


class ListedDataset(ImageDataset):
    """A torchreid data set made of a list of images, numbered by `numbering.number_images`.

    Args:
        name: the data set's name, for messages.
        images: the list; it may have any of the splits.
        dataset_dir: the folder that contains all images; label maps mirror it.
        mode, transform, k_tfm, combineall, verbose: as in torchreid's Dataset; mode ANY is for
            callers that only read the lists.
        others: arguments that torchreid's managers pass to every data set; ignored.
    Raises:
        ValueError: the list has errors, or no images for this mode.
    """

    identities_compared = True
    """The identities of train and test have been compared as the list gives them."""

    def __init__(
        self,
        name: str,
        images: ImageList,
        dataset_dir: Path,
        *,
        mode: str = "train",
        transform: Any = None,
        k_tfm: int = 1,
        combineall: bool = False,
        verbose: bool = True,
        **others: Any,
    ) -> None:
        images.require(name)
        numbered = number_images(images)
        lists = dict(zip(SPLITS, numbered, strict=False))
        if mode in lists and not lists[mode]:
            use = "trained on (-s)" if mode == TRAIN else "tested on (-t)"
            raise ValueError(
                f"{name}: {images.source} has no images in split {mode}, so it cannot be {use}"
            )
        for note in images.notes:
            _log_once(f"{name}: {note}")
        # torchreid's constructor looks at the first image of each list.
        some = next(filter(None, lists.values()))
        super().__init__(some, some, some, transform=transform, k_tfm=k_tfm, verbose=False)
        self.mode, self.combineall = mode, combineall
        self.dataset_dir = str(dataset_dir)
        self.original_ids = images.original_ids
        self.own_conditions = _conditions(images)
        self.test_pids = numbered.test_pids
        self._junk_pids = _distractors(images, numbered.test_pids)
        self.train, self.query, self.gallery = lists.values()
        if combineall:
            self.combine_all()
        self.num_train_pids = self.get_num_pids(self.train)
        self.num_train_cams = self.get_num_cams(self.train)
        self.num_datasets = self.get_num_datasets(self.train)
        self.data = [] if mode == ANY else getattr(self, mode)
        if verbose:
            self.show_summary()

    def combine_all(self) -> None:
        """Adds the query and gallery images to training, with identities numbered consecutively."""
        test = [r for r in [*self.query, *self.gallery] if r[1] not in self._junk_pids]
        first = self.get_num_pids(self.train)
        numbers = {pid: n for n, pid in enumerate(sorted({r[1] for r in test}), start=first)}
        unique = {path: (path, numbers[pid], camid, ds) for path, pid, camid, ds in test}
        self.train = [*self.train, *unique.values()]


@dataclass(frozen=True)
class OwnSource:
    """A CSV or a folder; calling it opens the data set, as calling one of torchreid's classes does.

    Raises:
        FileNotFoundError: there is neither a file nor a folder at the path.
        ValueError: the name has characters other than letters, digits, _ and -, or ends in
            `_masked`.
    """

    name: str
    path: Path

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name.endswith(MASKED_SUFFIX):
            raise ValueError(
                f"{self.name}={self.path}: expected a name of letters, digits, _ and - before the "
                f"= that does not end in {MASKED_SUFFIX}, got {self.name!r}"
            )
        if not self.path.exists():
            raise FileNotFoundError(
                f"{self.name}: expected a CSV or a folder at {self.path}, found nothing there"
            )

    def read(self) -> ImageList:
        """Reads the images that the CSV or the folder lists, with the problems found."""
        return read_folder(self.path) if self.path.is_dir() else read_image_csv(self.path)

    def folder(self, images: ImageList) -> Path:
        """The folder that contains all images."""
        if self.path.is_dir():
            return self.path
        return common_folder([self.path, *(image.path for image in images.images)])

    def __call__(self, root: str = "", **options: Any) -> ListedDataset:
        """Opens the data set; root is ignored."""
        images = self.read()
        return ListedDataset(self.name, images, self.folder(images), **options)


def register_source(name: str, path: str | os.PathLike[str]) -> OwnSource:
    """Registers a CSV or a folder as one of torchreid's data sets; repeating it changes nothing.

    Raises:
        FileNotFoundError, ValueError: as `OwnSource`, or the name is taken by another data set.
    """
    source = OwnSource(name, absolute_path(path))
    taken = registered_datasets().setdefault(name, source)
    if taken != source:
        other = taken.path if isinstance(taken, OwnSource) else "a data set that torchreid knows"
        raise ValueError(f"{name}={path}: the name {name} is taken by {other}; choose another name")
    return source


def find_name(word: str) -> str:
    """The plain name of a data set given as `shop=PATH` or `market1501_masked`.

    `shop=PATH` is also registered.

    Raises:
        FileNotFoundError, ValueError: as `register_source`.
    """
    name, equals, path = word.partition("=")
    return register_source(name, path).name if equals else plain_name(word)


def _conditions(images: ImageList) -> ConditionFile | None:
    if not images.conditions:
        return None
    # Results are reported by the query's conditions, also if the image is in the gallery too.
    queries_last = sorted(images.images, key=lambda image: image.split == QUERY)
    rows = {image.path: image.conditions for image in queries_last}
    return ConditionFile(images.source, images.conditions, rows)


def _distractors(images: ImageList, test_pids: dict[str, int]) -> list[int]:
    """The number of Market-1501's distractors (identity 0, in the gallery only), if any."""
    is_query = any(image.pid == DISTRACTORS for image in images.of_split(QUERY))
    return [test_pids[DISTRACTORS]] if DISTRACTORS in test_pids and not is_query else []


@cache
def _log_once(text: str) -> None:
    """Logs a text once, although a data set is opened for training, query and gallery in turn."""
    logger.info("%s", text)
