"""Read untrusted images within limits, and write PNG files."""

import os
from pathlib import Path
from typing import BinaryIO

from PIL import ExifTags, Image

from magnifier_plugin.files import write_atomically

# The only formats that Pillow may try, whatever the file's name says. Without a list it tries all
# formats it knows; for EPS it even runs another program, Ghostscript, on the file's content.
PHOTO_FORMATS = ("JPEG", "PNG", "BMP", "PPM", "TIFF", "WEBP")
ANNOTATION_FORMATS = ("PNG",)
# A crop of a person has tens of thousands of pixels. A file that claims more than this limit is
# rejected before it is decoded: a PNG of a few kB can hold gigabytes (a decompression bomb).
MAX_PIXELS = 64_000_000
# EXIF orientation → how a photo is turned upright; 1 needs nothing.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAP_SIDES = (5, 6, 7, 8)


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
        The image in RGB, turned upright as its EXIF orientation says (as OpenCV, and so annotators,
        read it; torchreid ignores the orientation).
    Raises:
        FileNotFoundError: there is no such file.
        OSError: it is not an image, is damaged or truncated, or has more than MAX_PIXELS pixels.
    """
    try:
        with Path(path).open("rb") as content:
            return _as_upright_rgb(_load(_open(content, path, PHOTO_FORMATS)))
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
    """Height and width of a photo as `read_image` returns it, from its header alone.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not an image, or has more than MAX_PIXELS pixels.
    """
    try:
        with Path(path).open("rb") as content:
            image = _open(content, path, PHOTO_FORMATS)
    except _DecodingError as error:
        raise ValueError(f"{path}: no readable image ({error})") from error
    return image.size if _orientation(image) in _SWAP_SIDES else image.size[::-1]


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


def _load(image: Image.Image) -> Image.Image:
    """Decode an opened image."""
    try:
        image.load()
    except Exception as error:  # as in _open
        raise _DecodingError(str(error)) from error
    return image


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1..8; 1 (upright) if there is none or it cannot be read."""
    if "exif" not in image.info:  # Pillow itself turns TIFF, which has none here
        return 1
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # as in _open
        return 1


def _as_upright_rgb(photo: Image.Image) -> Image.Image:
    try:
        turn = _TURNS.get(_orientation(photo))
        photo = photo if turn is None else photo.transpose(turn)
        return photo if photo.mode == "RGB" else photo.convert("RGB")
    except Exception as error:  # as in _open
        raise _DecodingError(str(error)) from error


def write_png(path: str | os.PathLike[str], image: Image.Image) -> None:
    """Write an image as PNG in its own mode, atomically; see `write_atomically`."""
    with write_atomically(path) as part:
        image.save(part, format="PNG")
