"""Rebuild torchreid's image transform as a joint transform for an image and its maps.

torchreid turns names (`random_flip`) into a `Compose` for images only. `rebuild` makes a transform
with the same steps, each of which draws once for the image, the label map and the IUV.
"""

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

import torchreid
from torchvision import transforms as v1
from torchvision.transforms import v2

from magnifier_plugin.data import augmentations
from magnifier_plugin.data.joint import JointTransform
from magnifier_plugin.data.pixels import ToImageTensor

# Names of transforms: torchreid's five (it ignores unknown names) and the paper's padded crop.
PAD_CROP = "pad_crop"
TRANSFORMS = (
    "random_flip",
    "random_crop",
    "random_patch",
    "color_jitter",
    "random_erase",
    PAD_CROP,
)


def rebuild(
    transform: v1.Compose | None, patch_sources: Sequence[str] = (), *, exact: bool = True
) -> JointTransform:
    """The joint transform with the steps of an image transform.

    Args:
        transform: torchreid's (`datamanager.transform_tr`) or another Compose of the same kinds of
            steps; torchvision v2 transforms are used unchanged. None leaves images as RGB photos.
        patch_sources: paths of training images, from which RandomPatch cuts its patches.
        exact: resize images with Pillow, as torchreid does, see `pixels.resize_image`.
    Raises:
        TypeError: transform is not a Compose, or has a step of an unknown type.
        ValueError: a RandomPatch without patch_sources, or a Resize without both height and width.
    """
    if transform is None:
        return JointTransform(())
    if not isinstance(transform, v1.Compose):
        raise TypeError(
            f"transform: expected torchvision.transforms.Compose, got {type(transform).__name__}; "
            "a label map must go through the same steps as its image"
        )
    steps = _with_normalisation(transform.transforms)
    joint = [_joint_step(step, patch_sources, exact) for step in steps]
    return JointTransform(joint, exact=exact)


def checked_names(transforms: str | Sequence[str] | None) -> list[str]:
    """Check the names of transforms, and return them in lower case.

    Args:
        transforms: one or several names from `TRANSFORMS`; None for none.
    Raises:
        ValueError: a name is unknown.
    """
    names = [transforms] if isinstance(transforms, str) else list(transforms or ())
    names = [name.lower() for name in names]
    for name in names:
        if name not in TRANSFORMS:
            near = get_close_matches(name, TRANSFORMS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"transforms: unknown {name!r}, expected some of {', '.join(TRANSFORMS)}{hint}"
            )
    return names


def with_pad_crop(transform: v1.Compose, height: int, width: int) -> v1.Compose:
    """The transform with the paper's padded crop after resizing and flipping.

    Args:
        transform: torchreid's; not changed.
        height: height of the image, in pixels.
        width: likewise.
    """
    steps = list(transform.transforms)
    geometric = (v1.Resize, v1.RandomHorizontalFlip)
    place = 1 + max((i for i, step in enumerate(steps) if isinstance(step, geometric)), default=-1)
    return v1.Compose([*steps[:place], augmentations.pad_crop(height, width), *steps[place:]])


def _resize(step: v1.Resize) -> v2.Transform:
    if isinstance(step.size, int) or len(step.size) != 2:
        raise ValueError(f"Resize: expected a size (height, width), got {step.size}")
    return v2.Resize(step.size, interpolation=step.interpolation, antialias=step.antialias)


def _random_patch(step: Any, patch_sources: Sequence[str]) -> v2.Transform:
    if not patch_sources:
        raise ValueError(
            "RandomPatch: expected patch_sources, the paths of images to cut patches from"
        )
    return augmentations.RandomPatch(
        patch_sources,
        p=step.prob_happen,
        area=(step.patch_min_area, step.patch_max_area),
        aspect=step.patch_min_ratio,
        p_upright=step.prob_rotate,
        p_unflipped=step.prob_flip_leftright,
    )


def _with_normalisation(steps: Sequence[Any]) -> list[Any]:
    """The steps, with each pair of ToTensor and Normalize merged into one step."""
    merged: list[Any] = []
    for step in steps:
        if type(step) is v1.Normalize and merged and type(merged[-1]) is v1.ToTensor:
            merged[-1] = ToImageTensor(step.mean, step.std)
        else:
            merged.append(step)
    return merged


def _joint_step(step: Any, patch_sources: Sequence[str], exact: bool) -> v2.Transform:
    """The joint form of one step of torchreid's Compose."""
    if isinstance(step, v2.Transform):
        return step
    theirs = torchreid.data.transforms
    known: dict[type, Callable[[], v2.Transform]] = {
        v1.Resize: lambda: _resize(step),
        v1.RandomHorizontalFlip: lambda: augmentations.RandomFlip(step.p),
        v1.ColorJitter: lambda: augmentations.ColorJitter(
            step.brightness, step.contrast, step.saturation, step.hue
        ),
        v1.ToTensor: ToImageTensor,
        v1.Normalize: lambda: v2.Normalize(step.mean, step.std),
        theirs.Random2DTranslation: lambda: augmentations.Random2DTranslation(
            step.height, step.width, step.p, step.interpolation, exact=exact
        ),
        theirs.RandomPatch: lambda: _random_patch(step, patch_sources),
        theirs.RandomErasing: lambda: augmentations.RandomErasing(
            step.probability, area=(step.sl, step.sh), aspect=step.r1
        ),
    }
    if type(step) not in known:
        raise TypeError(
            f"transform: no joint form of {type(step).__name__}, expected "
            f"{', '.join(kind.__name__ for kind in known)} or a torchvision v2 transform"
        )
    return known[type(step)]()
