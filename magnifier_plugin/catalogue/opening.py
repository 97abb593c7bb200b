"""Opening one of torchreid's data sets without downloads, and with errors that name what is
missing."""

import os
import re
import warnings
from pathlib import Path
from typing import Any

import torchreid

from magnifier_plugin.catalogue.inspection import numbers_as_ids
from magnifier_plugin.catalogue.layouts import missing_data, require_folder
from magnifier_plugin.catalogue.listed import ANY, OwnSource, find_name
from magnifier_plugin.catalogue.names import OriginalIds, dataset_class
from magnifier_plugin.catalogue.numbering import common_folder
from magnifier_plugin.catalogue.occluded import OccludedSet
from magnifier_plugin.files import absolute_path

_NOT_FOUND = re.compile(r'"(.*)" is not found')  # the message of torchreid's check_before_run


def open_dataset(
    name: str, root: str | os.PathLike[str], *, verbose: bool = False, **options: Any
) -> torchreid.data.ImageDataset:
    """Checks a data set's files, and opens it with torchreid.

    Args:
        name: its registered name, with or without `_masked`, or `shop=PATH`.
        root: the folder of all data sets.
        verbose: print torchreid's summary.
        options: further keyword arguments of the data set's class.
    Raises:
        FileNotFoundError: a folder or file is missing.
        ValueError: the name is unknown, a list is empty, or torchreid cannot read the names of
            files or folders.
    """
    name = find_name(name)
    cls: Any = dataset_class(name)
    folder = absolute_path(root)
    # Only the folders of torchreid's own classes are known before they are built.
    if cls.__module__.startswith("torchreid."):
        require_folder(name, folder / cls.dataset_dir)
    try:
        with warnings.catch_warnings():  # Market-1501 without its inner folder is "deprecated"
            warnings.simplefilter("ignore", UserWarning)
            return cls(root=str(folder), verbose=verbose, **options)
    except IndexError:
        raise ValueError(
            f"{name} in {root}: torchreid found no images for training, query or gallery"
        ) from None
    except RuntimeError as error:  # torchreid's check of the files that it needs
        found = _NOT_FOUND.search(str(error))
        if not found:
            raise
        raise missing_data(name, found[1]) from error


def open_lists(name: str, root: str | os.PathLike[str], **options: Any) -> Any:
    """Opens a data set to read its lists; unlike in `open_dataset`, a list may be empty.

    Args:
        name, root, options: as in `open_dataset`.
    Raises:
        FileNotFoundError, ValueError: as `open_dataset`.
    """
    opener = dataset_class(find_name(name))
    may_be_empty = isinstance(opener, OwnSource | OccludedSet)
    return open_dataset(name, root, mode=ANY if may_be_empty else "train", **options)


def own_folder(dataset: Any) -> Path:
    """The folder that contains all images of a data set; its label maps mirror it.

    It is the folder that the data set names, such as `reid-data/market1501`. If a user's class
    names none, or one that does not contain all its images, it is the deepest folder that does.
    """
    lists = (getattr(dataset, split, ()) for split in ("train", "query", "gallery"))
    images = [record[0] for images in lists for record in images]
    for folder in _named_folders(dataset):
        if all(_is_inside(image, folder) for image in images):
            return folder
    return common_folder(map(absolute_path, images))


def original_ids(dataset: Any) -> OriginalIds:
    """The identities and cameras that messages name, by the path of an image.

    For the user's own CSV or folder they are as given there; for torchreid's classes they are the
    numbers in query and gallery only, since those classes renumber training identities.
    """
    found: OriginalIds | None = getattr(dataset, "original_ids", None)
    return numbers_as_ids([*dataset.query, *dataset.gallery]) if found is None else found


def _is_inside(image: str, folder: Path) -> bool:
    plain = image.startswith(f"{folder}{os.sep}") and os.pardir not in image
    return plain or absolute_path(image).is_relative_to(folder)


def _named_folders(dataset: Any) -> list[Path]:
    """The folders that a data set's class and object name as its own."""
    of_class = getattr(type(dataset), "dataset_dir", None)
    of_object, root = vars(dataset).get("dataset_dir"), vars(dataset).get("root")
    named = []
    if isinstance(of_class, str) and isinstance(root, str):
        # The class's folder comes first: CUHK02's constructor sets a deeper one on its instances.
        named.append(absolute_path(Path(root) / of_class))
    if isinstance(of_object, str | os.PathLike):
        named.append(absolute_path(of_object))
    return named
