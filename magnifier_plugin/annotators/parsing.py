"""Human parsing: palette PNGs or arrays of class ids, whose meaning a label set defines.

The files do not say which label set they use, so the user names it (`lip`, `cihp`, `atr`, `pascal`,
`sapiens`: the YAML files in `label_sets/`) or gives a custom YAML file. The ids in every file are
checked against it.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from magnifier_plugin.annotators.label_set import LabelSet, load_label_set
from magnifier_plugin.annotators.limbs import split_limb
from magnifier_plugin.annotators.npy import SUFFIX as ARRAY_SUFFIX
from magnifier_plugin.annotators.npy import holds_ids, read_ids
from magnifier_plugin.annotators.source import Annotation, annotation_files, check_size
from magnifier_plugin.images import read_png

SUFFIX = ".png"
# Sapiens's demo writes the ids to NAME_seg.npy, and the foreground mask to NAME.npy.
_IDS = "_seg"


def read_parsing(path: str | os.PathLike[str], label_set: LabelSet) -> np.ndarray:
    """Reads the class ids of one parsing PNG or array.

    Args:
        path: a palette or greyscale PNG whose bytes are class ids, or a `.npy` file of class ids.
        label_set: the label set of the ids.
    Returns:
        uint8 [H, W], only ids of label_set's classes.
    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, its palette was lost, or it has ids that label_set lacks.
    """
    if str(path).endswith(ARRAY_SUFFIX):
        classes, mode = read_ids(path, f"class ids of label set {label_set.name}"), ""
    else:
        classes, mode = _read_png(path)
    found = np.unique(classes)
    unknown = [i for i in found.tolist() if i not in label_set.classes]
    if unknown and mode == "L" and _VOC_GREYS.issuperset(found.tolist()):
        raise ValueError(
            f"{path}: id {unknown[0]}: these are the grey levels of the parser's palette, which "
            "was lost by convert('L') or cv2; use the parser's own PNG unchanged"
        )
    if unknown:
        raise ValueError(
            f"{path}: id {unknown[0]}, but label set {label_set.name} has "
            f"{min(label_set.classes)}..{max(label_set.classes)}; does the file use another label "
            "set (--label-set)? LIP and CIHP have 20 classes, ATR 18, Pascal 7, Sapiens 28"
        )
    return classes.astype(np.uint8)


def _read_png(path: str | os.PathLike[str]) -> tuple[np.ndarray, str]:
    """The bytes of a palette or greyscale PNG, and its mode."""
    image = read_png(path)
    if image.mode not in ("P", "L"):
        raise ValueError(
            f"{path}: image mode {image.mode}, expected a palette PNG (P) whose bytes are class "
            "ids; colours are not ids, use the parser's own PNG unchanged"
        )
    return np.array(image), image.mode


def to_regions(classes: np.ndarray, label_set: LabelSet) -> np.ndarray:
    """The region of every pixel.

    Args:
        classes: uint8 [H, W], only ids of label_set's classes.
        label_set: the region or limb of each class.
    Returns:
        uint8 [H, W], 0..7 or 255 (unknown).
    """
    labels: np.ndarray = label_set.regions[classes]
    trunk = np.isin(classes, label_set.trunk)
    for limb in label_set.limbs:
        mask = np.isin(classes, limb.classes)
        whole = mask | np.isin(classes, limb.extent)
        halves = split_limb(whole, trunk, limb.upper, limb.lower, limb.stubby)
        labels[mask] = halves[mask]
    return labels


@dataclass(frozen=True)
class ParsingFile:
    """A parsing PNG or array that has not been read yet."""

    path: Path
    label_set: LabelSet
    """The label set of its ids."""

    @property
    def name(self) -> str:
        if self.path.suffix != ARRAY_SUFFIX:
            return str(self.path)
        return str(self.path).removesuffix(ARRAY_SUFFIX).removesuffix(_IDS)

    def read(self, size: tuple[int, int]) -> Annotation:
        classes = read_parsing(self.path, self.label_set)
        check_size(self.path, classes.shape, size)
        return Annotation(to_regions(classes, self.label_set))


class ParsingFolder:
    """A folder with parsing PNGs or arrays, at any depth.

    If there are arrays of class ids, the PNGs are ignored: they are the parser's visualisations.
    Other arrays (foreground, logits) are ignored too.

    Args:
        folder: the folder.
        labels: the label set's name, or the path of a custom YAML file.
    Raises:
        FileNotFoundError: there is no such folder or file.
        ValueError: the folder holds no such file, or the label set is unknown or malformed.
    """

    name = "parsing"
    has_iuv = False

    def __init__(self, folder: str | os.PathLike[str], labels: str | os.PathLike[str]):
        self._labels = load_label_set(labels)
        self.folders = (Path(folder),)
        self.label_set = self._labels.name
        self.definition = self._labels.definition
        self.files = _class_files(folder)

    def __iter__(self) -> Iterator[ParsingFile]:
        return (ParsingFile(path, self._labels) for path in self.files)


def _class_files(folder: str | os.PathLike[str]) -> list[Path]:
    """The arrays of class ids in a folder, damaged ones included; if there are none, the PNGs."""
    paths = annotation_files(folder, SUFFIX, ARRAY_SUFFIX)
    arrays = [path for path in paths if path.suffix == ARRAY_SUFFIX]
    found = list(filter(_may_hold_ids, arrays)) or [p for p in paths if p.suffix == SUFFIX]
    if not found:
        raise ValueError(
            f"{folder}: none of the {len(arrays)} *{ARRAY_SUFFIX} files is a 2-D array of "
            "integers; expected the parser's class ids, not foreground masks or logits"
        )
    return found


def _may_hold_ids(path: Path) -> bool:
    try:
        return holds_ids(path)
    except ValueError:  # damaged: reported when it is read
        return True


def _voc_greys(classes: int) -> frozenset[int]:
    """The grey levels that `convert("L")` makes of Pascal VOC's palette, which parsers use.

    The palette distributes the bits of an id in turn over the high bits of red, green and blue.
    """
    greys = set()
    for i in range(classes):
        red, green, blue = (
            sum((i >> (3 * bit + plane) & 1) << (7 - bit) for bit in range(3)) for plane in range(3)
        )
        greys.add((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16)
    return frozenset(greys)


_VOC_GREYS = _voc_greys(28)
