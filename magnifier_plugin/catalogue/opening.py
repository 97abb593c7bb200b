"""Opening one of torchreid's data sets: nothing is downloaded, and errors say what is missing."""

import os
import warnings
from pathlib import Path
from typing import Any

import torchreid

from magnifier_plugin.catalogue.layouts import missing_data, require_folder
from magnifier_plugin.catalogue.names import dataset_class, plain_name
from magnifier_plugin.files import absolute_path


def open_dataset(
    name: str, root: str | os.PathLike[str], *, verbose: bool = False, **options: Any
) -> torchreid.data.ImageDataset:
    """A data set as torchreid reads it, checked first.

    Args:
        name: its registered name, with or without `_masked`.
        root: the folder of all data sets.
        verbose: print torchreid's summary.
        options: further keyword arguments of the data set's class.
    Raises:
        FileNotFoundError: a folder or file is missing.
        ValueError: the name is unknown, a list is empty, or torchreid cannot read the names of
            files or folders.
    """
    name = plain_name(name)
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
            f"{name} in {root}: torchreid found no image for training, query or gallery"
        ) from None
    except RuntimeError as error:  # torchreid's check of the files that it needs
        path = str(error).partition('"')[2].partition('" is not found')[0]
        raise missing_data(name, path or folder, folder) from error


def own_folder(dataset: torchreid.data.ImageDataset) -> Path:
    """The data set's own folder, such as `reid-data/market1501`; its label maps mirror it."""
    cls = type(dataset)
    if isinstance(getattr(cls, "dataset_dir", None), str):
        # The class's: CUHK02's constructor gives its instances a deeper one.
        return absolute_path(Path(dataset.root) / cls.dataset_dir)
    return absolute_path(dataset.dataset_dir)
