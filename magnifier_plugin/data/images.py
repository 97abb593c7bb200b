"""Reading photos."""

import os

from PIL import Image


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
