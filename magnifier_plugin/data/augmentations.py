"""torchreid's augmentations as torchvision v2 transforms: drawn once, applied to image and maps.

Distributions and the order of draws are torchreid's; the numbers come from torch's generator, so
that one seed determines a sample. Differences are documented in each class.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from magnifier_plugin.data.pixels import image_tensor, resize_image, to_photo
from magnifier_plugin.images import read_image
from magnifier_plugin.regions import BACKGROUND


def uniform(low: float, high: float) -> float:
    """A number in [low, high) from torch's generator."""
    return low + (high - low) * torch.rand((), dtype=torch.float64).item()


def randint(low: int, high: int) -> int:
    """A whole number in low..high, both included, from torch's generator."""
    return int(torch.randint(low, high + 1, ()))


def pad_crop(height: int, width: int, padding: int = 10) -> v2.Transform:
    """Pad images with black, maps with background, and crop back (MagnifierNet, section 4).

    Args:
        height: height of the image before and after, in pixels.
        width: likewise.
        padding: pixels added on each side, before normalisation as in the strong baseline: the
            border is black, not the mean colour.
    """
    return v2.RandomCrop((height, width), padding=padding, fill=BACKGROUND)


def _draw_box(
    height: int, width: int, area: tuple[float, float], aspect: float
) -> tuple[int, int] | None:
    """Draw height and width of a box inside the image; None after 100 attempts.

    Args:
        area: lowest and highest share of the image that the box covers.
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
    """A v2 transform that is called with an image and its maps as separate arguments.

    torchvision's own forward flattens nested inputs first, which takes longer than most steps.
    """

    def forward(self, *parts: Any) -> tuple[Any, ...]:
        taken = [isinstance(part, self._transformed_types) for part in parts]
        params = self.make_params([p for p, take in zip(parts, taken, strict=True) if take])
        return tuple(
            self.transform(part, params) if take else part
            for part, take in zip(parts, taken, strict=True)
        )


class RandomFlip(Step):
    """Mirror with probability p; `v2.RandomHorizontalFlip` without its slower forward."""

    def __init__(self, p: float = 0.5):
        super().__init__()
        self.p = p

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"mirror": bool(torch.rand(1) < self.p)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return self._call_kernel(F.horizontal_flip, inpt) if params["mirror"] else inpt


class ColorJitter(v2.ColorJitter):
    """`v2.ColorJitter` computed by Pillow, which rounds differently from torchvision."""

    _transformed_types = (tv_tensors.Image,)

    def transform(self, inpt: tv_tensors.Image, params: dict[str, Any]) -> tv_tensors.Image:
        return image_tensor(super().transform(to_photo(inpt), params))


class Random2DTranslation(Step):
    """Enlarge by 1.125 and crop at a random position (torchreid's `random_crop`).

    Args:
        height: height of the result, in pixels.
        width: likewise.
        p: probability; otherwise the image is only resized.
        interpolation: interpolation of the image; maps are always resized by nearest neighbour.
        exact: resize with Pillow, see `pixels.resize_image`.
    """

    def __init__(
        self,
        height: int,
        width: int,
        p: float,
        interpolation: int,
        *,
        exact: bool,
    ):
        super().__init__()
        self.height, self.width, self.p = height, width, p
        self.interpolation, self.exact = interpolation, exact

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        if uniform(0, 1) > self.p:
            return {"size": [self.height, self.width], "corner": None}
        size = [round(self.height * 1.125), round(self.width * 1.125)]
        left = round(uniform(0, size[1] - self.width))
        top = round(uniform(0, size[0] - self.height))
        return {"size": size, "corner": (top, left)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        size = params["size"]
        if isinstance(inpt, tv_tensors.Image):
            resized = resize_image(inpt, size, self.interpolation, exact=self.exact)
        else:
            resized = self._call_kernel(F.resize, inpt, size)
        if params["corner"] is None:
            return resized
        return self._call_kernel(F.crop, resized, *params["corner"], self.height, self.width)


class RandomPatch(Step):
    """Paste a patch of another training image as a random occlusion (OSNet's RandomPatch).

    torchreid keeps a pool of patches of the images seen so far, so the pasted patch depends on what
    the worker did before. Here the patch is cut from a randomly drawn training image: once the pool
    is full the distribution is the same, a seed repeats it, and no pool takes memory. The maps keep
    the labels under the patch, as with erasing.

    Args:
        patch_sources: paths of the images from which patches are cut.
        p: probability of pasting a patch.
        area: lowest and highest share of the image that is covered.
        aspect: lowest height / width of the patch; the highest is its inverse.
        p_upright: probability that the patch is not rotated (else by up to 10 degrees).
        p_unflipped: probability that it is not mirrored.
    """

    _transformed_types = (tv_tensors.Image,)

    def __init__(
        self,
        patch_sources: Sequence[str],
        *,
        p: float,
        area: tuple[float, float],
        aspect: float,
        p_upright: float,
        p_unflipped: float,
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
        # The box is cut at the photo's own resolution, then scaled as the whole photo would be.
        x, y = photo.width / width, photo.height / height
        cut = (left * x, top * y, (left + w) * x, (top + h) * y)
        patch = photo.resize((w, h), Image.Resampling.BILINEAR, box=cut)
        corner = randint(0, width - w), randint(0, height - h)
        if uniform(0, 1) > self.p_unflipped:
            patch = patch.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if uniform(0, 1) > self.p_upright:
            patch = patch.rotate(randint(-10, 10))
        return {"patch": image_tensor(patch), "corner": corner}

    def transform(self, inpt: tv_tensors.Image, params: dict[str, Any]) -> tv_tensors.Image:
        if not params:
            return inpt
        patch, (left, top) = params["patch"], params["corner"]
        height, width = patch.shape[-2:]
        pasted = inpt.as_subclass(Tensor).clone()
        pasted[:, top : top + height, left : left + width] = patch
        return tv_tensors.wrap(pasted, like=inpt)


class RandomErasing(Step):
    """Erase a random rectangle of the normalised image (Zhong et al.).

    It is filled with zeros, the mean of normalised images, as the paper intends; torchreid fills a
    normalised image with the mean of images before normalisation. The label map is not erased, as
    in the authors' code, so the segmentation head learns to complete the body.

    Args:
        p: probability.
        area: lowest and highest share of the image that is erased.
        aspect: lowest height / width; the highest is its inverse.
    """

    _transformed_types = (tv_tensors.Image,)

    def __init__(self, p: float, area: tuple[float, float], aspect: float):
        super().__init__()
        self.p, self.area, self.aspect = p, area, aspect

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"box": self.draw(*v2.query_size(flat_inputs))}

    def draw(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Draw a rectangle: first row, last row + 1, first column, last column + 1; all 0 for none.

        Args:
            height, width: size of the image, in pixels.
        """
        if (
            uniform(0, 1) > self.p
            or (box := _draw_box(height, width, self.area, self.aspect)) is None
        ):
            return 0, 0, 0, 0
        h, w = box
        top, left = randint(0, height - h), randint(0, width - w)
        return top, top + h, left, left + w

    def transform(self, inpt: tv_tensors.Image, params: dict[str, Any]) -> tv_tensors.Image:
        top, bottom, left, right = params["box"]
        erased = inpt.as_subclass(Tensor).clone()
        erased[:, top:bottom, left:right] = 0
        return tv_tensors.wrap(erased, like=inpt)
