"""Figures of DSAP-images: a photo, its IUV, and the textures of the 24 body parts."""

from collections.abc import Sequence
from colorsys import hsv_to_rgb
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from magnifier_plugin.annotators.densepose import read_iuv
from magnifier_plugin.annotators.source import check_size
from magnifier_plugin.data.inputs import TEXTURES
from magnifier_plugin.data.pixels import image_tensor
from magnifier_plugin.images import read_image
from magnifier_plugin.regions import NUM_PARTS, PARTS
from magnifier_plugin.visualize.sheets import stack

COLUMNS = 8
ROWS = NUM_PARTS // COLUMNS
# Sizes in pixels. The caption above each texture has two lines of text and a bar in the part's
# colour.
TILE, GAP, LINE, BAR = 96, 10, 16, 5
CAPTION = 2 * LINE + BAR + 2
FONT_SIZE = 13
SEEN, UNSEEN = (0, 0, 0), (150, 150, 150)


def _part_colours() -> np.ndarray:
    """uint8 [25, 3]: black, then 24 hues; the step gives adjacent body parts distant hues."""
    colours = [(0.0, 0.0, 0.0)]
    for i in range(NUM_PARTS):
        saturation, value = (0.5, 1.0) if i % 2 else (0.95, 0.85)
        colours.append(hsv_to_rgb(17 * i / NUM_PARTS % 1, saturation, value))
    return np.rint(np.array(colours) * 255).astype(np.uint8)


PART_COLOURS = _part_colours()


def texture_sheet(photo: np.ndarray, iuv: np.ndarray, textures: np.ndarray) -> Image.Image:
    """A sheet for one person: the photo, the IUV's parts in colours, and a grid of 24 textures.

    In a texture, U runs down and V to the right. The name of a part that is absent from the IUV is
    grey. `sheets.stack` puts the sheets of several people one below the other.

    Args:
        photo: uint8 [H, W, 3], RGB.
        iuv: uint8 [H, W, 3] in the order I, U, V.
        textures: uint8 [24, 3, S, S], from `data.dsap`.
    Raises:
        ValueError: photo and IUV differ in size, or textures has another shape.
    """
    if photo.shape != iuv.shape:
        raise ValueError(f"iuv: expected the photo's {list(photo.shape)}, got {list(iuv.shape)}")
    size = textures.shape[-1]
    if textures.shape != (NUM_PARTS, 3, size, size):
        raise ValueError(f"textures: expected [{NUM_PARTS}, 3, S, S], got {list(textures.shape)}")
    side = size * max(1, round(TILE / size))  # each texture cell is a square of whole pixels
    right, down = max(side, TILE) + GAP, side + CAPTION + GAP
    height = ROWS * down - GAP - CAPTION
    width = round(photo.shape[1] * height / photo.shape[0])
    grid = 2 * (width + GAP)
    sheet = Image.new("RGB", (grid + COLUMNS * right - GAP, CAPTION + height), "white")
    parts = Image.fromarray(PART_COLOURS[iuv[..., 0]])
    for left, name, panel, resampling in (
        (0, "photo", Image.fromarray(photo), Image.Resampling.BICUBIC),
        (width + GAP, "parts", parts, Image.Resampling.NEAREST),
    ):
        sheet.paste(panel.resize((width, height), resampling), (left, CAPTION))
        _write(sheet, (left, 0), ("", name), SEEN)
    for i, texture in enumerate(textures):
        corner = (grid + i % COLUMNS * right, i // COLUMNS * down)
        _draw_texture(sheet, corner, texture, side, part=i + 1, seen=i + 1 in iuv[..., 0])
    return sheet


def file_texture_sheet(
    files: Sequence[tuple[str | Path, Path]], *, size: int = 32, kind: str = "dsap"
) -> Image.Image:
    """The sheets of several people, one below the other.

    Args:
        files: photo and `NAME_IUV.png` of each person.
        size: side S of the textures, pixels.
        kind: a key of `data.inputs.TEXTURES`.
    Raises:
        ValueError, OSError: a file cannot be read, or the two differ in size.
    """
    sheets = []
    for photo_file, iuv_file in files:
        photo, iuv = read_image(photo_file), read_iuv(iuv_file)
        check_size(iuv_file, iuv.shape[:2], (photo.height, photo.width))
        planes = torch.from_numpy(iuv).permute(2, 0, 1)
        textures = TEXTURES[kind](image_tensor(photo), planes, size).textures
        sheets.append(texture_sheet(np.asarray(photo), iuv, textures.numpy()))
    return stack(sheets)


def _draw_texture(
    sheet: Image.Image,
    corner: tuple[int, int],
    texture: np.ndarray,
    side: int,
    part: int,
    seen: bool,
) -> None:
    """Draws a texture [3, S, S] and, above it, its part's id, name and colour."""
    left, top = corner
    tile = Image.fromarray(np.ascontiguousarray(texture.transpose(1, 2, 0)))
    sheet.paste(tile.resize((side, side), Image.Resampling.NEAREST), (left, top + CAPTION))
    words = f"{part} {PARTS[part]}".split()
    # A tile is wide enough for three words at most.
    lines = (" ".join(words[:3]), " ".join(words[3:])) if len(words) > 3 else ("", " ".join(words))
    _write(sheet, corner, lines, SEEN if seen else UNSEEN)
    bar = (left, top + 2 * LINE, left + side - 1, top + 2 * LINE + BAR - 1)
    ImageDraw.Draw(sheet).rectangle(bar, fill=tuple(PART_COLOURS[part].tolist()))


def _write(
    sheet: Image.Image,
    corner: tuple[int, int],
    lines: tuple[str, str],
    colour: tuple[int, int, int],
) -> None:
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_SIZE)
    for i, line in enumerate(lines):
        draw.text((corner[0], corner[1] + i * LINE), line, fill=colour, font=font)
