"""Files from outside, read with suspicion; files of ours, written whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import Image

# A person's crop has some ten thousand pixels. What claims more than this is refused before a
# byte of it is unpacked: a few kB of PNG can hold gigabytes (a decompression bomb).
MAX_PIXELS = 64_000_000


def absolute_path(path: str | os.PathLike[str]) -> Path:
    """The path from the root of the file system, `~` and `..` resolved as torchreid does.

    Symbolic links are kept: a data set's folder is often one, and its own name counts.
    """
    return Path(os.path.abspath(os.path.expanduser(path)))  # noqa: PTH100, PTH111


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
    """Writes an image as PNG, in its own mode; see `write_atomically`."""
    with write_atomically(path) as part:
        image.save(part, format="PNG")


@contextmanager
def write_atomically(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A file that either has its whole new content or is as it was before.

        with write_atomically("log/results.json") as part:
            part.write_text(text, encoding="utf-8")

    The content goes to a hidden file in the same folder, which is flushed to the disk and renamed
    when the block ends. Where the block raises, also for Ctrl-C, the hidden file is removed.

    Args:
        path: the target; missing folders are made, an existing file is replaced.
    Yields:
        The path of the hidden file, which the block has to write. It has the target's suffix, so
        that Pillow, torch and numpy choose the format as for the target, and a name of its own in
        each process and each call.
    Raises:
        OSError: a folder or the file cannot be written, or the block wrote no file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
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
