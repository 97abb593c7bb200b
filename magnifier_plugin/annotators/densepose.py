"""DensePose's classic output, `NAME_IUV.png`: which body part a pixel shows, and where on it.

I is one of 24 parts (0: no person), U and V are coordinates on that part's chart, 0..255 for 0..1
(Güler et al., DensePose, CVPR 2018). In memory the order is always I, U, V. In the file it is
reversed, red = V, green = U, blue = I, because DensePose writes with OpenCV, whose order is BGR.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from magnifier_plugin.annotators.people import choose_person, extent
from magnifier_plugin.annotators.source import Annotation, annotation_files, check_size
from magnifier_plugin.images import read_png, write_png
from magnifier_plugin.regions import NUM_PARTS, part_to_region

SUFFIX = "_IUV.png"
# The file next to it, which holds the number of the person at each pixel.
PEOPLE_SUFFIX = "_INDS.png"


def read_iuv(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads a `NAME_IUV.png`.

    Args:
        path: the file, in DensePose's own byte order.
    Returns:
        uint8 [H, W, 3] in the order I, U, V; I in 0..24, 0 the background.
    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, not 8-bit RGB, holds a part id over 24, or holds the three
            planes in reverse order.
    """
    image = read_png(path)
    if image.mode != "RGB":
        raise ValueError(
            f"{path}: image mode {image.mode}, expected 8-bit RGB (V, U, I); DensePose writes the "
            f"parts to the file that ends in {SUFFIX}"
        )
    planes = np.asarray(image)
    _refuse_other_parts(path, planes)
    return np.ascontiguousarray(planes[..., ::-1])


def write_iuv(path: str | os.PathLike[str], iuv: np.ndarray) -> None:
    """Writes a `NAME_IUV.png` as DensePose does; `read_iuv` gives the same array back.

    Args:
        path: the file; missing folders are made.
        iuv: uint8 [H, W, 3] in the order I, U, V.
    Raises:
        ValueError: iuv is not uint8 [H, W, 3], or holds a part id over 24.
    """
    _check_iuv(iuv)
    if iuv[..., 0].max(initial=0) > NUM_PARTS:
        raise ValueError(f"iuv: part id {iuv[..., 0].max()}, expected 0..{NUM_PARTS}")
    write_png(path, Image.fromarray(np.ascontiguousarray(iuv[..., ::-1])))


def to_regions(iuv: np.ndarray, hands: str = "lower arm") -> np.ndarray:
    """The region of every pixel (MagnifierNet, section 3.1: 24 parts become 7 regions).

    Args:
        iuv: uint8 [H, W, 3] in the order I, U, V.
        hands: the region that hands count as, "lower arm" or "background"; the paper does not say.
    Returns:
        uint8 [H, W], 0..7.
    Raises:
        ValueError: iuv is not uint8 [H, W, 3], or hands is neither of the two.
    """
    _check_iuv(iuv)
    regions: np.ndarray = part_to_region(hands)[iuv[..., 0]]
    return regions


def label_set_name(hands: str = "lower arm") -> str:
    """The name of DensePose's label set.

    It has two variants, whose label maps must not be mixed.
    """
    return "densepose" if hands == "lower arm" else "densepose-no-hands"


def label_set_definition(hands: str = "lower arm") -> dict[str, Any]:
    """The table from DensePose's parts to regions, as plain JSON types."""
    return {"part_to_region": part_to_region(hands).tolist()}


@dataclass(frozen=True)
class IuvFile:
    """A `NAME_IUV.png` that has not been read yet."""

    path: Path
    hands: str = "lower arm"
    """The region that hands count as, "lower arm" or "background"."""

    @property
    def name(self) -> str:
        return str(self.path).removesuffix(SUFFIX)

    def read(self, size: tuple[int, int]) -> Annotation:
        iuv = read_iuv(self.path)
        check_size(self.path, iuv.shape[:2], size)
        iuv, ambiguity = self._without_other_people(iuv)
        return Annotation(to_regions(iuv, self.hands), iuv, ambiguity)

    def _without_other_people(self, iuv: np.ndarray) -> tuple[np.ndarray, str]:
        """The IUV of the target person alone, and why the choice is ambiguous ("" if it is not).

        A `NAME_INDS.png` next to the file says which person a pixel belongs to; without it nothing
        is removed.
        """
        path = self.path.with_name(self.path.name.removesuffix(SUFFIX) + PEOPLE_SUFFIX)
        if not path.is_file():
            return iuv, ""
        image = read_png(path)
        if image.mode != "L":
            raise ValueError(f"{path}: image mode {image.mode}, expected L (8-bit greyscale)")
        people = np.asarray(image)
        check_size(path, people.shape, iuv.shape[:2])
        # Both the first person and the background have the number 0. DensePose numbers people in
        # order of rising score, so the numbers also serve as scores.
        body = iuv[..., 0] > 0
        numbers = np.unique(people[body]).tolist()
        if len(numbers) < 2:
            return iuv, ""
        extents = [extent(body & (people == number)) for number in numbers]
        best, ambiguity = choose_person(extents, numbers)
        return iuv * (people == numbers[best])[..., None], ambiguity


class IuvFolder:
    """A folder of `NAME_IUV.png`: flat, as DensePose writes it, or with subfolders.

    Args:
        folder: the folder.
        hands: the region that hands count as, "lower arm" or "background".
    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds no `*_IUV.png`.
    """

    name = "densepose-iuv"
    has_iuv = True
    folders: tuple[Path, ...] = ()

    def __init__(self, folder: str | os.PathLike[str], hands: str = "lower arm"):
        self.hands = hands
        self.label_set = label_set_name(hands)
        self.definition = label_set_definition(hands)
        self.files = annotation_files(folder, SUFFIX)

    def __iter__(self) -> Iterator[IuvFile]:
        return (IuvFile(path, self.hands) for path in self.files)


def _check_iuv(iuv: np.ndarray) -> None:
    if iuv.dtype != np.uint8 or iuv.ndim != 3 or iuv.shape[2] != 3:
        raise ValueError(f"iuv: expected uint8 [H, W, 3], got {iuv.dtype} {list(iuv.shape)}")


def _refuse_other_parts(path: str | os.PathLike[str], planes: np.ndarray) -> None:
    """Refuses part ids over 24 in planes [H, W, 3], whose order should be V, U, I."""
    part = planes[..., 2]
    highest = int(part.max())
    if highest <= NUM_PARTS:
        return
    if planes[..., 0].max() <= NUM_PARTS:
        raise ValueError(
            f"{path}: red and blue are swapped: the blue plane, which should hold the part ids, "
            f"goes up to {highest}, and the red one stays within 0..{NUM_PARTS}; write the file "
            "again with cv2.imwrite from an array in the order I, U, V"
        )
    row, column = np.argwhere(part > NUM_PARTS)[0]
    raise ValueError(
        f"{path}: part id {part[row, column]} at row {row}, column {column}, expected "
        f"0..{NUM_PARTS} in the blue plane; was the file resized with interpolation, or is it not "
        "DensePose's output?"
    )
