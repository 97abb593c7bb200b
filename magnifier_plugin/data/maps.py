"""Label maps and IUV as torchvision tv_tensors, transformed together with their photo.

torchvision can crop, pad and flip masks; this file has what differs for ours. Both contain
categories, so both are resized by nearest neighbour, and mirroring an IUV swaps left and right
parts.
"""

from functools import cache

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from magnifier_plugin.regions import MIRRORED_PART, PARTS


class LabelMap(tv_tensors.Mask):
    """uint8 [H, W], region ids 0..7, or 255 if unknown. Regions have no sides, so flipping changes
    no ids."""


class IUV(tv_tensors.Mask):
    """uint8 [3, H, W]: DensePose's part 0..24, U and V 0..255 for 0..1."""


def _parts_named(*words: str) -> Tensor:
    return torch.tensor([any(word in part for word in words) for part in PARTS])


_MIRRORED_PART = torch.from_numpy(MIRRORED_PART.copy())
# Parts whose U or V is inverted on a mirrored body, measured on DensePose's output (DensePose's own
# symmetry table is finer). Arms and legs keep U and V: the chart of their opposite part runs the
# other way.
_MIRRORS_U = _parts_named("hand", "foot", "head")
_MIRRORS_V = _parts_named("torso")


@cache
def _nearest(old: int, new: int) -> np.ndarray:
    """int64 [new]: the old pixel whose centre is nearest, as in torch's `nearest-exact`."""
    return (2 * np.arange(new) + 1) * old // (2 * new)


@F.register_kernel(F.resize, LabelMap)
@F.register_kernel(F.resize, IUV)
def _resize(maps: tv_tensors.Mask, size: list[int], **_: object) -> tv_tensors.Mask:
    """Resize by nearest pixel centre; torchvision's own kernel for masks (`nearest`) shifts them.

    Selecting columns, then rows equals `interpolate(mode="nearest-exact")` and is 5 × faster.
    """
    height, width = maps.shape[-2:]
    if (height, width) == tuple(size):
        return maps
    pixels = maps.as_subclass(Tensor).numpy()
    resized = pixels.take(_nearest(width, size[1]), -1).take(_nearest(height, size[0]), -2)
    return tv_tensors.wrap(torch.from_numpy(resized), like=maps)


@F.register_kernel(F.horizontal_flip, IUV)
def _mirror(iuv: IUV) -> IUV:
    part, u, v = iuv.as_subclass(Tensor).flip(-1)
    index = part.long()
    mirrored = (
        _MIRRORED_PART[index],
        torch.where(_MIRRORS_U[index], 255 - u, u),
        torch.where(_MIRRORS_V[index], 255 - v, v),
    )
    return tv_tensors.wrap(torch.stack(mirrored), like=iuv)
