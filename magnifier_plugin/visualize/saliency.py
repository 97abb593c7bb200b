"""What a network looks at: activations of each branch, and embeddings with one region blanked."""

import inspect
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from magnifier_plugin.models.magnifiernet import MagnifierNet
from magnifier_plugin.regions import BODY_REGIONS, NUM_REGIONS, REGIONS

FEATURE_MAPS = "return_featuremaps"
WHOLE = "all"
"""The name of the whole embedding next to those of the branches."""
_GAP, _TITLE, _SIDE = 6, 22, 224
LOWEST_TO_HIGHEST = "blue: lowest, red: highest value in each image"
ZERO_TO_HIGHEST = "blue: 0, red: highest value in each image"


def branch_maps(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Where the feature maps of a network are active, measured as in torchreid's activation tool.

    Args:
        model: the network, in evaluation mode; the forward of models other than MagnifierNet must
            accept `return_featuremaps=True`.
        images: float [B, 3, H, W], normalised.
    Returns:
        Branch → float32 [B, h, w], the sum of squares over the channels, scaled to 0..1 in each
        image. MagnifierNet has one for each branch and, if there are several, their mean as "all";
        other networks have only "all".
    Raises:
        ValueError: the network cannot return its feature maps.
    """
    if not isinstance(model, MagnifierNet):
        if FEATURE_MAPS not in inspect.signature(model.forward).parameters:
            raise ValueError(
                f"{type(model).__name__}: expected a network whose forward takes {FEATURE_MAPS}, "
                "like torchreid's activation tool; osnet_x1_0 and this package's networks do"
            )
        return {WHOLE: _energy(model(images, **{FEATURE_MAPS: True}))}
    maps = {name: _energy(features) for name, features in model.branch_features(images).items()}
    if len(maps) > 1:
        maps[WHOLE] = _scaled(torch.stack([*maps.values()]).mean(dim=0))
    return maps


def _energy(features: Tensor) -> Tensor:
    return _scaled(features.float().square().sum(dim=1))


def _scaled(values: Tensor) -> Tensor:
    low, high = values.amin(dim=(1, 2), keepdim=True), values.amax(dim=(1, 2), keepdim=True)
    return (values - low) / (high - low).clamp(min=torch.finfo(values.dtype).tiny)


def embedding_parts(model: nn.Module, width: int) -> dict[str, slice]:
    """Branch → its columns in the embedding, and "all" → all columns.

    Args:
        model: the network.
        width: D of its embeddings [B, D].
    """
    parts, start = {}, 0
    if isinstance(model, MagnifierNet) and len(model.branches) > 1:
        for name, size in model.embedding_sizes().items():
            parts[name] = slice(start, start + size)
            start += size
    return {**parts, WHOLE: slice(0, width)}


def region_influence(
    embed: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    parts: Mapping[str, slice],
) -> dict[str, Tensor]:
    """How far each branch's embedding moves when one body region is blanked.

    Blanked pixels are set to 0, which is the mean pixel after normalisation.

    Args:
        embed: images float [B, 3, H, W] → embeddings float [B, D].
        images: float [B, 3, H, W], normalised.
        labels: integer [B, H, W], region ids or 255.
        parts: branch → its columns, see `embedding_parts`.
    Returns:
        Branch → float32 [B, 8], 1 − cosine of the embeddings with and without the region, 0..2;
        NaN for the background and for a region that the image does not show.
    """
    whole = embed(images)
    moved = {name: whole.new_full((len(images), NUM_REGIONS), torch.nan) for name in parts}
    for region in BODY_REGIONS:
        shown = labels == region
        present = shown.flatten(1).any(dim=1)
        blanked = embed(images.masked_fill(shown.unsqueeze(1), 0.0))
        for name, columns in parts.items():
            cosine = torch.cosine_similarity(whole[:, columns], blanked[:, columns], dim=1)
            moved[name][present, region] = (1 - cosine)[present]
    return moved


def heat_overlay(image: np.ndarray, heat: np.ndarray, opacity: float = 0.6) -> np.ndarray:
    """Paints a heat map with values in 0..1 over an image, from blue to red.

    Args:
        image: uint8 [H, W, 3], RGB.
        heat: float [h, w], resized to the image's size; NaN is left unpainted.
        opacity: opacity of the colours, 0..1.
    Returns:
        uint8 [H, W, 3].
    """
    height, width = image.shape[:2]
    unpainted = np.isnan(heat)
    method = Image.Resampling.NEAREST if unpainted.any() else Image.Resampling.BICUBIC
    picture = Image.fromarray(np.nan_to_num(heat).astype(np.float32))
    values = np.asarray(picture.resize((width, height), method)).clip(0, 1)
    colours = 255 * colormaps["turbo"](values)[..., :3]
    mixed = image + opacity * (colours - image)
    if unpainted.any():
        hidden = Image.fromarray(unpainted).resize((width, height), Image.Resampling.NEAREST)
        mixed[np.asarray(hidden)] = image[np.asarray(hidden)]
    return mixed.round().astype(np.uint8)


def region_heat(labels: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """A heat map in which each region has the value of how far the embedding moves without it.

    Args:
        labels: integer [H, W], region ids or 255.
        moved: float [8], the result of `region_influence` for one image; scaled so that the largest
            value becomes 1.
    Returns:
        float32 [H, W] in 0..1; NaN outside the body.
    """
    scaled = moved / max(float(np.nanmax(moved, initial=0.0)), np.finfo(np.float32).tiny)
    values = np.concatenate([scaled, np.full(256 - len(scaled), np.nan)])
    return values[labels].astype(np.float32)


def saliency_sheet(
    photos: Sequence[np.ndarray], columns: Mapping[str, Sequence[np.ndarray]], legend: str
) -> Image.Image:
    """One row per image: the photo, then each column's map painted over it.

    Args:
        photos: uint8 [H, W, 3] each, all of one size.
        columns: title → a map for each photo, see `heat_overlay`.
        legend: the line below, `LOWEST_TO_HIGHEST` or `ZERO_TO_HIGHEST`.
    """
    height, width = photos[0].shape[:2]
    scale = max(1, round(_SIDE / height))
    size = (width * scale, height * scale)
    step = size[0] + _GAP
    font = ImageFont.load_default(13)
    width = max((1 + len(columns)) * step, _GAP + round(font.getlength(legend))) + _GAP
    height = 2 * _TITLE + len(photos) * (size[1] + _GAP)
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)
    for place, title in enumerate(("image", *columns)):
        pen.text((_GAP + place * step, 4), title, fill="black", font=font)
    for row, photo in enumerate(photos):
        painted = [photo, *(heat_overlay(photo, maps[row]) for maps in columns.values())]
        for place, pixels in enumerate(painted):
            tile = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
            sheet.paste(tile, (_GAP + place * step, _TITLE + row * (size[1] + _GAP)))
    pen.text((_GAP, sheet.height - _TITLE + 2), legend, fill="black", font=font)
    return sheet


def influence_table(moved: Mapping[str, np.ndarray]) -> str:
    """The mean influence of each region on each branch, as a Markdown table.

    Args:
        moved: branch → float [B, 8], see `region_influence`.
    Returns:
        The table, with – for a region that no image shows.
    """
    names = [REGIONS[region] for region in BODY_REGIONS]
    lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for name, values in moved.items():
        columns = [column[np.isfinite(column)] for column in values[:, list(BODY_REGIONS)].T]
        means = [f"{column.mean():.3f}" if len(column) else "–" for column in columns]
        lines.append(f"| {name} | {' | '.join(means)} |")
    return "\n".join(lines)
