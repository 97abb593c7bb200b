"""Paths, checks before writing, and atomic writes."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_FILE_THERE = "{}: expected a folder to write to, found a file there or above; choose another"
# The part of torch's message that describes the content.
_TORCH_REASON = re.compile(r"(Unsupported|Trying to load unsupported) [^\n]*")


def absolute_path(path: str | os.PathLike[str]) -> Path:
    """The absolute path, with `~` and `..` resolved as torchreid does.

    Symbolic links are not resolved: a data set's folder is often one, and its own name matters.
    """
    return Path(os.path.abspath(os.path.expanduser(path)))  # noqa: PTH100, PTH111


def make_folder(path: Path) -> None:
    """Make a folder to write to, unless it exists.

    Raises:
        FileExistsError, NotADirectoryError: the path, or one above it, is a file.
        OSError: the folder cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise type(error)(_FILE_THERE.format(path)) from error


def require_writable(path: Path) -> None:
    """Check, before hours of work, that a file can be written to; makes nothing.

    Raises:
        OSError: the path is a folder, a path above it is a file, or a folder is not writable.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path}: expected a file to write, found a folder")
    folder = next(above for above in path.parents if os.path.lexists(above))
    if not folder.is_dir():
        raise NotADirectoryError(_FILE_THERE.format(path.parent))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder}: expected a folder to write to, found it not writable")


@contextmanager
def write_atomically(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file so that it has either all of its new content or all of its old.

        with write_atomically("log/results.json") as part:
            part.write_text(text, encoding="utf-8")

    The content goes to a hidden file in the same folder, which is flushed to disk and renamed when
    the block ends. If the block raises, Ctrl-C included, the hidden file is removed.

    Args:
        path: the target; missing folders are created, an existing file is replaced.
    Yields:
        The path of the hidden file, which the block must write. It has the target's suffix, so that
        Pillow, torch and numpy choose the target's format; its name is unique to the process and
        the call.
    Raises:
        OSError: a folder or the file cannot be written, or the block wrote no file.
    """
    path = Path(path)
    make_folder(path.parent)
    unique = f"{os.getpid()}-{os.urandom(4).hex()}"
    part = path.with_name(f".{path.stem[:32]}.{unique}.part{path.suffix}")
    try:
        yield part
        with part.open("rb+") as written:
            os.fsync(written.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextmanager
def open_atomically(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Like `write_atomically`, but yields the open file, to which torch or numpy writes.

    Raises:
        OSError: the disk is full or the folder not writable; the message gives the free space.
    """
    path = Path(path)
    try:
        with write_atomically(path) as part, part.open("wb") as file:
            yield file
    except (OSError, RuntimeError) as error:
        # If writing fails, torch raises a RuntimeError about positions in its archive.
        cause = error.__context__ if isinstance(error, RuntimeError) else error
        if not isinstance(cause, OSError):
            raise
        free = shutil.disk_usage(path.parent).free / 1e6 if path.parent.is_dir() else 0
        raise OSError(
            cause.errno or errno.EIO,
            f"{path}: not saved ({cause.strerror or cause}; {free:,.0f} MB are free in "
            f"{path.parent})",
        ) from error


def torch_load_reason(error: Exception) -> str:
    """Why torch.load with weights_only=True rejected a file, in one line.

    torch's message also advises loading the file without this restriction, which would run code in
    the file; that advice is left out.
    """
    text = str(error)
    if found := _TORCH_REASON.search(text):
        return found[0].partition(". ")[0].strip().rstrip(".")
    first = text.strip().partition("\n")[0].partition(". ")[0].rstrip(".")
    says_nothing = not first or first.isdigit() or "weights_only" in first
    return type(error).__name__ if says_nothing else first
