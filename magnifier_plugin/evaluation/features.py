"""Features and ids from files, as any toolbox writes them; nothing in a file is ever run."""

import csv
import os
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

NUMPY_SUFFIXES = (".npy", ".npz")
TORCH_SUFFIXES = (".pt", ".pth")
ID_SUFFIXES = (".csv", ".npz")
# What a column of a CSV, or an array of an npz, may be called.
_PID = ("pid", "pids", "id", "ids", "label", "labels")
_CAMID = ("camid", "camids", "cam", "cams", "camera", "cameras")
_NAME = ("name", "names", "path", "paths", "impath", "image", "file")


class Ids(NamedTuple):
    """Who is on each image, and which camera saw them.

    pids, camids: integers or strings [N].
    names: strings [N]; None where the file has none.
    """

    pids: np.ndarray
    camids: np.ndarray
    names: np.ndarray | None


def load_features(source: str | os.PathLike[str]) -> Tensor:
    """Features from a `.npy`, `.npz`, `.pt` or `.pth` file.

    Args:
        source: FILE, or FILE:KEY for one of several arrays in an npz or in a saved dict.
    Returns:
        What the file holds, on the CPU; shape and values are for `checks.as_features` to judge.
    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is of another kind, a pickle, or damaged, or KEY is missing or wrong;
            the message lists the keys that there are.
    """
    path, key = _split(os.fspath(source))
    _require(path, NUMPY_SUFFIXES + TORCH_SUFFIXES)
    content = _read_torch(path) if path.suffix in TORCH_SUFFIXES else _read_numpy(path)
    if isinstance(content, Mapping):
        if key is None and len(content) == 1:
            key = next(iter(content))
        if key not in content:
            names = ", ".join(map(str, content))
            raise ValueError(f"{path}: give one of its arrays as {path}:KEY; it has {names}")
        content = content[key]
    elif key is not None:
        raise ValueError(f"{path}: one array without a name, got the key {key!r}")
    if isinstance(content, np.ndarray) and content.dtype.kind in "fiub":
        content = torch.from_numpy(content)
    if not isinstance(content, Tensor):
        kind = getattr(content, "dtype", type(content).__name__)
        raise ValueError(f"{path}: expected an array of numbers, got {kind}")
    return content


def load_ids(path: str | os.PathLike[str]) -> Ids:
    """Ids from a CSV file with a header, or from an npz file.

    Columns, or arrays, are called pid and camid, and name if there is one (or the like: pids,
    camera, path, …), in any order. Others are ignored.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is of another kind, a pickle, or damaged, pid or camid is missing, a
            row is too short, or there are no rows.
    """
    path = Path(path)
    _require(path, ID_SUFFIXES)
    columns = _read_csv(path) if path.suffix == ".csv" else _read_numpy(path)
    found = []
    for names in (_PID, _CAMID, _NAME):
        column = next((columns[name] for name in columns if name.lower() in names), None)
        if column is None and names is not _NAME:
            raise ValueError(f"{path}: expected {names[0]}, found only {', '.join(columns)}")
        found.append(column)
    ids = Ids(*found)
    if len(ids.pids) == 0:
        raise ValueError(f"{path}: no rows")
    lengths = [len(column) for column in found if column is not None]
    if len(set(lengths)) > 1:
        raise ValueError(f"{path}: its arrays have different lengths: {lengths}")
    return ids


def _split(source: str) -> tuple[Path, str | None]:
    path, colon, key = source.rpartition(":")
    if colon and not Path(source).is_file() and Path(path).suffix:
        return Path(path), key
    return Path(source), None


def _read_numpy(path: Path) -> np.ndarray | dict[str, np.ndarray]:
    try:
        content = np.load(path, allow_pickle=False)
        return dict(content) if isinstance(content, Mapping) else content
    except (ValueError, EOFError, zipfile.BadZipFile, OSError) as error:
        raise _unreadable(path, error) from error


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise _unreadable(path, error) from error


def _read_csv(path: Path) -> dict[str, np.ndarray]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        header, *rows = [row for row in csv.reader(file) if row] or [[]]
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise ValueError(
                f"{path}: row {number} after the header has {len(row)} fields, not {len(header)}"
            )
    columns = zip(*rows, strict=True) if rows else [()] * len(header)
    pairs = zip(header, columns, strict=True)
    return {name.strip(): _numbers_or_strings(column) for name, column in pairs}


def _numbers_or_strings(column: Sequence[str]) -> np.ndarray:
    try:
        return np.array(column, dtype=np.int64)
    except ValueError:
        return np.array(column)


def _require(path: Path, suffixes: tuple[str, ...]) -> None:
    if path.suffix not in suffixes:
        raise ValueError(f"{path}: expected a file that ends in {', '.join(suffixes)}")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")


def _unreadable(path: Path, error: Exception) -> ValueError:
    reason = str(error).partition("\n")[0]
    return ValueError(
        f"{path}: expected plain numbers; a pickle of anything else is not opened, since opening "
        f"it would run what it contains. Write it with numpy.save or torch.save(tensor) ({reason})"
    )
