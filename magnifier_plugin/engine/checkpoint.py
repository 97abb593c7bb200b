"""Checkpoint files: plain types, written atomically, verified, read without running code."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from magnifier_plugin.files import open_atomically, torch_load_reason


class DamagedCheckpoint(ValueError):
    """A file is not a checkpoint, or its content has changed since it was written."""


def write_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically: an existing file is replaced when the new one is complete.

    Args:
        path: the file.
        content: plain types and tensors.
    Raises:
        OSError: the disk is full or the folder not writable; the message gives the free space.
    """
    with open_atomically(path) as file:
        torch.save(dict(content), file)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of this package or of torchreid.

    torchreid stores `rank1` as a numpy scalar, which torch's restricted reader rejects unless
    numpy's scalars are explicitly allowed.

    Returns:
        The file's dictionary, with tensors on the CPU; a bare state dict becomes
        {"state_dict": …}. The prefix "module." of its keys is removed.
    Raises:
        FileNotFoundError: there is no such file.
        DamagedCheckpoint: the file is not a checkpoint, or its content has changed since it was
            written.
    """
    path = existing_file(path)
    _check_archive(path)
    content = _load(path)
    if isinstance(content, dict) and "state_dict" not in content:
        content = {"state_dict": content}
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise DamagedCheckpoint(
            f"{path}: expected a checkpoint with a state_dict of tensors, "
            f"found a {type(content).__name__}"
        )
    state = {key.removeprefix("module."): value for key, value in state.items()}
    return {**content, "state_dict": state}


def existing_file(path: str | Path) -> Path:
    """A checkpoint's path with `~` expanded.

    Raises:
        FileNotFoundError: there is no such file.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        found = "no such file"
        if path.is_dir():
            found = "a folder; name a file in it, such as model/model-best.pth.tar"
        raise FileNotFoundError(f"{path}: expected a checkpoint, found {found}")
    return path


def read_header(path: Path) -> dict[str, Any]:
    """A checkpoint's entries that are strings or numbers, without reading its tensors from disk.

    Raises:
        DamagedCheckpoint: the file cannot be read, or is not a dictionary.
    """
    content = _load(path, mmap=True)
    if not isinstance(content, dict):
        raise DamagedCheckpoint(f"{path}: expected a checkpoint, found {type(content).__name__}")
    return {key: value for key, value in content.items() if isinstance(value, (str, int, float))}


def _check_archive(path: Path) -> None:
    """Verify the checksum (CRC-32) of every entry of torch's archive."""
    if not zipfile.is_zipfile(path):
        return  # a file written before torch 1.6, which has no checksums, or not a checkpoint
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # the type depends on the damage
        raise DamagedCheckpoint(f"{path}: damaged, {error}") from error
    if damaged:
        raise DamagedCheckpoint(
            f"{path}: damaged, the checksum (CRC-32) of its entry {damaged} does not match; resume "
            "from another checkpoint in the folder, model.resume auto finds one"
        )


def _load(path: Path, *, mmap: bool = False) -> Any:
    try:
        with torch.serialization.safe_globals(numpy_scalars()):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # the type depends on the damage
        raise DamagedCheckpoint(
            f"{path}: expected a checkpoint of tensors and plain values, which torch.load reads "
            f"with weights_only=True; nothing in this file was run: {torch_load_reason(error)}"
        ) from error


def numpy_scalars() -> list[Any]:
    """The globals that torch's restricted reader must allow to read numpy scalars."""
    rebuild = np.float64(0).__reduce__()[0]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    dtypes = [type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64)]
    return [*((rebuild, name) for name in names), np.dtype, *dtypes]
