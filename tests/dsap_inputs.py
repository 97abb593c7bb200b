"""Photos with IUV that the tests of DSAP-images share: random, real and rendered."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from mask_inputs import SAMPLES
from PIL import Image
from torch import Tensor

from magnifier_plugin.annotators.densepose import read_iuv
from magnifier_plugin.regions import MIRRORED_PART, NUM_PARTS
from magnifier_plugin.synthetic import camera, charts, person, pose, renderer, wardrobe

# The four crops are small enough for plain loops.
CROPS = ("crops/walker", "crops/cap", "crops/seated", "crops/rider")
CAMERA = camera.Camera(1, 10.0, 0.0, (1.0, 1.0, 1.0), 1.0, 1.0, 0.5, 0.01, 90, (90.0, 45.0), 0.5, 7)
SIZE = (256, 128)
# A fill colour that occurs in no image.
NONE = (-1.0, -1.0, -1.0)


def random_sample(seed: int, values: int = 256, height: int = 48, width: int = 20) -> list[Tensor]:
    """An image and an IUV with `values` different coordinates, including 0 and 255."""
    rng = np.random.default_rng(seed)
    coordinates = np.linspace(0, 255, values).round().astype(np.uint8)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    iuv = coordinates[rng.integers(0, values, (height, width, 3))]
    iuv[..., 0] = rng.integers(0, NUM_PARTS + 1, (height, width))
    return [torch.from_numpy(pixels).permute(2, 0, 1) for pixels in (image, iuv)]


def real_sample(name: str) -> list[Tensor]:
    with Image.open(SAMPLES / "densepose" / f"{name}.jpg") as photo:
        pixels = np.asarray(photo.convert("RGB"))
    iuv = read_iuv(SAMPLES / "densepose" / f"{name}_IUV.png")
    return [torch.from_numpy(array.transpose(2, 0, 1).copy()) for array in (pixels, iuv)]


def rendered_sample(heading: float) -> list[Tensor]:
    scene = renderer.Scene(pose.walk(0.7, 0.8), heading, 1.0, (0.0, 0.0), None, (1, 2))
    picture = renderer.render(scene, wardrobe.Wardrobe(), CAMERA, SIZE)
    return [torch.from_numpy(array.transpose(2, 0, 1).copy()) for array in picture]


def painted_person(
    monkeypatch: pytest.MonkeyPatch, colours: Callable[[np.ndarray], tuple], heading: float
) -> list[Tensor]:
    """A rendered person, float32 [3, H, W], with a surface in chosen colours, and the IUV.

    Args:
        monkeypatch: the test's monkeypatch.
        colours: I, U, V [3, N] of points of the body → their red and green, each [N]. Blue is 1:
            light and blending at the outline scale all channels alike, so the ratios of red and
            green to blue are the colours that were painted.
        heading: degrees, see camera.rotation.
    """

    def paint(surface: charts.Surface, *_: object) -> np.ndarray:
        iuv = charts.to_iuv(surface).astype(float)
        return np.stack([*colours(iuv.T), np.ones(len(iuv))])

    monkeypatch.setattr(person, "paint", paint)
    worn = wardrobe.Wardrobe()
    view = camera.look(CAMERA, worn.build.height, SIZE)
    figure = person.draw_person(worn, pose.walk(0.7, 0.8), heading, CAMERA, view)
    return [torch.from_numpy(figure.colour), torch.from_numpy(figure.iuv).permute(2, 0, 1)]


def swapped(textures: Tensor) -> Tensor:
    """The textures with those of left and right parts exchanged."""
    return textures[torch.from_numpy(MIRRORED_PART[1:].astype(int)) - 1]
