"""Opening one of torchreid's data sets without its downloads and warnings."""

import os
import warnings
from pathlib import Path

import torchreid

from magnifier_plugin.catalogue.layouts import require_dataset
from magnifier_plugin.catalogue.names import dataset_class, plain_name
from magnifier_plugin.files import absolute_path


def open_dataset(
    name: str, root: str | os.PathLike[str], *, cuhk03_labeled: bool = False
) -> torchreid.data.ImageDataset:
    """A data set as torchreid reads it, checked first; nothing is downloaded.

    Args:
        name: its registered name, with or without `_masked`.
        root: the folder of all data sets.
        cuhk03_labeled: CUHK03's labelled boxes instead of the detected ones.
    Returns:
        The data set in train mode, without a transform.
    Raises:
        FileNotFoundError: a folder or file is missing.
        ValueError: the name is unknown, a list is empty, or torchreid cannot read the names of
            files or folders.
    """
    name = plain_name(name)
    require_dataset(name, root)
    options = {"cuhk03_labeled": True} if cuhk03_labeled else {}
    try:
        with warnings.catch_warnings():  # Market-1501 without its inner folder is "deprecated"
            warnings.simplefilter("ignore", UserWarning)
            return dataset_class(name)(root=str(absolute_path(root)), verbose=False, **options)
    except IndexError:
        raise ValueError(
            f"{name} in {root}: torchreid found no image for training, query or gallery"
        ) from None


def own_folder(dataset: torchreid.data.ImageDataset) -> Path:
    """The data set's own folder, such as `reid-data/market1501`; its label maps mirror it."""
    cls = type(dataset)
    if cls.__module__.startswith("torchreid."):
        # The class's: CUHK02's constructor gives its instances a deeper one.
        return absolute_path(dataset.root) / cls.dataset_dir
    return absolute_path(dataset.dataset_dir)
