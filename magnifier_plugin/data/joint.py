"""One joint transform: an image and its maps go through the same steps with the same draws."""

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
    """`Pixels`, where the transform ends with normalisation and at most one erasing; else what the
    last step gives: float32 [3, H, W], or the RGB image if there is no step."""
    photo: Any
    """The image before it was normalised or erased: uint8 [3, H, W], after geometry and colour
    jitter; the RGB image if there is no step."""
    labels: Tensor | None
    """uint8 [H, W], region ids 0..7 or 255; None if none was given."""
    iuv: Tensor | None
    """uint8 [3, H, W] in the order I, U, V; None if none was given."""

    @property
    def image(self) -> Tensor:
        """float32 [3, H, W], normalised."""
        return normalised(self.result)


class Prepared(NamedTuple):
    """An image and its maps before augmentation: the same in every epoch."""

    image: Any
    """uint8 [3, H, W], interleaved in memory; the RGB image if there is no step."""
    labels: LabelMap | None
    iuv: IUV | None

    def arrays(self) -> dict[str, np.ndarray]:
        """uint8: "image" [H, W, 3], and "labels" [H, W] and "iuv" [3, H, W] if it has them."""
        parts = {"image": self.image.permute(1, 2, 0), "labels": self.labels, "iuv": self.iuv}
        return {name: _plain(part).numpy() for name, part in parts.items() if part is not None}

    @classmethod
    def of_arrays(
        cls,
        image: np.ndarray,
        labels: np.ndarray | None = None,
        iuv: np.ndarray | None = None,
    ) -> "Prepared":
        """The sample of these `arrays`, in the same memory."""
        maps = (
            None if labels is None else LabelMap(torch.from_numpy(labels)),
            None if iuv is None else IUV(torch.from_numpy(iuv)),
        )
        return cls(interleaved(image), *maps)


def mirror_maps(view: View) -> View:
    """The view of the mirror image; parts of an IUV change sides (see `maps.IUV`)."""
    return View(
        mirrored(view.result),
        mirrored(view.photo),
        None if view.labels is None else view.labels.flip(-1),
        None if view.iuv is None else _plain(F.horizontal_flip(IUV(view.iuv))),
    )


class JointTransform:
    """Applies each step to the image and its maps with the same draw.

    All draws come from torch's generator: seeded outside, one seed gives one result.

    Args:
        steps: torchvision v2 transforms, in order; none of them leaves everything as it is.
        exact: a Resize to a height and width that comes first is Pillow's, as torchreid's is, see
            `pixels.resize_image`.
    """

    def __init__(self, steps: Sequence[v2.Transform], *, exact: bool = True):
        self.steps, self.exact = tuple(steps), exact
        first = steps[0] if steps else None
        is_fixed = isinstance(first, v2.Resize) and len(first.size or ()) == 2
        self.resize = cast(v2.Resize, first) if is_fixed else None
        """The Resize to a height and width that comes first, if one does."""
        places = [i for i, step in enumerate(steps) if isinstance(step, ToImageTensor)]
        start, end = bool(self.resize), places[0] if places else len(steps)
        self._augmenting, self._rest = self.steps[start:end], self.steps[end:]
        # Without another step than erasing, normalisation can be left to the device.
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
        """Augments one sample.

        Args:
            image: RGB.
            labels: uint8 [H, W] of the image's size, or None.
            iuv: uint8 [H, W, 3] of the image's size, in the order I, U, V, or None.
        """
        return self.augment(self.prepare(image, labels, iuv))

    def prepare(
        self,
        image: Image.Image,
        labels: np.ndarray | None = None,
        iuv: np.ndarray | None = None,
    ) -> Prepared:
        """The sample after a Resize that comes first; nothing is drawn. Arguments: `__call__`'s."""
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
        """The steps after `prepare`; the sample's memory is left as it is."""
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
        """Other pixels as this transform normalises its image.

        Args:
            pixels: uint8 [..., 3, h, w].
        Returns:
            float32 of the same shape.
        Raises:
            ValueError: the transform normalises nothing.
        """
        if not self._rest:
            raise ValueError(
                "transform: expected a step ToTensor with Normalize after it, found none"
            )
        return self._rest[0].normalise(pixels)

    def __repr__(self) -> str:
        return f"JointTransform({', '.join(map(repr, self.steps))})"


def _plain(part: Any) -> Any:
    return part.as_subclass(Tensor) if isinstance(part, tv_tensors.TVTensor) else part
