"""Figures of rankings: a query, followed by its nearest gallery images."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from magnifier_plugin.catalogue.names import ImageRecord
from magnifier_plugin.catalogue.numbering import common_folder
from magnifier_plugin.images import read_image, write_png
from magnifier_plugin.visualize.sheets import GAP, spread_evenly, stack

# Distinguishable for colour-blind readers too; the caption's ✓ or ✗ says the same.
MATCH, MISS, QUERY = (0, 158, 115), (213, 94, 0), (60, 60, 60)
HEIGHT, WIDTH, BORDER = 192, 96, 5
_LINE = 18  # height of a line of text, pixels


def first_gallery_images(
    distances: np.ndarray, query: ImageRecord, gallery: Sequence[ImageRecord], topk: int
) -> list[int]:
    """Indices of the topk nearest gallery images, without those of the query's identity and camera.

    Args:
        distances: float [G], from the query to the gallery.
        query, gallery: torchreid's records.
        topk: maximum number of images.
    """
    order = np.argsort(distances, kind="stable")
    kept = (i for i in order if gallery[i][1:3] != query[1:3])
    return [int(i) for i, _ in zip(kept, range(topk), strict=False)]


def draw_ranking(query: ImageRecord, ranked: Sequence[ImageRecord]) -> Image.Image:
    """One row: the query with a grey frame, then the ranked images, green for a match, else red.

    Args:
        query: torchreid's record of the query.
        ranked: the records of the gallery images, nearest first.
    """
    tiles = [_tile(query, QUERY, "query")]
    for rank, item in enumerate(ranked, start=1):
        match = item[1] == query[1]
        tiles.append(_tile(item, MATCH if match else MISS, f"{rank} {'✓' if match else '✗'}"))
    step = tiles[0].width + GAP
    row = Image.new("RGB", (step * len(tiles) + GAP, tiles[0].height), "white")
    for i, tile in enumerate(tiles):
        row.paste(tile, (i * step + (GAP if i else 0), 0))
    return row


def _tile(item: ImageRecord, colour: tuple[int, int, int], caption: str) -> Image.Image:
    photo = read_image(item[0]).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    tile = Image.new("RGB", (WIDTH + 2 * BORDER, HEIGHT + 2 * BORDER + _LINE), "white")
    tile.paste(colour, (0, _LINE, tile.width, tile.height))
    tile.paste(photo, (BORDER, BORDER + _LINE))
    ImageDraw.Draw(tile).text((2, 1), caption, fill=colour, font=_font())
    return tile


def heading(names: Mapping[str, str], width: int) -> Image.Image:
    """Lines "title: name" to put above rankings; a name that is too wide loses its beginning.

    Args:
        names: title → name, such as the path of a checkpoint.
        width: pixels.
    """
    strip = Image.new("RGB", (width, _LINE * len(names)), "white")
    pen, font = ImageDraw.Draw(strip), _font()
    for number, (title, name) in enumerate(names.items()):
        shown = f"{title}: {name}"
        while name and pen.textlength(shown, font) > width:
            name = name[1:]
            shown = f"{title}: …{name}"
        pen.text((0, number * _LINE), shown, fill=QUERY, font=font)
    return strip


def _font() -> ImageFont.FreeTypeFont:
    """matplotlib's own font, because it is always installed and has ✓ and ✗."""
    from matplotlib import font_manager

    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 13)


def save_rankings(
    distmat: np.ndarray,
    query: Sequence[ImageRecord],
    gallery: Sequence[ImageRecord],
    folder: Path,
    topk: int = 10,
) -> None:
    """Saves one figure per query, named after its image file, as torchreid's `visrank` does.

    If several queries have the same file name, the names of their folders are put before it.

    Args:
        distmat: float [Q, G].
        query, gallery: torchreid's lists.
        folder: the folder of the figures; it is made if missing.
        topk: number of gallery images in a figure.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for distances, item, name in zip(distmat, query, _figure_names(query), strict=True):
        chosen = first_gallery_images(distances, item, gallery, topk)
        row = draw_ranking(item, [gallery[i] for i in chosen])
        row.save(folder / f"{name}.jpg", quality=92)


def ranking_sheet(
    distmat: np.ndarray,
    query: Sequence[ImageRecord],
    gallery: Sequence[ImageRecord],
    count: int,
    topk: int = 10,
) -> Image.Image:
    """Rankings of `count` queries, spread evenly over the list, one below the other.

    Args:
        distmat: float [Q, G].
        query, gallery: torchreid's lists.
        count: number of queries; if it exceeds Q, all are shown.
        topk: number of gallery images in a row.
    """
    rows = []
    for q in spread_evenly(range(len(query)), count):
        chosen = first_gallery_images(distmat[q], query[q], gallery, topk)
        rows.append(draw_ranking(query[q], [gallery[i] for i in chosen]))
    return stack(rows)


def save_ranking_sheet(
    distmat: np.ndarray,
    query: Sequence[ImageRecord],
    gallery: Sequence[ImageRecord],
    path: Path,
    count: int,
    topk: int = 10,
) -> Path:
    """Saves `ranking_sheet` as PNG and returns its path.

    Args:
        distmat, query, gallery, count, topk: as in `ranking_sheet`.
        path: path of the figure.
    """
    write_png(path, ranking_sheet(distmat, query, gallery, count, topk))
    return path


def _figure_names(query: Sequence[ImageRecord]) -> list[str]:
    """A file name without suffix for each query; folders or a number are added if names repeat."""
    paths = [Path(record[0]) for record in query]
    names = [path.stem for path in paths]
    if _repeats(names):
        folder = common_folder(paths)
        names = ["_".join(path.relative_to(folder).with_suffix("").parts) for path in paths]
    if _repeats(names):
        names = [f"{number:05d}_{name}" for number, name in enumerate(names, start=1)]
    return names


def _repeats(names: Sequence[str]) -> bool:
    return len(set(names)) < len(names)
