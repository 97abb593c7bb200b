"""Figures of images overlaid with their regions."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from magnifier_plugin.data.pixels import batch_of, normalised
from magnifier_plugin.images import read_image
from magnifier_plugin.regions import REGION_COLOURS, REGIONS
from magnifier_plugin.visualize.sheets import spread_evenly


def overlay(image: np.ndarray, regions: np.ndarray, opacity: float = 0.55) -> np.ndarray:
    """Paints regions over an image; the background is left unpainted.

    Args:
        image: uint8 [H, W, 3], RGB.
        regions: integer [H, W], ids 0..7; other values are left unpainted.
        opacity: opacity of the colours, 0..1.
    Returns:
        uint8 [H, W, 3].
    """
    colours = np.array(REGION_COLOURS, dtype=np.float32)
    painted = (regions > 0) & (regions < len(REGIONS))
    mixed = image.astype(np.float32)
    mixed[painted] += opacity * (colours[regions[painted]] - mixed[painted])
    return mixed.round().astype(np.uint8)


def region_sheet(images: Sequence[np.ndarray], regions: Sequence[np.ndarray]) -> Image.Image:
    """The images, below each the same image overlaid with its regions, and a legend.

    Args:
        images: uint8 [H, W, 3] each, all of one size.
        regions: integer [H, W] each.
    """
    height, width = images[0].shape[:2]
    scale = max(1, round(224 / height))
    size = (width * scale, height * scale)
    legend = _legend()
    columns = len(images) * (size[0] + 6) + 6
    sheet = Image.new("RGB", (max(columns, legend.width), 2 * (size[1] + 6) + 34), "white")
    for column, (image, ids) in enumerate(zip(images, regions, strict=True)):
        for row, pixels in enumerate((image, overlay(image, ids))):
            tile = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
            sheet.paste(tile, (6 + column * (size[0] + 6), 6 + row * (size[1] + 6)))
    sheet.paste(legend, (0, 2 * (size[1] + 6) + 8))
    return sheet


def _legend() -> Image.Image:
    """One line: colour and name of each body region."""
    font = ImageFont.load_default(13)
    regions = list(zip(REGIONS, REGION_COLOURS, strict=True))[1:]
    steps = [34 + round(font.getlength(name)) for name, _ in regions]
    legend = Image.new("RGB", (8 + sum(steps), 20), "white")
    pen, left = ImageDraw.Draw(legend), 8
    for (name, colour), step in zip(regions, steps, strict=True):
        pen.rectangle((left, 2, left + 13, 15), fill=colour, outline="black")
        pen.text((left + 19, 0), name, fill="black", font=font)
        left += step
    return legend


def predicted_region_sheet(
    predict: Callable[[Tensor], Tensor], dataset: Any, count: int
) -> Image.Image:
    """Images of a data set, spread evenly, with the regions that a network predicts.

    Args:
        predict: images float [B, 3, H, W] → region ids [B, h, w].
        dataset: a query set; `data` lists its images, and its items have "img".
        count: number of images on the sheet; if it exceeds the set's size, all are shown.
    """
    chosen = spread_evenly(range(len(dataset)), count)
    images = normalised(batch_of([dataset[i]["img"] for i in chosen]))
    height, width = images.shape[-2:]
    predicted = predict(images).to(torch.uint8).cpu().numpy()
    photos = [read_image(dataset.data[i][0]).resize((width, height)) for i in chosen]
    maps = [
        Image.fromarray(ids).resize((width, height), Image.Resampling.NEAREST) for ids in predicted
    ]
    return region_sheet(list(map(np.asarray, photos)), list(map(np.asarray, maps)))
