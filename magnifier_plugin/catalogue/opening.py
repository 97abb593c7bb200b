"""Opening one of torchreid's data sets: nothing is downloaded, and errors say what is missing."""

import os
from pathlib import Path
from typing import Any

from magnifier_plugin.catalogue.layouts import missing_data, require_folder
from magnifier_plugin.catalogue.names import dataset_class
from magnifier_plugin.files import absolute_path


def open_dataset(name: str, root: str | os.PathLike[str], **options: Any) -> Any:
    """An instance of the class that torchreid registered under a name.

    Args:
        name: the registered name.
        root: the folder of all data sets.
        options: keyword arguments of the class.
    Raises:
        FileNotFoundError: the data set's folder or a file in it is missing.
        ValueError: the name is unknown, torchreid would misread the data set, or a list is empty.
    """
    cls = dataset_class(name)
    folder = absolute_path(root)
    # Only the folders of torchreid's own classes are known before they are built.
    if cls.__module__.startswith("torchreid."):
        folder = folder / cls.dataset_dir
        require_folder(name, folder)
    try:
        return cls(root=str(absolute_path(root)), **options)
    except IndexError as error:
        raise ValueError(
            f"{name}: torchreid takes the first image of its train, query and gallery lists, and "
            "one of them is empty"
        ) from error
    except RuntimeError as error:  # torchreid's check of required files
        path = str(error).partition('"')[2].partition('" is not found')[0]
        if not path or Path(path).exists():
            raise
        raise missing_data(name, path, folder) from error
