"""torchreid's augmentations as torchvision v2 transforms: drawn once, applied to image and maps.

The laws and the order of the draws are torchreid's; the numbers come from torch's generator, so
that one seed fixes a sample. Differences are stated where they are.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from magnifier_plugin.files import read_image
from magnifier_plugin.regions import BACKGROUND


def uniform(low: float, high: float) -> float:
    """A number in [low, high) from torch's generator."""
    return low + (high - low) * torch.rand((), dtype=torch.float64).item()


def randint(low: int, high: int) -> int:
    """A whole number in low..high, both included, from torch's generator."""
    return int(torch.randint(low, high + 1, ()))


def pad_crop(height: int, width: int, padding: int = 10) -> v2.Transform:
    """Pads with black, in the maps with background, and crops back (MagnifierNet, section 4).

    Args:
        height: of the image before and after, in pixels.
        width: likewise.
        padding: pixels added on each side. Added before normalisation, as in the strong baseline:
            the border is black, not mean grey.
    """
    return v2.RandomCrop((height, width), padding=padding, fill=BACKGROUND)


def _draw_box(
    height: int, width: int, area: tuple[float, float], aspect: float
) -> tuple[int, int] | None:
    """Height and width of a box that covers a share of the image, or None after 100 attempts.

    Args:
        area: lowest and highest share of the image.
        aspect: lowest height / width; the highest is its inverse.
    """
    for _ in range(100):
        pixels = uniform(*area) * height * width
        ratio = uniform(aspect, 1 / aspect)
        h, w = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if h < height and w < width:
            return h, w
    return None


class Step(v2.Transform):
    """A v2 transform of an image and its maps, given one by one.

    torchvision's own forward first flattens a tree of anything, which took longer than most
    steps. `make_params` and `transform` are as in any v2 transform.
    """

    def forward(self, *parts: Any) -> tuple[Any, ...]:
        taken = [isinstance(part, self._transformed_types) for part in parts]
        params = self.make_params([p for p, take in zip(parts, taken, strict=True) if take])
        return tuple(
            self.transform(part, params) if take else part
            for part, take in zip(parts, taken, strict=True)
        )


class Random2DTranslation(Step):
    """Enlarges by 1.125 and crops at a random place (torchreid's `random_crop`).

    Args:
        height: of the result, in pixels.
        width: likewise.
        p: how often; otherwise it only resizes.
        interpolation: of the image; maps are always resized by nearest neighbour.
    """

    def __init__(self, height: int, width: int, p: float = 0.5, interpolation: int = 2):
        super().__init__()
        self.height, self.width, self.p, self.interpolation = height, width, p, interpolation

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        if uniform(0, 1) > self.p:
            return {"size": [self.height, self.width], "corner": None}
        size = [round(self.height * 1.125), round(self.width * 1.125)]
        left = round(uniform(0, size[1] - self.width))
        top = round(uniform(0, size[0] - self.height))
        return {"size": size, "corner": (top, left)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        resized = self._call_kernel(
            F.resize, inpt, params["size"], interpolation=self.interpolation
        )
        if params["corner"] is None:
            return resized
        return self._call_kernel(F.crop, resized, *params["corner"], self.height, self.width)


class RandomPatch(Step):
    """Pastes a patch of another training image, to look like an occlusion (OSNet's RandomPatch).

    torchreid keeps a pool of patches of the images seen so far, so what is pasted depends on the
    worker and its past. Here the patch is cut from a training image drawn on the spot: the same
    law once the pool is full, one seed is enough to repeat it, and no pool fills the memory. The
    maps keep what the patch hides, as with erasing.

    Args:
        patch_sources: paths of the images to cut from.
        p: how often.
        area: lowest and highest share of the image that is covered.
        aspect: lowest height / width of the patch; the highest is its inverse.
        p_upright: how often the patch is not rotated (by up to 10 degrees otherwise).
        p_unflipped: how often it is not mirrored.
    """

    _transformed_types = (Image.Image,)

    def __init__(
        self,
        patch_sources: Sequence[str],
        p: float = 0.5,
        area: tuple[float, float] = (0.01, 0.5),
        aspect: float = 0.1,
        p_upright: float = 0.5,
        p_unflipped: float = 0.5,
    ):
        super().__init__()
        self.patch_sources, self.p, self.area, self.aspect = patch_sources, p, area, aspect
        self.p_upright, self.p_unflipped = p_upright, p_unflipped

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = v2.query_size(flat_inputs)
        if (
            uniform(0, 1) > self.p
            or (box := _draw_box(height, width, self.area, self.aspect)) is None
        ):
            return {}
        h, w = box
        photo = read_image(self.patch_sources[randint(0, len(self.patch_sources) - 1)])
        left, top = randint(0, width - w), randint(0, height - h)
        # The box is cut at the photo's own resolution, then scaled as its whole image would be.
        x, y = photo.width / width, photo.height / height
        cut = (left * x, top * y, (left + w) * x, (top + h) * y)
        patch = photo.resize((w, h), Image.Resampling.BILINEAR, box=cut)
        corner = randint(0, width - w), randint(0, height - h)
        if uniform(0, 1) > self.p_unflipped:
            patch = patch.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if uniform(0, 1) > self.p_upright:
            patch = patch.rotate(randint(-10, 10))
        return {"patch": patch, "corner": corner}

    def transform(self, inpt: Image.Image, params: dict[str, Any]) -> Image.Image:
        if not params:
            return inpt
        pasted = inpt.copy()
        pasted.paste(params["patch"], params["corner"])
        return pasted


class ToImageTensor(Step):
    """A PIL image as float32 [3, H, W]: torchreid's ToTensor and Normalize in one.

    torchvision's `ToImage` leaves the pixels interleaved, which makes all that follows slower.

    Args:
        mean: of each channel, in 0..1, subtracted.
        std: of each channel, divided by.
    """

    _transformed_types = (Image.Image,)

    def __init__(self, mean: Sequence[float] = (0, 0, 0), std: Sequence[float] = (1, 1, 1)):
        super().__init__()
        means, stds = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)
        # (x / 255 - mean) / std as x · scale + shift: one pass less over the pixels.
        self.scale, self.shift = 1 / (255 * stds), -means / stds

    def transform(self, inpt: Image.Image, params: dict[str, Any]) -> tv_tensors.Image:
        planes = torch.from_numpy(np.stack([np.asarray(channel) for channel in inpt.split()]))
        return tv_tensors.Image(self.normalise(planes))

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 [..., 3, h, w] → float32, mean subtracted and divided by std."""
        return pixels.float().mul_(self.scale).add_(self.shift)


class RandomErasing(Step):
    """Erases a random rectangle of the normalised image (Zhong et al.).

    It is filled with zeros, the mean of normalised images, as the paper means it; torchreid fills
    a normalised image with the mean of an un-normalised one. The label map is kept: the body is
    still there, and the authors' code keeps it too. The mask head learns to see it whole.

    Args:
        p: how often.
        area: lowest and highest share of the image that is erased.
        aspect: lowest height / width; the highest is its inverse.
    """

    _transformed_types = (tv_tensors.Image,)

    def __init__(
        self, p: float = 0.5, area: tuple[float, float] = (0.02, 0.4), aspect: float = 0.3
    ):
        super().__init__()
        self.p, self.area, self.aspect = p, area, aspect

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = v2.query_size(flat_inputs)
        if (
            uniform(0, 1) > self.p
            or (box := _draw_box(height, width, self.area, self.aspect)) is None
        ):
            return {}
        h, w = box
        top, left = randint(0, height - h), randint(0, width - w)
        return {"rows": slice(top, top + h), "columns": slice(left, left + w)}

    def transform(self, inpt: tv_tensors.Image, params: dict[str, Any]) -> tv_tensors.Image:
        if not params:
            return inpt
        # In place, as torchreid's: the tensor is this sample's own.
        inpt.as_subclass(Tensor)[:, params["rows"], params["columns"]] = 0
        return inpt
