"""DSAP-images: a photo of a person, unrolled onto the charts of DensePose's 24 body parts.

Densely semantically aligned part (DSAP) images are the input of DSA-reID's guiding stream (Zhang et
al., Densely Semantically Aligned Person Re-Identification, CVPR 2019, section 3.1). `warp` makes
them; `crop_parts` makes their replacement in the coarse ablation (CSA, Table 4).
"""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from magnifier_plugin.regions import NUM_PARTS

SIZE = 32
Colour = tuple[float, float, float]
# ImageNet's mean pixel, near 0 once the textures are normalised.
FILL: Colour = (124, 116, 104)


class Textures(NamedTuple):
    """One image for each of the 24 parts, in the order of their ids."""

    textures: Tensor
    """[24, 3, S, S] with the photo's dtype."""

    visible: Tensor
    """bool [24], whether at least one pixel of the photo belongs to the part."""


def warp(image: Tensor, iuv: Tensor, size: int = SIZE, fill: Colour = FILL) -> Textures:
    """The DSAP-images of a photo: every pixel of a part is copied to the cell given by U and V.

    A pixel at (u, v) goes to row ⌊u · S⌋ and column ⌊v · S⌋ of its part's image; u = 1 and v = 1
    belong to the last cell. If several pixels go to one cell, the last in raster order wins, so
    the result is the same on every run and device. A mirrored photo needs the mirrored IUV
    (`data.maps.IUV`); then the same cells are filled, but another one of several pixels may win.

    Args:
        image: uint8 or floating point [3, H, W], any range.
        iuv: uint8 [3, H, W] in the order I, U, V: I is the part, 0..24, 0 the background; U and
            V are 0..255 for 0..1.
        size: S, the number of cells along U and along V, at least 1.
        fill: colour of cells without a pixel, three values in the image's range. The default is for
            0..255; a normalised image needs another one.
    Returns:
        [24, 3, S, S] with the image's dtype, and which parts are visible; on the image's device.
    Raises:
        TypeError: image or iuv is not a tensor.
        ValueError: image or iuv has the wrong dtype or shape, their sizes differ, I is over 24,
            size is below 1, or fill is not three values that the image's dtype can represent.
    """
    _check_inputs(image, iuv, size)
    filling = _filling(fill, image)
    part, u, v = iuv.flatten(1)
    pixel = part.nonzero().flatten()
    cell_of = _cells(size).to(iuv.device)
    row, column = cell_of[u[pixel].int()], cell_of[v[pixel].int()]
    cell = ((part[pixel].long() - 1) * size + row) * size + column
    # A cell's last pixel has the largest index; unlike writing pixels in place, a maximum does not
    # depend on the order of writes. Index 0 is the fill.
    last = torch.zeros(NUM_PARTS * size * size, dtype=torch.long, device=iuv.device)
    last = last.scatter_reduce_(0, cell, pixel + 1, "amax").view(NUM_PARTS, 1, size * size)
    colours = torch.cat([filling, image.flatten(1)], dim=1).expand(NUM_PARTS, -1, -1)
    textures = colours.gather(2, last.expand(-1, 3, -1)).view(NUM_PARTS, 3, size, size)
    return Textures(textures, last.any(dim=2).flatten())


def crop_parts(image: Tensor, iuv: Tensor, size: int = SIZE, fill: Colour = FILL) -> Textures:
    """The part images of the coarse ablation (CSA): each part's bounding box, resized.

    Nothing is aligned inside a box, and U and V are not used. The box keeps all its pixels,
    including those of other parts and of the background. Resizing is bilinear with antialias.

    Args:
        image: as in `warp`.
        iuv: as in `warp`.
        size: S, height and width of a part's image, at least 1.
        fill: as in `warp`, the colour of parts that are not visible.
    Returns:
        As `warp`.
    Raises:
        TypeError: as in `warp`.
        ValueError: as in `warp`.
    """
    _check_inputs(image, iuv, size)
    filling = _filling(fill, image)
    textures = filling.view(1, 3, 1, 1).repeat(NUM_PARTS, 1, size, size)
    visible, boxes = _boxes(iuv[0])
    for part in visible.nonzero().flatten().tolist():
        top, bottom, left, right = boxes[part]
        box = image[:, top:bottom, left:right]
        textures[part] = F.resize(box, [size, size], antialias=True)
    return Textures(textures, visible)


@cache
def _cells(size: int) -> Tensor:
    """int64 [256]: the cell of a coordinate 0..255, without rounding errors."""
    return (torch.arange(256) * size // 255).clamp_(max=size - 1)


def _boxes(parts: Tensor) -> tuple[Tensor, list[list[int]]]:
    """The visibility and the bounding boxes (top, bottom, left, right) of the 24 parts.

    bottom and right are the first row and column outside.

    Args:
        parts: plane I, uint8 [H, W].
    """
    width = parts.shape[1]
    pixel = parts.flatten().nonzero().flatten()
    part = parts.flatten()[pixel].long() - 1
    column = pixel % width
    visible = torch.zeros(NUM_PARTS, dtype=torch.bool, device=parts.device)
    visible[part] = True
    none = torch.zeros(NUM_PARTS, dtype=torch.long, device=parts.device)
    first, last, left, right = (
        none.scatter_reduce(0, part, places, extreme, include_self=False)
        for places, extreme in (
            (pixel, "amin"),
            (pixel, "amax"),
            (column, "amin"),
            (column, "amax"),
        )
    )
    edges = (first // width, last // width + 1, left, right + 1)
    return visible, torch.stack(edges, dim=1).tolist()


def _check_inputs(image: Tensor, iuv: Tensor, size: int) -> None:
    for name, value in (("image", image), ("iuv", iuv)):
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{name}: expected a tensor [3, H, W], got {type(value).__name__}; "
                "an array [H, W, 3] becomes one by torch.from_numpy(array).permute(2, 0, 1)"
            )
        if value.ndim != 3 or value.shape[0] != 3:
            raise ValueError(f"{name}: expected [3, H, W], got {list(value.shape)}")
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise ValueError(f"image: expected uint8 or floating point, got {image.dtype}")
    if iuv.dtype != torch.uint8:
        raise ValueError(f"iuv: expected uint8 (I, U, V), got {iuv.dtype}")
    if image.shape != iuv.shape:
        raise ValueError(
            f"iuv: expected the image's size {list(image.shape[1:])}, got {list(iuv.shape[1:])}; "
            "resize both with one joint transform"
        )
    if size < 1:
        raise ValueError(f"size: expected at least 1, got {size}")
    highest = int(iuv[0].max()) if iuv.numel() else 0
    if highest > NUM_PARTS:
        raise ValueError(
            f"iuv: part {highest} in plane 0, expected 0..{NUM_PARTS}; the order is I, U, V, and "
            "parts must not be interpolated"
        )


def _filling(fill: Colour, image: Tensor) -> Tensor:
    """The fill colour as [3, 1], with dtype and device of the image."""
    held = image.dtype.is_floating_point or all(v == int(v) and 0 <= v <= 255 for v in fill)
    if len(fill) != 3 or not held:
        raise ValueError(f"fill: expected three values that {image.dtype} can hold, got {fill}")
    return torch.tensor(fill, dtype=image.dtype, device=image.device)[:, None]
