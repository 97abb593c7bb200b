"""The table of batch inputs: how data sets make the inputs that a model declares.

A model declares the batch keys that it needs in addition to the image in `training_inputs` and
`test_inputs`; `INPUTS` maps a key to the function that makes it from a sample. To add an input, add
a row:

    def brightness(sample: Sample) -> Tensor:
        return sample.image.mean()

    INPUTS["brightness"] = BatchInput(brightness)

Workers that are not forked (macOS, Windows, Python 3.14) need a function defined at module level,
not a lambda.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from magnifier_plugin.catalogue.names import ImageRecord
from magnifier_plugin.data.dsap import FILL, Colour, crop_parts, warp
from magnifier_plugin.data.joint import View, mirror_maps
from magnifier_plugin.data.map_files import MAPS
from magnifier_plugin.data.pixels import image_tensor
from magnifier_plugin.regions import UNKNOWN

TEXTURES = {"dsap": warp, "csa": crop_parts}


class Sample(NamedTuple):
    """One augmented image and its maps, from which inputs are made."""

    record: ImageRecord
    """Path, pid, camid and data set number."""
    view: View
    """The image and its maps after the joint transform; a map without a file is None."""
    normalise: Callable[[Tensor], Tensor]
    """uint8 [..., 3, h, w] → float32, with the image's mean and standard deviation."""

    @property
    def image(self) -> Tensor:
        """float32 [3, H, W], normalised; computed on access."""
        return self.view.image

    def mirrored(self) -> "Sample":
        """The sample of the mirror image."""
        return self._replace(view=mirror_maps(self.view))


class BatchInput(NamedTuple):
    """A row of the table."""

    make: Callable[..., Tensor]
    """Makes the tensor from a `Sample`; the data set's `input_options` are keyword arguments."""
    maps: tuple[str, ...] = ()
    """Maps of the image that it needs: "labels" (the label map), "iuv"."""


def region_labels(sample: Sample) -> Tensor:
    """The label map, uint8 [H, W], region ids 0..7; 255 everywhere if the image has none."""
    if sample.view.labels is None:
        return torch.full(F.get_size(sample.view.photo), UNKNOWN, dtype=torch.uint8)
    return sample.view.labels


def textures(sample: Sample, *, kind: str = "dsap", size: int = 32, fill: Colour = FILL) -> Tensor:
    """DSA-reID's part images (section 3.1), normalised like the image: float32 [24, 3, S, S].

    They are made after geometric transforms and before normalisation and erasing. For an image
    without an IUV they have the fill colour everywhere.

    Args:
        sample: a sample with its IUV.
        kind: "dsap" (densely semantically aligned) or "csa" (cropped parts, the coarse ablation).
        size: S, in pixels.
        fill: R, G, B of cells without a pixel, 0..255.
    Raises:
        ValueError: kind is unknown, or the transform does not normalise.
    """
    if kind not in TEXTURES:
        raise ValueError(f"dsa.textures: expected one of {', '.join(TEXTURES)}, got {kind!r}")
    photo = sample.view.photo
    if not isinstance(photo, Tensor):  # no transform
        photo = image_tensor(photo)
    iuv = sample.view.iuv
    if iuv is None:
        iuv = torch.zeros_like(photo)
    return sample.normalise(TEXTURES[kind](photo, iuv, size, fill)[0])


INPUTS: dict[str, BatchInput] = {
    "mask": BatchInput(region_labels, maps=("labels",)),
    "textures": BatchInput(textures, maps=("iuv",)),
}


def find_inputs(keys: Sequence[str]) -> dict[str, BatchInput]:
    """The table's rows for these keys.

    Raises:
        ValueError: a key is not in the table.
    """
    unknown = [key for key in keys if key not in INPUTS]
    if unknown:
        raise ValueError(
            f"batch input {unknown[0]!r}: expected one of {', '.join(INPUTS)}; a new input is a "
            "row of magnifier_plugin.data.inputs.INPUTS"
        )
    return {key: INPUTS[key] for key in keys}


def declared_keys(model: object, name: str) -> tuple[str, ...]:
    """A model's `training_inputs` or `test_inputs`; () if it does not declare them."""
    return tuple(getattr(model, name, ()))


def declare_inputs(dataset: Any, keys: Sequence[str], *, mirrored: bool = False) -> None:
    """Set the inputs that a data set's samples include.

    Args:
        dataset: a data loader's data set.
        keys: batch keys from `INPUTS`.
        mirrored: also include the inputs of the mirror image, in the sample's "mirrored".
    Raises:
        ValueError: the data set's class cannot make inputs, or a key is unknown.
        FileNotFoundError: too many images lack a file that an input needs.
    """
    if hasattr(dataset, "set_inputs"):
        dataset.set_inputs(keys, mirrored=mirrored)
    elif keys:
        name = type(dataset).__name__
        raise ValueError(
            f"{name}: the model needs {', '.join(map(repr, keys))}, which this data set cannot "
            "make. With torchreid's ImageDataManager, choose the annotated data set by its name, "
            "such as sources='market1501_masked', and make its files with: python "
            "scripts/convert_masks.py --source densepose-dump --dump FILE --images DIR --out DIR"
            + "".join(dict.fromkeys(MAPS[kind].flag for key in keys for kind in INPUTS[key].maps))
        )


def take_inputs(batch: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Tensor]:
    """The declared inputs of a batch.

    Raises:
        ValueError: the batch lacks one of them.
    """
    missing = [key for key in keys if key not in batch]
    if missing:
        raise ValueError(
            f"batch: expected the input {missing[0]!r}, which the model declares, found "
            f"{', '.join(batch)}; build a new data manager for this model"
        )
    return {key: batch[key] for key in keys}
