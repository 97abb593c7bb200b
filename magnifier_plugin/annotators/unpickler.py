"""Reading untrusted pickles without running code that they name.

A pickle is a program: it names functions and calls them. It can call only what `find_class`
returns. Here that is a short table of functions and classes that build plain data; every other name
is refused. Zip archives, which `torch.save` writes today, are read by torch's own `weights_only`
reader, which works the same way. Old plain pickles, which that reader cannot read, are read by the
unpickler below.
"""

import io
import os
import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile

from magnifier_plugin.wording import one_line

_ZIP = b"PK\x03\x04"


def load_untrusted(path: str | os.PathLike[str], classes: Mapping[str, type]) -> Any:
    """Loads a file of `torch.save` or `pickle.dump` that holds tensors, plain types and a few
    classes.

    A file of `torch.save` is memory-mapped: its tensors take no memory until they are used. A plain
    pickle is read completely and stays in memory.

    Args:
        path: the file.
        classes: full name of a class in the file → the class to build instead. It needs no methods;
            the file's content becomes its attributes.
    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it names anything else or is compressed ("refused"), or is damaged.
    """
    path = Path(path)
    with path.open("rb") as file:
        is_archive = file.read(len(_ZIP)) == _ZIP
        file.seek(0)
        try:
            return _load_archive(path, classes) if is_archive else _load_pickle(file, classes)
        except _RefusedError as error:
            raise ValueError(
                f"{path}: refused, it asks for {one_line(error)}; expected only tensors, plain "
                f"types and {', '.join(classes)}"
            ) from None
        # The exception that pickle, zipfile or torch raises depends on the damage.
        except Exception as error:
            raise ValueError(
                f"{path}: damaged, truncated, or not written by pickle.dump or torch.save "
                f"({type(error).__name__}: {one_line(error)})"
            ) from error


class _RefusedError(Exception):
    """The name that a file asks for and that is refused."""


class _DataUnpickler(pickle.Unpickler):
    """An unpickler that finds only the builders of plain data, by their exact names."""

    def __init__(self, file: io.BufferedIOBase, classes: Mapping[str, type]):
        super().__init__(file)
        self._known: dict[str, Callable[..., Any]] = {
            "collections.OrderedDict": OrderedDict,
            "torch._utils._rebuild_tensor_v2": _tensor,
            "torch.storage._load_from_bytes": _storage,
            **classes,
        }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._known[f"{module}.{name}"]
        except KeyError:
            raise _RefusedError(f"{module}.{name}") from None


def _load_pickle(file: io.BufferedIOBase, classes: Mapping[str, type]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch warns that its storages are deprecated
        return _DataUnpickler(file, classes).load()


def _load_archive(path: Path, classes: Mapping[str, type]) -> Any:
    import torch

    # torch.save does not compress; a compressed member can expand to a thousand times its size.
    with ZipFile(path) as archive:
        if any(member.compress_type != ZIP_STORED for member in archive.infolist()):
            raise _RefusedError("decompression")
    known: list[Any] = [(stand_in, name) for name, stand_in in classes.items()]
    with torch.serialization.safe_globals(known), _shorter_refusals():
        return torch.load(path, weights_only=True, mmap=True, map_location="cpu")


@contextmanager
def _shorter_refusals() -> Iterator[None]:
    """Reports only the refused name, without torch's long advice on how to trust the file."""
    try:
        yield
    except pickle.UnpicklingError as error:
        name = re.search(r"GLOBAL (\S+)", str(error))
        if name:
            raise _RefusedError(name[1]) from None
        raise


def _tensor(
    storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> Any:
    """Builds a tensor from a storage, without gradient and hooks."""
    import torch

    rebuild: Callable[..., Any] = torch._utils._rebuild_tensor_v2
    return rebuild(storage, offset, size, stride, False, OrderedDict())


def _storage(content: bytes) -> Any:
    """Builds a storage from the bytes that torch nests in a plain pickle.

    torch's own function would trust the bytes.
    """
    import torch

    if content.startswith(_ZIP):
        raise _RefusedError("an archive within a pickle, which torch.save never writes")

    with _shorter_refusals():
        return torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
