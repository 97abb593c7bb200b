"""DSAP-images and the crops of the coarse ablation: cells, boxes, edges, errors."""

from collections.abc import Callable

import naive
import numpy as np
import pytest
import torch
from dsap_inputs import CROPS, random_sample, real_sample, rendered_sample, swapped
from mask_inputs import needs_samples
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from magnifier_plugin.data.dsap import FILL, crop_parts, warp
from magnifier_plugin.data.maps import IUV
from magnifier_plugin.regions import NUM_PARTS


def one_part(part: int, places: list[tuple[int, int]]) -> list[Tensor]:
    """An image of one row with a pixel for each (U, V), coloured 1, 2, 3, …"""
    iuv = torch.tensor([(part, u, v) for u, v in places], dtype=torch.uint8).T[:, None]
    image = torch.arange(1, len(places) + 1, dtype=torch.uint8).expand(3, 1, -1)
    return [image, iuv]


# Against the loop


@pytest.mark.parametrize("size", [1, 15, 16, 32])
@pytest.mark.parametrize("values", [2, 5, 256])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32, torch.float64])
def test_equals_the_loop(size: int, values: int, dtype: torch.dtype) -> None:
    image, iuv = random_sample(size + values, values)
    image = image.to(dtype)
    textures, visible = warp(image, iuv, size)
    expected, shown = naive.warp(image.numpy(), iuv.numpy(), size, FILL)
    assert textures.dtype == dtype
    assert np.array_equal(textures.numpy(), expected)
    assert np.array_equal(visible.numpy(), shown)


@needs_samples
@pytest.mark.parametrize("name", CROPS)
def test_equals_the_loop_on_photographs(name: str) -> None:
    image, iuv = real_sample(name)
    for size in (16, 32):
        textures, visible = warp(image, iuv, size)
        expected, shown = naive.warp(image.numpy(), iuv.numpy(), size, FILL)
        assert np.array_equal(textures.numpy(), expected)
        assert np.array_equal(visible.numpy(), shown)


def test_u_gives_the_row_and_1_belongs_to_the_last_cell() -> None:
    textures, visible = warp(*one_part(5, [(0, 255), (255, 0), (128, 7), (128, 8)]))
    texture = textures[4, 0]
    found = {
        (row, column): int(texture[row, column]) for row, column in (texture < 9).nonzero().tolist()
    }
    assert found == {(0, 31): 1, (31, 0): 2, (16, 0): 3, (16, 1): 4}
    assert visible.nonzero().tolist() == [[4]]


def test_the_last_pixel_in_raster_order_wins() -> None:
    image, iuv = random_sample(3, height=64, width=64)
    iuv[0], iuv[1:] = 7, 100
    for _ in range(3):
        textures = warp(image, iuv).textures
        assert torch.equal(textures[6, :, 12, 12], image[:, -1, -1])
    iuv[0, 40, 11:] = iuv[0, 41:] = 0
    assert torch.equal(warp(image, iuv).textures[6, :, 12, 12], image[:, 40, 10])


@pytest.mark.parametrize("make", [warp, crop_parts])
def test_runs_with_torchs_deterministic_algorithms(make: Callable) -> None:
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (make(*random_sample(1)) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(first.textures, second.textures)


# Edges and errors


@pytest.mark.parametrize("make", [warp, crop_parts])
@pytest.mark.parametrize("shape", [(3, 6, 4), (3, 0, 4)])
def test_nobody_in_the_image(make: Callable, shape: tuple[int, int, int]) -> None:
    image, iuv = torch.ones(shape), torch.zeros(shape, dtype=torch.uint8)
    textures, visible = make(image, iuv, 8, fill=(0.5, 0.25, -2))
    assert textures.shape == (NUM_PARTS, 3, 8, 8)
    assert (textures == torch.tensor([0.5, 0.25, -2]).view(3, 1, 1)).all()
    assert visible.shape == (NUM_PARTS,)
    assert not visible.any()


@pytest.mark.parametrize("make", [warp, crop_parts])
def test_the_default_fill_is_imagenets_mean(make: Callable) -> None:
    textures, visible = make(*one_part(1, [(0, 0)]))
    assert visible.tolist() == [True] + 23 * [False]
    assert textures[1:].flatten(2).unique(dim=2).tolist() == [[[124], [116], [104]]] * 23


@pytest.mark.parametrize("make", [warp, crop_parts])
def test_results_are_plain_tensors(make: Callable) -> None:
    image, iuv = random_sample(0)
    results = make(tv_tensors.Image(image), IUV(iuv))
    assert [type(result) for result in results] == [Tensor, Tensor]


IMAGE, LABELS = torch.zeros(3, 6, 4, dtype=torch.uint8), torch.zeros(3, 6, 4, dtype=torch.uint8)


@pytest.mark.parametrize("make", [warp, crop_parts])
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((IMAGE.numpy(), LABELS), TypeError, r"image: expected a tensor \[3, H, W\], got ndarray"),
        ((IMAGE, LABELS.numpy()), TypeError, r"iuv: expected a tensor \[3, H, W\], got ndarray"),
        ((IMAGE[0], LABELS), ValueError, r"image: expected \[3, H, W\], got \[6, 4\]"),
        ((IMAGE.permute(1, 2, 0), LABELS), ValueError, r"image: expected .* got \[6, 4, 3\]"),
        ((IMAGE, LABELS.permute(1, 2, 0)), ValueError, r"iuv: expected .* got \[6, 4, 3\]"),
        ((IMAGE, LABELS[:, :5]), ValueError, r"the image's size \[6, 4\], got \[5, 4\]"),
        ((IMAGE.int(), LABELS), ValueError, "image: expected uint8 or floating .* torch.int32"),
        ((IMAGE, LABELS.float()), ValueError, "iuv: expected uint8 .* got torch.float32"),
        ((IMAGE, LABELS + 25), ValueError, "iuv: part 25 in plane 0, expected 0..24"),
        ((IMAGE, LABELS, 0), ValueError, "size: expected at least 1, got 0"),
        ((IMAGE, LABELS, 8, (1, 2)), ValueError, r"fill: expected three values .* \(1, 2\)"),
        ((IMAGE, LABELS, 8, (1, 2, 3, 4)), ValueError, "fill: expected three values"),
        ((IMAGE.float(), LABELS, 8, (1, 2)), ValueError, "fill: expected three values"),
        ((IMAGE, LABELS, 8, (0.5, 0, 0)), ValueError, "that torch.uint8 can hold"),
        ((IMAGE, LABELS, 8, (256, 0, 0)), ValueError, "that torch.uint8 can hold"),
        ((IMAGE, LABELS, 8, (-1, 0, 0)), ValueError, "that torch.uint8 can hold"),
    ],
)
def test_refused_arguments(make: Callable, arguments: tuple, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        make(*arguments)


# The coarse ablation


def test_a_part_is_cropped_with_everything_in_its_box() -> None:
    image, iuv = random_sample(2)
    iuv[0] = 0
    iuv[0, 4, 6] = iuv[0, 11, 3] = iuv[0, 8, 10] = 5
    iuv[0, 6, 7] = 24
    textures, visible = crop_parts(image, iuv, 8)
    assert torch.equal(textures[4], image[:, 4:12, 3:11])
    assert torch.equal(textures[23], image[:, 6:7, 7:8].expand(-1, 8, 8))
    assert (visible.nonzero().flatten() + 1).tolist() == [5, 24]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_boxes_are_resized_bilinearly_with_antialias(dtype: torch.dtype) -> None:
    image, iuv = rendered_sample(30)
    textures, visible = crop_parts(image.to(dtype), iuv)
    assert textures.dtype == dtype
    assert visible.sum() > 15
    for part in (visible.nonzero().flatten() + 1).tolist():
        rows, columns = (iuv[0] == part).nonzero(as_tuple=True)
        box = image[None, :, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        options = {"mode": "bilinear", "antialias": True}
        expected = torch.nn.functional.interpolate(box.float(), (32, 32), **options)[0]
        tolerance = 1.01 if dtype == torch.uint8 else 1e-3
        torch.testing.assert_close(textures[part - 1].float(), expected, atol=tolerance, rtol=0)


def test_crops_of_a_mirrored_person_are_mirrored() -> None:
    image, iuv = rendered_sample(30)
    expected = swapped(crop_parts(image.float(), iuv).textures).flip(-1)
    found = crop_parts(F.horizontal_flip(image.float()), F.horizontal_flip(IUV(iuv))).textures
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)
