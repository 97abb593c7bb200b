"""Files from outside, read with suspicion; files of ours, written whole or not at all."""

import io
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import Image

# A person's crop has some ten thousand pixels. What claims more than this is refused before a
# byte of it is unpacked: a few kB of PNG can hold gigabytes (a decompression bomb).
MAX_PIXELS = 64_000_000


def read_png(path: str | os.PathLike[str]) -> Image.Image:
    """An image file, wholly decoded and closed; see `decode`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no image, is damaged or truncated, or has more than MAX_PIXELS pixels.
    """
    with Path(path).open("rb") as content:
        return decode(content, path)


def decode(content: BinaryIO, name: str | os.PathLike[str]) -> Image.Image:
    """An image, wholly decoded.

    Args:
        content: the file; PNG is what annotators write, other image formats are read too.
        name: what errors call it.
    Returns:
        The image in its own mode: nothing is converted.
    Raises:
        ValueError: it is no image, is damaged or truncated, or has more than MAX_PIXELS pixels.
    """
    try:
        image = Image.open(content)
        _refuse_huge(name, image.size)
        image.load()
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name}: refused, {error}") from error
    except (OSError, SyntaxError, EOFError) as error:
        # What Pillow raises for a damaged file depends on where the damage is.
        raise ValueError(
            f"{name}: damaged or truncated image ({error}); write or copy this file again"
        ) from error
    return image


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Height and width of an image file, from its header alone.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: no readable image ({error})") from error
    return height, width


def write_png(path: str | os.PathLike[str], image: Image.Image) -> None:
    """Writes an image as PNG, in its own mode; see `write_whole`."""
    encoded = io.BytesIO()
    image.save(encoded, format="PNG")
    write_whole(path, encoded.getvalue())


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes a file beside its place and renames it: nobody ever sees half of it.

    Args:
        path: where it shall lie; missing folders are made.
        content: the whole of it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    except BaseException:  # Ctrl-C and a full disk leave nothing behind either
        part.unlink(missing_ok=True)
        raise


@contextmanager
def write_atomically(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Replaces a file as a whole: readers find the old content or the new, never a part of it.

    Args:
        path: the file to write; missing parent folders are made.
    Yields:
        A path next to `path` with the same suffix, where the caller writes the content. When the
        block ends, that file is flushed to disk and renamed to `path`; on any exception, Ctrl-C
        included, it is removed and `path` stays as it was.
    Raises:
        FileNotFoundError: the block has ended without writing the file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{secrets.token_hex(8)}{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _refuse_huge(name: str | os.PathLike[str], size: tuple[int, int]) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"{name}: refused, it claims {width} × {height} pixels, expected at most "
            f"{MAX_PIXELS:,}; no picture of one person is that large"
        )


def read_image(path: str | os.PathLike[str]) -> Image.Image:
    """One photo, decoded completely (torchreid's own tries a damaged file again for ever).

    Args:
        path: an image file in any format that Pillow reads.
    Returns:
        The image in RGB.
    Raises:
        FileNotFoundError: there is no such file.
        OSError: the file is no image, is cut off or damaged.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path}: no such image; was it moved after the data set was read?"
        ) from None
    # Pillow reports a broken PNG as SyntaxError, an absurd size in a header as ValueError.
    except (OSError, SyntaxError, ValueError) as error:
        raise OSError(
            f"{path}: expected an image, but it does not decode ({error}); "
            "restore it from the data set's archive or delete it"
        ) from error
