"""Label maps: one palette PNG for each image, one byte a pixel, saying which region it shows.

`label_path` says where the label map of an image lies. The converter and the data sets both ask
it, so what one writes the other finds.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from PIL import Image

from magnifier_plugin.annotators.densepose import SUFFIX as IUV_SUFFIX
from magnifier_plugin.annotators.files import read_png, write_png, write_whole
from magnifier_plugin.annotators.source import check_size
from magnifier_plugin.regions import NUM_PARTS, NUM_REGIONS, REGION_COLOURS, UNKNOWN

# torchreid accepts Market-1501 with and without this folder; the label map is the same.
OPTIONAL_FOLDER = "Market-1501-v15.09.15"
UNKNOWN_COLOUR = (128, 128, 128)
STAMP = "labels.json"
# Counted up when the converter makes other label maps of the same annotations than before.
CONVERTER = 1


def _palette() -> np.ndarray:
    """uint8 [256, 3]: with all 256 entries Pillow writes a byte a pixel, never fewer bits."""
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[:NUM_REGIONS] = REGION_COLOURS
    palette[UNKNOWN] = UNKNOWN_COLOUR
    palette.setflags(write=False)
    return palette


PALETTE = _palette()
# What `convert("L")` makes of the palette: when only these greys occur, that is what happened.
_GREYS = frozenset(
    Image.fromarray(PALETTE[None, [*range(NUM_REGIONS), UNKNOWN]]).convert("L").tobytes()
)


def default_masks_dir() -> Path:
    """Where label maps lie unless told otherwise: `$MAGNIFIER_MASKS`, else `./mask_labels`."""
    return Path(os.environ.get("MAGNIFIER_MASKS") or "mask_labels")


def label_path(
    image_path: str | os.PathLike[str],
    dataset_dir: str | os.PathLike[str],
    dataset: str,
    masks_dir: str | os.PathLike[str],
) -> Path:
    """Where the label map of an image lies: `<masks_dir>/<dataset>/<path in the data set>.png`.

    Args:
        image_path: the image; inside dataset_dir.
        dataset_dir: the data set's own folder, such as `reid-data/market1501`.
        dataset: the data set's name in torchreid, such as `market1501`.
        masks_dir: the folder of all label maps.
    Returns:
        The path: below the data set's name as the image below dataset_dir, without the optional
        folder `Market-1501-v15.09.15`, and with `.png` for the image's suffix.
    Raises:
        ValueError: the image does not lie inside dataset_dir.
    """
    try:
        inside = PurePath(image_path).relative_to(dataset_dir)
    except ValueError:
        raise ValueError(
            f"{image_path}: expected inside the data set's folder {dataset_dir}; "
            "was the data set moved after its image list was made?"
        ) from None
    kept = [folder for folder in inside.parts if folder != OPTIONAL_FOLDER]
    return Path(masks_dir, dataset, *kept).with_suffix(".png")


def iuv_path(label: Path) -> Path:
    """Where an image's IUV lies, if it is kept: beside its label map, named as DensePose does."""
    return label.with_name(f"{label.stem}{IUV_SUFFIX}")


def read_labels(path: str | os.PathLike[str], size: tuple[int, int] | None = None) -> np.ndarray:
    """The label map of one image.

    Args:
        path: a palette or greyscale PNG whose bytes are region ids.
        size: height and width of the image, or None to take any.
    Returns:
        uint8 [H, W], 0..7, or 255 where the region is unknown.
    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, no label map, of another size, or holds other ids.
    """
    image = read_png(path)
    if image.mode not in ("P", "L"):
        raise ValueError(
            f"{path}: image mode {image.mode}, expected a palette PNG (P) whose bytes are the ids "
            f"0..{NUM_REGIONS - 1}; colours are not ids, convert with scripts/convert_masks.py"
        )
    labels = np.array(image)
    # Counted up by one, unknown (255) wraps to 0 and the highest allowed id is NUM_REGIONS.
    if (labels + np.uint8(1)).max() > NUM_REGIONS:
        raise ValueError(_what_is_wrong(path, labels))
    if size is not None:
        check_size(path, labels.shape, size)
    return labels


def write_labels(path: str | os.PathLike[str], labels: np.ndarray) -> None:
    """Writes a label map, beside its place and then renamed.

    Args:
        path: where it shall lie; missing folders are made.
        labels: uint8 [H, W], 0..7 or 255.
    Raises:
        ValueError: labels has another type, shape or other ids.
    """
    if labels.dtype != np.uint8 or labels.ndim != 2 or labels.size == 0:
        raise ValueError(f"labels: expected uint8 [H, W], got {labels.dtype} {list(labels.shape)}")
    if (labels + np.uint8(1)).max() > NUM_REGIONS:
        raise ValueError(_what_is_wrong("labels", labels))
    image = Image.fromarray(labels)
    image.putpalette(PALETTE.tobytes())
    write_png(path, image)


@dataclass(frozen=True)
class Stamp:
    """How the label maps of a folder were made; lies beside them as `labels.json`.

    Label maps of two tables must not be mixed, nor trained on where others are expected.
    """

    source: str
    label_set: str
    definition: dict[str, Any]
    converter: int = CONVERTER

    @property
    def checksum(self) -> str:
        """Hex digits; two label sets with the same one give the same label maps."""
        decisive = json.dumps([self.definition, self.converter], sort_keys=True)
        return hashlib.sha256(decisive.encode()).hexdigest()[:16]


def read_stamp(folder: str | os.PathLike[str]) -> Stamp | None:
    """How the label maps below a data set's folder of label maps were made.

    Args:
        folder: such as `mask_labels/market1501`.
    Returns:
        The stamp, or None where there is none: label maps somebody made in another way.
    Raises:
        ValueError: `labels.json` is damaged.
    """
    path = Path(folder, STAMP)
    if not path.is_file():
        return None
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        stamp = Stamp(**{key: known[key] for key in Stamp.__dataclass_fields__})
        intact = known["checksum"] == stamp.checksum
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: damaged ({error!r}); convert the masks again") from error
    if not intact:
        raise ValueError(f"{path}: its checksum is not that of its content; convert again")
    return stamp


def write_stamp(folder: str | os.PathLike[str], stamp: Stamp) -> None:
    """Writes `labels.json` into a data set's folder of label maps, which is made if missing."""
    text = json.dumps({**asdict(stamp), "checksum": stamp.checksum}) + "\n"
    write_whole(Path(folder, STAMP), text.encode())


def _what_is_wrong(path: str | os.PathLike[str], labels: np.ndarray) -> str:
    ids = np.unique(labels)
    wrong = ids[(ids >= NUM_REGIONS) & (ids != UNKNOWN)]
    told = f"{path}: label {wrong[0]}, expected 0..{NUM_REGIONS - 1} or {UNKNOWN} (unknown); "
    if _GREYS.issuperset(ids.tolist()):
        return told + (
            "these are the greys of the region colours: the palette was lost by convert('L') or "
            "cv2; copy the palette PNG as it is, or convert again with scripts/convert_masks.py"
        )
    if wrong[-1] <= NUM_PARTS:
        return told + (
            "this looks like DensePose parts or human parsing, convert it with "
            "scripts/convert_masks.py"
        )
    return told + "this is no label map; make one with scripts/convert_masks.py"
