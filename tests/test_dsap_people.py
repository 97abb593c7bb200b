"""DSAP-images of people: mirrored, painted with a known surface, and photographed."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from dsap_inputs import CROPS, NONE, painted_person, real_sample, rendered_sample, swapped
from mask_inputs import needs_samples
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from magnifier_plugin.data.dsap import warp
from magnifier_plugin.data.maps import IUV
from magnifier_plugin.regions import NUM_PARTS, PARTS

# Mirroring


def reflected(textures: Tensor) -> Tensor:
    """The textures [24, ..., S, S] of the mirrored person, wherever no two pixels share a cell."""
    textures = swapped(textures).clone()
    for i, part in enumerate(PARTS[1:]):
        if part.startswith("torso"):
            textures[i] = textures[i].flip(-1)
        elif part.split()[-1] in ("hand", "foot") or part.startswith("head"):
            textures[i] = textures[i].flip(-2)
    return textures


def pixels_per_cell(iuv: Tensor, size: int) -> Tensor:
    """int64 [24, S, S]."""
    part, u, v = iuv.long().flatten(1)[:, iuv[0].flatten() > 0]
    row, column = ((x * size // 255).clamp(max=size - 1) for x in (u, v))
    counts = torch.zeros(NUM_PARTS, size, size, dtype=torch.long)
    return counts.index_put_((part - 1, row, column), torch.ones(()).long(), accumulate=True)


def check_mirrored(image: Tensor, iuv: Tensor, size: int) -> None:
    expected = reflected(warp(image.float(), iuv, size, NONE).textures)
    photo, labels = F.horizontal_flip(image.float()), F.horizontal_flip(IUV(iuv))
    textures, visible = warp(photo, labels, size, NONE)
    assert torch.equal(textures >= 0, expected >= 0)
    assert torch.equal(visible, swapped(warp(image, iuv).visible))
    alone = reflected(pixels_per_cell(iuv, size) == 1)[:, None].expand(-1, 3, -1, -1)
    assert alone.sum() > 100
    assert torch.equal(textures[alone], expected[alone])


@pytest.mark.parametrize("size", [16, 32])
@pytest.mark.parametrize("heading", [0, 75, 180, 250])
def test_a_mirrored_rendered_person(heading: float, size: int) -> None:
    check_mirrored(*rendered_sample(heading), size)


@needs_samples
@pytest.mark.parametrize("size", [16, 32])
@pytest.mark.parametrize("name", (*CROPS, "demo_im"))
def test_a_mirrored_photograph(name: str, size: int) -> None:
    check_mirrored(*real_sample(name), size)


# A known surface


def textures_of_paint(
    monkeypatch: pytest.MonkeyPatch, colours: Callable[[np.ndarray], tuple], heading: float
) -> np.ndarray:
    """The painted values in each cell: [24, 2, S, S], NaN in cells without a pixel."""
    image, iuv = painted_person(monkeypatch, colours, heading)
    textures = warp(image, iuv, fill=(np.nan,) * 3).textures.numpy()
    return textures[:, :2] / textures[:, 2:]


@pytest.mark.parametrize("heading", [0, 30, 90, 180, 215])
def test_painted_coordinates_return_in_their_cells(
    monkeypatch: pytest.MonkeyPatch, heading: float
) -> None:
    painted = textures_of_paint(monkeypatch, lambda iuv: (iuv[1] / 255, iuv[2] / 255), heading)
    cell = np.minimum(np.floor(painted * 32), 31)
    distance = np.hypot(*np.moveaxis(cell - np.indices((32, 32)), 1, 0))
    assert np.isfinite(distance).sum() > 4000
    assert np.nanmean(distance) <= 1
    for part in range(NUM_PARTS):
        if np.isfinite(distance[part]).sum() > 60:
            assert np.nanmedian(distance[part]) <= 1, PARTS[part + 1]


@pytest.mark.parametrize("heading", [0, 90, 180])
def test_painted_parts_return_in_their_textures(
    monkeypatch: pytest.MonkeyPatch, heading: float
) -> None:
    painted = textures_of_paint(monkeypatch, lambda iuv: (iuv[0] / 24, iuv[0]), heading)[:, 0] * 24
    own = np.arange(1, NUM_PARTS + 1).reshape(-1, 1, 1)
    right = (np.abs(painted - own) < 0.5)[np.isfinite(painted)]
    assert right.mean() > 0.9  # the rest are pixels on a border, coloured by two parts


# Real people


@needs_samples
def test_the_walker_shows_his_front() -> None:
    visible = warp(*real_sample("crops/walker")).visible
    assert [part for part in (2, 9, 10, 13, 14) if not visible[part - 1]] == []
    assert [part for part in (1, 7, 8, 11, 12) if visible[part - 1]] == []


@needs_samples
def test_the_rider_shows_his_back() -> None:
    image, iuv = real_sample("crops/rider")
    filled = (warp(image.float(), iuv, fill=NONE).textures[:, 0] >= 0).sum(dim=(1, 2))
    # Not all parts: the crop also shows parts of his neighbours.
    assert filled[0] > 5 * filled[1]
    assert filled[6] > 5 * filled[8]
