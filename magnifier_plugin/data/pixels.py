"""Images as uint8 pixels, a quarter of the bytes of float32, and their normalisation."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import default_collate
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F


class Pixels(NamedTuple):
    """One image or a batch of images, with the parameters of its normalisation.

    torch's `default_collate` collates single images into a batch; every field gets a dimension B.
    """

    values: Tensor
    """uint8 [..., H, W, 3], RGB as decoded."""
    scale: Tensor
    """float32 [..., 3], factor of each channel: 1 / (255 · std)."""
    shift: Tensor
    """float32 [..., 3], added afterwards: -mean / std."""
    erased: Tensor
    """int64 [..., 4]: first row, last row + 1, first column, last column + 1 of the rectangle that
    is set to 0 after normalisation; all 0 for none."""

    def normalised(
        self,
        device: torch.device | None = None,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> Tensor:
        """Normalised images, float32 [..., 3, H, W], with the erased rectangle set to 0.

        The result is bitwise the same for every memory format and for single images and batches.

        Args:
            device: the device that normalises the pixels; None for their current device.
            memory_format: memory format of a batch; a single image is always contiguous.
        """
        values = self.values.to(device, non_blocking=True)
        scale, shift = (
            factors.to(values.device, non_blocking=True) for factors in (self.scale, self.shift)
        )
        if memory_format is torch.channels_last:
            width = values.shape[-2]
            # [..., H, 3 · W] times a row of factors: 4 × faster than multiplying [..., H, W, 3].
            rows = values.flatten(-2).float()
            rows.mul_(scale.tile(width)[..., None, :]).add_(shift.tile(width)[..., None, :])
            images = rows.unflatten(-1, (width, 3)).movedim(-1, -3)
        else:
            images = values.movedim(-1, -3).contiguous().float()
            images.mul_(scale[..., None, None]).add_(shift[..., None, None])
        batch = images[None] if images.ndim == 3 else images
        boxes = self.erased.view(-1, 4).tolist()  # in CPU memory: no wait for a GPU
        for image, (top, bottom, left, right) in zip(batch, boxes, strict=True):
            if bottom:
                image[:, top:bottom, left:right] = 0
        return images

    def mirrored(self) -> "Pixels":
        """The horizontally mirrored images."""
        top, bottom, left, right = self.erased.unbind(-1)
        width = self.values.shape[-2] * self.erased.any(-1)
        erased = torch.stack((top, bottom, width - right, width - left), dim=-1)
        return self._replace(values=self.values.flip(-2), erased=erased)


class ToImageTensor(v2.Transform):
    """Convert uint8 pixels to normalised float32 [3, H, W]: torchreid's ToTensor and Normalize.

    Args:
        mean: mean of each channel, for values in 0..1.
        std: standard deviation of each channel, for values in 0..1.
    """

    _transformed_types = (tv_tensors.Image,)

    def __init__(self, mean: Sequence[float] = (0, 0, 0), std: Sequence[float] = (1, 1, 1)):
        super().__init__()
        means, stds = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)
        # (x / 255 - mean) / std as x · scale + shift, which saves a pass over the pixels.
        self.scale, self.shift = 1 / (255 * stds), -means / stds

    def transform(self, inpt: tv_tensors.Image, params: dict[str, Any]) -> tv_tensors.Image:
        return tv_tensors.Image(self.normalise(inpt.as_subclass(Tensor)))

    def pixels(self, image: Tensor, erased: tuple[int, int, int, int]) -> Pixels:
        """The image as `Pixels`, to be normalised later.

        Args:
            image: uint8 [3, H, W].
            erased: the rectangle to erase, as in `Pixels.erased`.
        """
        values = image.as_subclass(Tensor).permute(1, 2, 0)
        return Pixels(values, self.scale.view(3), self.shift.view(3), torch.tensor(erased))

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 [..., 3, h, w] → normalised float32 of the same shape."""
        return pixels.float().mul_(self.scale).add_(self.shift)


Images = Tensor | Pixels
"""Normalised images float [..., 3, H, W], or `Pixels`."""


def normalised(images: Images) -> Tensor:
    """Normalised images float [..., 3, H, W]."""
    return images.normalised() if isinstance(images, Pixels) else images


def mirrored(images: Images) -> Images:
    """The horizontally mirrored images."""
    return images.mirrored() if isinstance(images, Pixels) else images.flip(-1)


def batch_of(images: list[Images]) -> Images:
    """Collate single images of the same type and size into a batch."""
    batch: Images = default_collate(images)
    return batch


def image_tensor(photo: Image.Image) -> tv_tensors.Image:
    """An RGB photo as uint8 [3, H, W], channels last in memory like the photo."""
    return interleaved(np.array(photo))


def interleaved(values: np.ndarray) -> tv_tensors.Image:
    """View uint8 [H, W, 3] as [3, H, W], without a copy."""
    return tv_tensors.wrap(torch.from_numpy(values).permute(2, 0, 1), like=_LIKE)


def to_photo(image: Tensor) -> Image.Image:
    """Convert uint8 [3, H, W] to an RGB photo."""
    planes: Any = image.as_subclass(Tensor)
    return Image.fromarray(np.ascontiguousarray(planes.permute(1, 2, 0).numpy()))


def resize_image(image: Tensor, size: Sequence[int], interpolation: Any, *, exact: bool) -> Tensor:
    """Resize a tv_tensors.Image.

    Args:
        image: uint8 [3, H, W].
        size: height and width.
        interpolation: torchvision's mode, or Pillow's number for it.
        exact: use Pillow. torch is 3 × faster, but 1 % of the values of an enlarged photo, and 8 %
            of those of a reduced one, differ from Pillow's by 1 or rarely 2 (of 255).
    """
    if exact:
        return image_tensor(F.resize(to_photo(image), list(size), interpolation))
    resized: Tensor = F.resize(image, list(size), interpolation, antialias=True)
    return resized


_LIKE = tv_tensors.Image(torch.zeros(3, 1, 1, dtype=torch.uint8))
