"""Read untrusted images within limits, and write files atomically."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import Image

# The only formats that Pillow may try, whatever the file's name says. Without a list it tries all
# formats it knows; for EPS it even runs another program, Ghostscript, on the file's content.
PHOTO_FORMATS = ("JPEG", "PNG", "BMP", "PPM", "TIFF", "WEBP")
ANNOTATION_FORMATS = ("PNG",)
# A crop of a person has tens of thousands of pixels. A file that claims more than this limit is
# rejected before it is decoded: a PNG of a few kB can hold gigabytes (a decompression bomb).
MAX_PIXELS = 64_000_000
_FILE_THERE = "{}: expected a folder to write to, found a file there or above; choose another"
# The part of torch's message that describes the content.
_TORCH_REASON = re.compile(r"(Unsupported|Trying to load unsupported) [^\n]*")


def absolute_path(path: str | os.PathLike[str]) -> Path:
    """The absolute path, with `~` and `..` resolved as torchreid does.

    Symbolic links are not resolved: a data set's folder is often one, and its own name matters.
    """
    return Path(os.path.abspath(os.path.expanduser(path)))  # noqa: PTH100, PTH111


def read_png(path: str | os.PathLike[str]) -> Image.Image:
    """An annotator's PNG, completely decoded; see `decode_png`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a PNG, is damaged or truncated, or has more than MAX_PIXELS pixels.
    """
    with Path(path).open("rb") as content:
        return decode_png(content, path)


def decode_png(
    content: BinaryIO, name: str | os.PathLike[str], size: tuple[int, int] | None = None
) -> Image.Image:
    """An annotator's PNG, completely decoded.

    Args:
        content: the open file.
        name: the file's name in errors.
        size: required height and width, checked before decoding; None for any.
    Returns:
        The image in its own mode, not converted.
    Raises:
        ValueError: it is not a PNG, is damaged or truncated, has another size, or has more than
            MAX_PIXELS pixels.
    """
    try:
        image = _open(content, name, ANNOTATION_FORMATS)
        if size not in (None, image.size[::-1]):
            width, height = image.size
            raise ValueError(
                f"{name}: {height} × {width} (height × width), expected {size[0]} × {size[1]}"
            )
        return _load(image)
    except _DecodingError as error:
        raise ValueError(
            f"{name}: damaged or truncated image, or not a PNG ({error}); write or copy this file "
            "again"
        ) from error


def read_image(path: str | os.PathLike[str]) -> Image.Image:
    """One photo, completely decoded (torchreid's reader retries a damaged file for ever).

    Args:
        path: an image file in one of PHOTO_FORMATS.
    Returns:
        The image in RGB.
    Raises:
        FileNotFoundError: there is no such file.
        OSError: it is not an image, is damaged or truncated, or has more than MAX_PIXELS pixels.
    """
    try:
        with Path(path).open("rb") as content:
            return _load(_open(content, path, PHOTO_FORMATS), mode="RGB")
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path}: no such image; was it moved after the data set was read?"
        ) from None
    except ValueError as error:
        raise OSError(str(error)) from error
    except _DecodingError as error:
        raise OSError(
            f"{path}: expected an image, but it cannot be decoded ({error}); "
            "restore it from the data set's archive or delete it"
        ) from error


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Height and width of a photo, from its header alone.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not an image, or has more than MAX_PIXELS pixels.
    """
    try:
        with Path(path).open("rb") as content:
            width, height = _open(content, path, PHOTO_FORMATS).size
    except _DecodingError as error:
        raise ValueError(f"{path}: no readable image ({error})") from error
    return height, width


class _DecodingError(Exception):
    """Pillow cannot decode a file; the message is Pillow's."""


def _open(content: BinaryIO, name: str | os.PathLike[str], formats: tuple[str, ...]) -> Image.Image:
    """Open an image by reading only its header; reject it if it claims too many pixels."""
    try:
        image = Image.open(content, formats=formats)
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name}: refused, {error}") from error
    # The exception that Pillow raises depends on the format and on where the damage is.
    except Exception as error:
        raise _DecodingError(str(error)) from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"{name}: refused, it claims {width} × {height} pixels, expected at most "
            f"{MAX_PIXELS:,}; no picture of one person is that large"
        )
    return image


def _load(image: Image.Image, mode: str | None = None) -> Image.Image:
    """Decode an opened image, and convert it to a mode if one is given."""
    try:
        image.load()
        return image if mode in (None, image.mode) else image.convert(mode)
    except Exception as error:  # as in _open
        raise _DecodingError(str(error)) from error


def write_png(path: str | os.PathLike[str], image: Image.Image) -> None:
    """Write an image as PNG in its own mode, atomically; see `write_atomically`."""
    with write_atomically(path) as part:
        image.save(part, format="PNG")


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
