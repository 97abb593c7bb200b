"""The label maps of MagnifierNet's authors: `<image name>.npy`, an array of region ids 0..7.

The authors document only that 1..4 are regions of the upper and 5..7 of the lower body. The model
relies on nothing more than this, so the ids are taken as they are.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from magnifier_plugin.annotators.source import Annotation, annotation_files, check_size
from magnifier_plugin.images import MAX_PIXELS
from magnifier_plugin.regions import NUM_REGIONS, UNKNOWN
from magnifier_plugin.wording import one_line

SUFFIX = ".npy"


def read_npy(path: str | os.PathLike[str], size: tuple[int, int] | None = None) -> np.ndarray:
    """Reads one label map in the authors' format.

    Args:
        path: the file.
        size: height and width of the image, checked before the ids are read; None: any size.
    Returns:
        uint8 [H, W], 0..7 or 255 (unknown).
    Raises:
        FileNotFoundError: there is no such file.
        ValueError: as in `read_ids`, or it holds other ids.
    """
    ids = read_ids(path, f"region ids 0..{NUM_REGIONS - 1}", size)
    wrong = ~(np.isin(ids, range(NUM_REGIONS)) | (ids == UNKNOWN))
    if wrong.any():
        raise ValueError(
            f"{path}: id {ids[wrong][0]}, expected 0..{NUM_REGIONS - 1} or {UNKNOWN} (unknown)"
        )
    return ids.astype(np.uint8)


def read_ids(
    path: str | os.PathLike[str], what: str, size: tuple[int, int] | None = None
) -> np.ndarray:
    """Reads the ids in a `.npy` file.

    Args:
        path: the file.
        what: the ids that are expected, for the message.
        size: height and width of the image, checked before the ids are read; None: any size.
    Returns:
        [H, W] of integers or floats, memory-mapped from the file.
    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, holds Python objects ("refused"), is not 2-D, has another or too
            large a size, or does not hold numbers.
    """
    ids = _map_array(path)
    if ids.ndim != 2 or ids.dtype.kind not in "uif":
        raise ValueError(f"{path}: {ids.dtype} {list(ids.shape)}, expected a 2-D array of {what}")
    if not 0 < ids.size <= MAX_PIXELS:
        raise ValueError(f"{path}: refused, {ids.shape[0]} × {ids.shape[1]} pixels")
    if size is not None:
        check_size(path, ids.shape, size)
    return ids


def holds_ids(path: str | os.PathLike[str]) -> bool:
    """Whether a `.npy` file holds a 2-D array of integers, rather than booleans or logits.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or holds Python objects ("refused").
    """
    array = _map_array(path)
    return array.ndim == 2 and array.dtype.kind in "ui"


def _map_array(path: str | os.PathLike[str]) -> np.ndarray:
    try:
        # Mapping fails before memory is allocated if the header claims more than the file has.
        array: np.ndarray = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise
    # The header is a Python literal: if it is damaged, numpy raises whatever its parser raises.
    except Exception as error:
        reason = "refused" if "object" in str(error) else "damaged or truncated"
        raise ValueError(f"{path}: {reason}, not a plain array ({one_line(error)})") from error
    return array


@dataclass(frozen=True)
class NpyFile:
    """A label map in the authors' format that has not been read yet."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path).removesuffix(SUFFIX)

    def read(self, size: tuple[int, int]) -> Annotation:
        return Annotation(read_npy(self.path, size))


class NpyFolder:
    """A folder with label maps in the authors' format, at any depth.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds no `*.npy`.
    """

    name = "npy"
    has_iuv = False
    folders: tuple[Path, ...] = ()
    label_set = "magnifiernet-authors"
    definition: ClassVar[Mapping[str, Any]] = {"ids": "as they are"}

    def __init__(self, folder: str | os.PathLike[str]):
        self.files = annotation_files(folder, SUFFIX)

    def __iter__(self) -> Iterator[NpyFile]:
        return map(NpyFile, self.files)
