"""Reading untrusted pickles without running what they say.

A pickle is a program: it names functions and calls them. It can call only what `find_class`
returns: here a short table of builders of plain data, and every other name is refused. New files of
torch (zip archives) are read by torch's own `weights_only` reader, which works the same way; old
plain pickles, which it cannot read, by the unpickler below.
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
    """What `torch.save` or `pickle.dump` wrote, of tensors and plain types and a few classes.

    A file of `torch.save` is mapped into memory, not read: its tensors cost nothing until they are
    used. A plain pickle is read completely and stays in memory.

    Args:
        path: the file.
        classes: full name in the file → class to build instead; it needs no methods, the file's
            content becomes its attributes.
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
                f"{path}: refused, it wants {one_line(error)}; expected tensors, plain types and "
                f"{', '.join(classes)} alone"
            ) from None
        # Which exception pickle, zipfile and torch raise depends on the damage.
        except Exception as error:
            raise ValueError(
                f"{path}: damaged, truncated, or no file of pickle.dump or torch.save "
                f"({type(error).__name__}: {one_line(error)})"
            ) from error


class _RefusedError(Exception):
    """What a file asks for and does not get."""


class _DataUnpickler(pickle.Unpickler):
    """Finds builders of plain data, by their exact names, and nothing else."""

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
        warnings.simplefilter("ignore", UserWarning)  # torch says that its storages are deprecated
        return _DataUnpickler(file, classes).load()


def _load_archive(path: Path, classes: Mapping[str, type]) -> Any:
    import torch

    # torch.save compresses nothing; what is compressed can be a thousand times the file's size.
    with ZipFile(path) as archive:
        if any(member.compress_type != ZIP_STORED for member in archive.infolist()):
            raise _RefusedError("to be decompressed")
    known: list[Any] = [(stand_in, name) for name, stand_in in classes.items()]
    with torch.serialization.safe_globals(known), _shorter_refusals():
        return torch.load(path, weights_only=True, mmap=True, map_location="cpu")


@contextmanager
def _shorter_refusals() -> Iterator[None]:
    """Only the refused name, in place of torch's page of advice on how to trust the file."""
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
    """A tensor of a storage, without gradient and hooks."""
    import torch

    rebuild: Callable[..., Any] = torch._utils._rebuild_tensor_v2
    return rebuild(storage, offset, size, stride, False, OrderedDict())


def _storage(content: bytes) -> Any:
    """A storage from the bytes that torch nests in a plain pickle; torch's own would trust them."""
    import torch

    if content.startswith(_ZIP):
        raise _RefusedError("an archive within a pickle, where torch.save writes none")

    with _shorter_refusals():
        return torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
