"""The joint transform: an image and its maps go through the same steps with the same draws."""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from magnifier_plugin.data.augmentations import RandomErasing
from magnifier_plugin.data.maps import IUV, LabelMap
from magnifier_plugin.data.pixels import (
    ToImageTensor,
    image_tensor,
    interleaved,
    mirrored,
    normalised,
    resize_image,
)


class View(NamedTuple):
    """One augmented image and its maps."""

    result: Any
    """`Pixels` if the transform ends with normalisation and at most one erasing; else the output of
    the last step, float32 [3, H, W], or the RGB image if there are no steps."""
    photo: Any
    """The image before normalisation and erasing: uint8 [3, H, W], after geometric transforms and
    colour jitter; the RGB image if there are no steps."""
    labels: Tensor | None
    """uint8 [H, W], region ids 0..7 or 255; None if the image has none."""
    iuv: Tensor | None
    """uint8 [3, H, W] in the order I, U, V; None if the image has none."""

    @property
    def image(self) -> Tensor:
        """float32 [3, H, W], normalised."""
        return normalised(self.result)


class Prepared(NamedTuple):
    """An image and its maps before augmentation: the same in every epoch."""

    image: Any
    """uint8 [3, H, W], channels last in memory; the RGB image if there are no steps."""
    labels: LabelMap | None
    """uint8 [H, W]; None if the image has none."""
    iuv: IUV | None
    """uint8 [3, H, W]; None if the image has none."""

    def arrays(self) -> dict[str, np.ndarray]:
        """uint8 arrays: "image" [H, W, 3], and if present "labels" [H, W] and "iuv" [3, H, W]."""
        parts = {"image": self.image.permute(1, 2, 0), "labels": self.labels, "iuv": self.iuv}
        return {name: _plain(part).numpy() for name, part in parts.items() if part is not None}

    @classmethod
    def of_arrays(
        cls,
        image: np.ndarray,
        labels: np.ndarray | None = None,
        iuv: np.ndarray | None = None,
    ) -> "Prepared":
        """The sample with these arrays (see `arrays`), without copying them."""
        maps = (
            None if labels is None else LabelMap(torch.from_numpy(labels)),
            None if iuv is None else IUV(torch.from_numpy(iuv)),
        )
        return cls(interleaved(image), *maps)


def mirror_maps(view: View) -> View:
    """The mirror image of a view; left and right parts of an IUV are swapped (see `maps.IUV`)."""
    return View(
        mirrored(view.result),
        mirrored(view.photo),
        None if view.labels is None else view.labels.flip(-1),
        None if view.iuv is None else _plain(F.horizontal_flip(IUV(view.iuv))),
    )


class JointTransform:
    """Applies each step to the image and its maps with the same random draw.

    All draws come from torch's generator, so a seed set by the caller determines the result.

    Args:
        steps: torchvision v2 transforms, in order; () leaves image and maps unchanged.
        exact: if the first step is a Resize to a height and width, use Pillow, as torchreid does;
            see `pixels.resize_image`.
    """

    def __init__(self, steps: Sequence[v2.Transform], *, exact: bool = True):
        self.steps, self.exact = tuple(steps), exact
        first = steps[0] if steps else None
        is_fixed = isinstance(first, v2.Resize) and len(first.size or ()) == 2
        self.resize = cast(v2.Resize, first) if is_fixed else None
        """The first step if it is a Resize to a height and width, else None."""
        places = [i for i, step in enumerate(steps) if isinstance(step, ToImageTensor)]
        start, end = bool(self.resize), places[0] if places else len(steps)
        self._augmenting, self._rest = self.steps[start:end], self.steps[end:]
        # If at most erasing follows, normalisation can be left to the network's device.
        self._is_plain = [type(step) for step in self._rest] in (
            [ToImageTensor],
            [ToImageTensor, RandomErasing],
        )

    def __call__(
        self,
        image: Image.Image,
        labels: np.ndarray | None = None,
        iuv: np.ndarray | None = None,
    ) -> View:
        """Transform one sample.

        Args:
            image: RGB.
            labels: uint8 [H, W] with the image's size, or None.
            iuv: uint8 [H, W, 3] with the image's size, in the order I, U, V, or None.
        """
        return self.augment(self.prepare(image, labels, iuv))

    def prepare(
        self,
        image: Image.Image,
        labels: np.ndarray | None = None,
        iuv: np.ndarray | None = None,
    ) -> Prepared:
        """The sample after `resize`, if there is one; nothing random. Arguments: see `__call__`."""
        maps = (
            None if labels is None else LabelMap(labels),
            None if iuv is None else IUV(iuv.transpose(2, 0, 1)),
        )
        if not self.steps:
            return Prepared(image, *maps)
        if self.resize is None:
            return Prepared(image_tensor(image), *maps)
        size, interpolation = list(self.resize.size), self.resize.interpolation
        resized = resize_image(image_tensor(image), size, interpolation, exact=self.exact)
        return Prepared(resized, *(part if part is None else F.resize(part, size) for part in maps))

    def augment(self, sample: Prepared) -> View:
        """Apply the steps after `prepare`; the sample's memory is not changed."""
        parts: tuple[Any, ...] = sample
        for step in self._augmenting:
            parts = step(*parts)
        photo, *maps = map(_plain, parts)
        if not self._is_plain:
            for step in self._rest:
                parts = step(*parts)
            return View(_plain(parts[0]), photo, *map(_plain, parts[1:]))
        normalisation, *erasing = self._rest
        box = erasing[0].draw(*photo.shape[-2:]) if erasing else (0, 0, 0, 0)
        return View(normalisation.pixels(photo, box), photo, *maps)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Normalise other pixels as this transform normalises its image.

        Args:
            pixels: uint8 [..., 3, h, w].
        Returns:
            float32 of the same shape.
        Raises:
            ValueError: the transform does not normalise.
        """
        if not self._rest:
            raise ValueError(
                "transform: expected a step ToTensor followed by Normalize, found none"
            )
        return self._rest[0].normalise(pixels)

    def __repr__(self) -> str:
        return f"JointTransform({', '.join(map(repr, self.steps))})"


def _plain(part: Any) -> Any:
    return part.as_subclass(Tensor) if isinstance(part, tv_tensors.TVTensor) else part
