"""Features and ids from files that any toolbox can write."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from magnifier_plugin.evaluation.array_files import (
    NUMPY_SUFFIXES,
    TORCH_SUFFIXES,
    as_dense_tensor,
    listed,
    read_arrays,
)
from magnifier_plugin.text_files import SPREADSHEET_DELIMITERS, read_csv

ID_SUFFIXES = (".csv", ".npz")
FEATURES = "features"  # name of the array in files of scripts/extract.py and others
# Accepted names of a CSV column or an array, case-insensitive; the first that exists is used.
_PID = ("pid", "pids", "id", "ids", "label", "labels")
_CAMID = ("camid", "camids", "cam", "cams", "camera", "cameras")
_NAME = ("name", "names", "path", "paths", "impath", "image", "file")
_INT64 = np.iinfo(np.int64)
# int() alone also takes 1_23 and digits of other scripts, but not more than 4300 digits.
_INTEGER = re.compile(r"\s*-?[0-9]{1,4000}\s*")
_MAX_TEXT = 4096  # maximum number of characters of an id or a name


class Ids(NamedTuple):
    """Identity and camera of each image."""

    pids: np.ndarray
    """int64 or strings [N]."""
    camids: np.ndarray
    """int64 or strings [N]."""
    names: np.ndarray | None
    """Strings [N]; None if the file has none."""


def load_features(source: str | os.PathLike[str]) -> Tensor:
    """Loads features from a `.npy`, `.npz`, `.pt` or `.pth` file; no code in the file is run.

    Args:
        source: FILE, or FILE:KEY for one of several arrays in an npz or in a saved dict. Without
            KEY, the only array or the one called `features` is taken.
    Returns:
        The array, on the CPU; its shape and values are not checked (see `checks.as_features`).
    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file has another format, holds pickled objects, or is damaged; or KEY is
            missing or wrong, and the message lists the existing keys.
    """
    path, key = _split(os.fspath(source))
    _require(path, NUMPY_SUFFIXES + TORCH_SUFFIXES)
    content = read_arrays(path)
    if isinstance(content, Mapping):
        if key is None:
            key = next(iter(content)) if len(content) == 1 else FEATURES
        if key not in content:
            raise ValueError(
                f"{path}: expected {path}:KEY with the name of one of its arrays; it has "
                f"{listed(content)}"
            )
        content = content[key]
    elif key is not None:
        raise ValueError(f"{path}: holds one array without a name, but got the key {key!r}")
    return as_dense_tensor(path, content)


def load_ids(path: str | os.PathLike[str]) -> Ids:
    """Loads ids from a CSV file (UTF-8) with a header, or from an npz file; no code in it is run.

    The columns or arrays are called pid, camid and, optionally, name, or have similar names (pids,
    camera, path, …); their order does not matter. Others are ignored. A CSV's columns are separated
    by commas, semicolons or tabs.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file has another format, holds pickled objects, or is damaged; pid or camid
            is missing; a row is too short; there are no rows; or an id is neither text nor a 64-bit
            integer.
    """
    path = Path(path)
    _require(path, ID_SUFFIXES)
    columns = _read_csv(path) if path.suffix == ".csv" else read_arrays(path)
    if not isinstance(columns, Mapping):
        raise ValueError(f"{path}: expected arrays named pid and camid, found one without a name")
    by_name = {str(name).lower(): column for name, column in reversed(list(columns.items()))}
    found = {
        names[0]: next((by_name[name] for name in names if name in by_name), None)
        for names in (_PID, _CAMID, _NAME)
    }
    for name in ("pid", "camid"):
        if found[name] is None:
            raise ValueError(f"{path}: expected {name}, found only {listed(columns)}")
    pids, camids = (_as_ids(path, name, found[name]) for name in ("pid", "camid"))
    names = None if found["name"] is None else _as_array(path, "name", found["name"], "Uiu")
    if len(pids) == 0:
        raise ValueError(f"{path}: expected at least one row below the header, found no rows")
    lengths = [len(column) for column in (pids, camids, names) if column is not None]
    if len(set(lengths)) > 1:
        raise ValueError(
            f"{path}: expected arrays of one length, found different lengths: {lengths}"
        )
    return Ids(pids, camids, None if names is None else names.astype(str))


def _split(source: str) -> tuple[Path, str | None]:
    path, colon, key = source.rpartition(":")
    if colon and not Path(source).is_file() and Path(path).suffix:
        return Path(path), key
    return Path(source), None


def _read_csv(path: Path) -> dict[str, tuple[str, ...]]:
    header, rows = read_csv(path, delimiters=SPREADSHEET_DELIMITERS)
    columns = zip(*(cells for _, cells in rows), strict=True) if rows else [()] * len(header)
    return {name: tuple(column) for name, column in zip(header, columns, strict=True)}


def _as_ids(path: Path, name: str, column: Any) -> np.ndarray:
    """int64 [N] if all values are integers, else strings [N]."""
    column = _as_array(path, name, column, "iufU")
    if column.dtype.kind == "U":
        return _integers_or_strings(path, name, column)
    # Some software stores integers as floating point; above 2^53 they are not exact.
    limit = 2**53 if column.dtype.kind == "f" else _INT64.max
    wrong = ~((column >= -limit) & (column <= limit))  # includes NaN
    if column.dtype.kind == "f":
        wrong |= column != np.round(column)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"{path}: {name}: expected 64-bit integers or text, found {column[row]} in row "
            f"{row} (from 0)"
        )
    integers: np.ndarray = column.astype(np.int64)
    return integers


def _integers_or_strings(path: Path, name: str, column: np.ndarray) -> np.ndarray:
    texts = column.tolist()
    if not all(_INTEGER.fullmatch(text) for text in texts):
        return column
    integers = [int(text) for text in texts]
    for row, value in enumerate(integers):
        if not _INT64.min <= value <= _INT64.max:
            raise ValueError(
                f"{path}: {name}: expected 64-bit integers, found {column[row]} in row {row} "
                "(from 0); write all ids of query and gallery as text, such as id123"
            )
    return np.array(integers, dtype=np.int64)


def _as_array(path: Path, name: str, column: Any, kinds: str) -> np.ndarray:
    """A column as an array [N] whose dtype kind is one of `kinds`."""
    if isinstance(column, tuple):
        longest = max(map(len, column), default=0)
        if longest > _MAX_TEXT:  # numpy gives every row the length of the longest
            raise ValueError(
                f"{path}: {name}: expected at most {_MAX_TEXT} characters, found {longest}"
            )
        column = np.array(column, dtype=str)
    if not isinstance(column, np.ndarray) or column.ndim != 1 or column.dtype.kind not in kinds:
        found = getattr(column, "dtype", type(column).__name__)
        shape = list(getattr(column, "shape", []))
        raise ValueError(f"{path}: {name}: expected integers or text [N], found {found} {shape}")
    return column


def _require(path: Path, suffixes: tuple[str, ...]) -> None:
    if path.suffix not in suffixes:
        raise ValueError(f"{path}: expected a file that ends in {' or '.join(suffixes)}")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
