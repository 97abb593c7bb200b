"""Label maps: a palette PNG for each image, whose bytes are the region ids of the pixels."""

import os

import numpy as np
from PIL import Image

from magnifier_plugin.annotators.source import check_size
from magnifier_plugin.images import read_png, write_png
from magnifier_plugin.regions import NUM_PARTS, NUM_REGIONS, REGION_COLOURS, UNKNOWN

# Pillow's modes of a label map: a palette or grey levels, one byte per pixel.
MODES = ("P", "L")
UNKNOWN_COLOUR = (128, 128, 128)


def _palette() -> np.ndarray:
    """uint8 [256, 3]: with all 256 entries Pillow writes one byte per pixel, never fewer bits."""
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[:NUM_REGIONS] = REGION_COLOURS
    palette[UNKNOWN] = UNKNOWN_COLOUR
    palette.setflags(write=False)
    return palette


PALETTE = _palette()
# The grey levels that `convert("L")` makes of the palette; a file that has only these has lost it.
_GREYS = frozenset(
    Image.fromarray(PALETTE[None, [*range(NUM_REGIONS), UNKNOWN]]).convert("L").tobytes()
)


def read_labels(path: str | os.PathLike[str], size: tuple[int, int] | None = None) -> np.ndarray:
    """Reads the label map of one image.

    Args:
        path: a palette or greyscale PNG whose bytes are region ids.
        size: height and width of the image; None: any size.
    Returns:
        uint8 [H, W], 0..7, or 255 where the region is unknown.
    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, not a label map, has another size, or holds other ids.
    """
    image = read_png(path)
    if image.mode not in MODES:
        raise ValueError(
            f"{path}: image mode {image.mode}, expected a palette PNG (P) whose bytes are the ids "
            f"0..{NUM_REGIONS - 1}; colours are not ids, convert with scripts/convert_masks.py"
        )
    labels = np.array(image)
    # Adding one wraps unknown (255) to 0, so that the highest allowed value is NUM_REGIONS.
    if (labels + np.uint8(1)).max() > NUM_REGIONS:
        raise ValueError(_wrong_label_message(path, labels))
    if size is not None:
        check_size(path, labels.shape, size)
    return labels


def write_labels(path: str | os.PathLike[str], labels: np.ndarray) -> None:
    """Writes a label map atomically.

    Args:
        path: the file; missing folders are made.
        labels: uint8 [H, W], 0..7 or 255.
    Raises:
        ValueError: labels is not uint8 [H, W], is empty, or holds other ids.
    """
    if labels.dtype != np.uint8 or labels.ndim != 2 or labels.size == 0:
        raise ValueError(f"labels: expected uint8 [H, W], got {labels.dtype} {list(labels.shape)}")
    if (labels + np.uint8(1)).max() > NUM_REGIONS:
        raise ValueError(_wrong_label_message("labels", labels))
    image = Image.fromarray(labels)
    image.putpalette(PALETTE.tobytes())
    write_png(path, image)


def _wrong_label_message(path: str | os.PathLike[str], labels: np.ndarray) -> str:
    ids = np.unique(labels)
    wrong = ids[(ids >= NUM_REGIONS) & (ids != UNKNOWN)]
    message = f"{path}: label {wrong[0]}, expected 0..{NUM_REGIONS - 1} or {UNKNOWN} (unknown); "
    if _GREYS.issuperset(ids.tolist()):
        return message + (
            "these are the grey levels of the region colours: the palette was lost by convert('L') "
            "or cv2; copy the palette PNG unchanged, or convert again with scripts/convert_masks.py"
        )
    if wrong[-1] <= NUM_PARTS:
        return message + (
            "this looks like DensePose parts or human parsing, convert it with "
            "scripts/convert_masks.py"
        )
    return message + "this is not a label map; make one with scripts/convert_masks.py"
