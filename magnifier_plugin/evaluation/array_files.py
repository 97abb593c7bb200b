"""Arrays from untrusted NumPy and torch files; no code in a file is run."""

import errno
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from magnifier_plugin.files import torch_load_reason
from magnifier_plugin.wording import one_line

NUMPY_SUFFIXES = (".npy", ".npz")
TORCH_SUFFIXES = (".pt", ".pth")


def read_arrays(path: Path) -> Any:
    """Reads the content of a NumPy or torch file onto the CPU, whatever its type.

    Args:
        path: a file whose suffix is in `NUMPY_SUFFIXES` or `TORCH_SUFFIXES`.
    Returns:
        An array for `.npy`, a dict of arrays for `.npz`, the saved object for `.pt` and `.pth`.
    Raises:
        OSError: the file is missing or cannot be read.
        ValueError: the file is damaged, does not fit into memory, or pickles anything but plain
            data.
    """
    with path.open("rb") as file:
        try:
            if path.suffix in TORCH_SUFFIXES:
                return torch.load(file, map_location="cpu", weights_only=True)
            content = np.load(file, allow_pickle=False)
            return dict(content) if isinstance(content, Mapping) else content
        except Exception as error:
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise  # EINVAL: a damaged archive names a place before its start
            if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
                raise ValueError(
                    f"{path}: expected a file that fits into memory, found too little memory "
                    f"({one_line(error)}); the file has {path.stat().st_size:,} bytes"
                ) from error
            # The parsers of numpy, zipfile and torch raise over a dozen types (zlib.error,
            # struct.error, TokenError, IndexError, ...), depending on the damaged byte.
            reason = one_line(torch_load_reason(error))
            raise ValueError(
                f"{path}: expected plain numbers, found a damaged file or a pickle of other "
                f"objects ({type(error).__name__}: {reason}); such a pickle is not opened, since "
                "that could run code in it. Write the file again with numpy.save or "
                "torch.save(tensor)"
            ) from error


def as_dense_tensor(name: object, content: Any) -> Tensor:
    """A file's content as a dense tensor on the CPU, in the machine's byte order.

    Args:
        name: name of the content in errors: the path, and the field's name if there are several.
        content: the result of `read_arrays`, or one entry of it.
    Raises:
        ValueError: it is not a dense array of numbers on the CPU, or torch has no such type.
    """
    if isinstance(content, np.ndarray) and content.dtype.kind in "fiub":
        if content.dtype.itemsize > 8:
            raise ValueError(
                f"{name}: expected floating point of at most 64 bits, found {content.dtype}; "
                "convert it with .astype('float32')"
            )
        return torch.from_numpy(content.astype(content.dtype.newbyteorder("="), copy=False))
    if isinstance(content, Tensor):
        dense = content.layout == torch.strided and not (content.is_nested or content.is_quantized)
        if dense and content.device.type == "cpu":
            return content.detach()
        kind = "nested" if content.is_nested else "quantised" if content.is_quantized else ""
        raise ValueError(
            f"{name}: expected a dense tensor of numbers, found a tensor of {content.dtype}, "
            f"{kind or content.layout}, on {content.device}"
        )
    found = getattr(content, "dtype", type(content).__name__)
    raise ValueError(f"{name}: expected an array of numbers, found {found}")


def listed(names: Iterable[Any]) -> str:
    """Names for an error message: one line of at most 200 characters."""
    return textwrap.shorten(", ".join(map(str, names)), 200, placeholder=" ...")
