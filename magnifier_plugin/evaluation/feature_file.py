"""The file with the features of an image folder, which `scripts/extract.py` writes.

Searches read it; so does `scripts/rerank.py`, as features and, if the file names contain them, ids.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from magnifier_plugin.catalogue.images import market_ids
from magnifier_plugin.evaluation.array_files import as_dense_tensor, listed, read_arrays
from magnifier_plugin.evaluation.features import FEATURES
from magnifier_plugin.files import open_atomically

SUFFIX = ".npz"
_ABOUT, _NAME = "about", "name"


class ImageFeatures(NamedTuple):
    """The features of the images in a folder."""

    features: np.ndarray
    """float32 [N, D], raw."""
    names: list[str]
    """Path of each image relative to the folder, separated by `/`."""
    folder: Path
    """The folder of the images when the features were extracted."""
    identity: dict[str, Any]
    """What the features depend on besides the images: model, digest of its weights, size, …"""

    @property
    def paths(self) -> list[Path]:
        """Path of each image."""
        return [self.folder / name for name in self.names]


def write_feature_file(path: str | os.PathLike[str], images: ImageFeatures) -> None:
    """Writes the file atomically.

    The arrays are `features`, `name`, `about` (JSON), and `pid` and `camid` if every image's name
    begins like Market-1501's (`0002_c1s1_000451_03.jpg`).

    Args:
        path: an `.npz` file; missing folders are made.
    Raises:
        OSError: as in `files.open_atomically`.
    """
    about = {"folder": str(images.folder), "identity": images.identity}
    arrays: dict[str, Any] = {FEATURES: images.features, **_ids(images.names)}
    arrays |= {_NAME: np.array(images.names, dtype=str), _ABOUT: np.array(json.dumps(about))}
    with open_atomically(path) as file:
        np.savez(file, **arrays)


def _ids(names: Sequence[str]) -> dict[str, np.ndarray]:
    found = [market_ids(name.rpartition("/")[2]) for name in names]
    if not all(found):
        return {}
    try:
        pids, camids = np.array(found, dtype=np.int64).T
    except (OverflowError, ValueError):  # a number of more than 64 bits is not an id
        return {}
    return {"pid": pids, "camid": camids}


def read_feature_file(path: str | os.PathLike[str]) -> ImageFeatures:
    """Reads a file of `write_feature_file`; no code in it is run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or does not have the arrays that `write_feature_file` writes.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: expected a file of scripts/extract.py, found no such file"
        )
    content = read_arrays(path)
    found = content if isinstance(content, Mapping) else {}
    missing = [key for key in (FEATURES, _NAME, _ABOUT) if key not in found]
    if missing:
        raise ValueError(
            f"{path}: expected a file that scripts/extract.py wrote, with the arrays {FEATURES}, "
            f"{_NAME} and {_ABOUT}; found {listed(found) or 'one array without a name'}"
        )
    features = as_dense_tensor(f"{path}: {FEATURES}", found[FEATURES]).float().numpy()
    names = found[_NAME]
    if features.ndim != 2 or names.shape != features.shape[:1] or names.dtype.kind != "U":
        raise ValueError(
            f"{path}: expected features [N, D] and names [N], found {list(features.shape)} and "
            f"{names.dtype} {list(names.shape)}"
        )
    folder, identity = _read_about(path, found[_ABOUT])
    listed_names = [_inside(path, name) for name in names.tolist()]
    return ImageFeatures(features, listed_names, folder, identity)


def _read_about(path: Path, about: np.ndarray) -> tuple[Path, dict[str, Any]]:
    try:
        content = json.loads(str(about))
        folder, identity = Path(content["folder"]), content["identity"]
        if isinstance(identity, dict):
            return folder, identity
    except (ValueError, TypeError, KeyError):
        pass
    raise ValueError(f"{path}: expected {_ABOUT} as scripts/extract.py writes it; extract it again")


def _inside(path: Path, name: str) -> str:
    """Refuses a name that would read a file outside the folder."""
    if name.startswith("/") or ".." in name.split("/"):
        raise ValueError(f"{path}: refused, the image's name {name!r} is outside its folder")
    return name
