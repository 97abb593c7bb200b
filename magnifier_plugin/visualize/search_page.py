"""One HTML file with the hits of each query, region by region.

Its address holds the chosen view, `#query=3&camera=2&text=0002&regions=on`.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from magnifier_plugin.files import read_image
from magnifier_plugin.regions import BACKGROUND, REGION_COLOURS, REGIONS
from magnifier_plugin.visualize.html_page import data_url, shrunk, write_page
from magnifier_plugin.workers import on_all_cores

TEMPLATE = "search.html"


class PageImage(NamedTuple):
    """An image on the page."""

    path: Path
    """Its file."""
    name: str
    """What the page calls it: its path in its folder."""
    folder: str
    """To filter by; "" for none."""
    camera: str
    """To filter by; "" where it is not known."""
    regions: np.ndarray | None
    """uint8 [h, w], region ids over the whole image; None: not drawn."""


class PageQuery(NamedTuple):
    """A query and its hits, the nearest first."""

    image: int
    """Its place in the list of images."""
    hits: np.ndarray
    """int [n], places in the list of images."""
    distances: np.ndarray
    """float [n], that the hits are ranked by."""
    plain: np.ndarray | None
    """float [n], the distances before re-ranking; None without."""
    cosines: np.ndarray | None
    """float [m, 8] in [-1, 1], m ≤ n: of each region of the first hits, NaN where it is absent;
    None where the network pools none."""


class Thumbnails(NamedTuple):
    """How photos are drawn on a page."""

    height: int
    """Pixels; wide photos are less high."""
    most_bytes: int
    """Of a photo, if the lowest of `QUALITIES` allows it."""


# By the number of images, so that 10,000 take less than 30 MB; base64 needs 4 bytes for 3.
SIZES = {4_000: Thumbnails(192, 4_500), 2**63: Thumbnails(128, 1_800)}
QUALITIES = (70, 50, 30, 10)  # of WebP


def write_search_page(
    path: str | os.PathLike[str],
    images: Sequence[PageImage],
    queries: Sequence[PageQuery],
    *,
    title: str,
    facts: Mapping[str, str],
    metric: str,
    topk: int,
    gallery: int,
    workers: int | None = None,
) -> None:
    """Writes the page.

    Args:
        path: the page, written atomically.
        images: of all queries and hits.
        queries: at least one.
        title: of the page.
        facts: further lines at the top, name → value.
        metric: what the distances are, in words.
        topk: hits that are shown at first.
        gallery: number of images that were searched.
        workers: processes that draw thumbnails; None: one for each core.
    """
    size = next(size for most, size in SIZES.items() if len(images) <= most)
    tasks = [(image.path, image.regions, size) for image in images]
    data: dict[str, Any] = {
        "images": [
            [image.name, image.folder, image.camera, *pictures]
            for image, pictures in zip(images, on_all_cores(draw, tasks, workers), strict=True)
        ],
        "queries": [_query(query) for query in queries],
        "regions": REGIONS,
        "colours": [f"#{bytes(colour).hex()}" for colour in REGION_COLOURS],
        "metric": metric,
        "topk": topk,
        "gallery": gallery,
        "id": _digest(images, queries),
    }
    write_page(path, TEMPLATE, title=title, facts=facts, data=data)


def draw(task: tuple[Path, np.ndarray | None, Thumbnails]) -> tuple[str, str]:
    """The photo as a small WebP, grey if its file cannot be read, and its regions as a PNG of the
    same size with a transparent background, "" without regions."""
    path, labels, size = task
    try:
        photo = read_image(path)
    except OSError:
        photo = Image.new("RGB", (size.height // 2, size.height), "grey")
    photo = shrunk(photo, size.height, 2 * size.height)
    for quality in QUALITIES:
        url = data_url(photo, "webp", quality=quality)
        if len(url) <= size.most_bytes * 4 / 3:
            break
    if labels is None:
        return url, ""
    layer = Image.fromarray(labels).resize(photo.size, Image.Resampling.NEAREST).convert("P")
    layer.putpalette(bytes(np.array(REGION_COLOURS, np.uint8)))
    return url, data_url(layer, "png", optimize=True, transparency=BACKGROUND)


def _query(query: PageQuery) -> dict[str, Any]:
    return {
        "image": query.image,
        "hits": query.hits.tolist(),
        "distances": _short(query.distances),
        "plain": None if query.plain is None else _short(query.plain),
        "cosines": None if query.cosines is None else _percent(query.cosines),
    }


def _short(values: np.ndarray) -> list[float]:
    return [float(f"{value:.5g}") for value in values]


def _percent(cosines: np.ndarray) -> list[list[int | None]]:
    return [
        [None if np.isnan(value) else round(100 * float(value)) for value in row] for row in cosines
    ]


def _digest(images: Sequence[PageImage], queries: Sequence[PageQuery]) -> str:
    """Changes with the images and their ranking: marks of one page are no marks of another."""
    digest = hashlib.blake2b(digest_size=8)
    for image in images:
        digest.update(image.name.encode(errors="surrogateescape") + b"\0")
    for query in queries:
        digest.update(query.hits.astype(np.int64).tobytes())
    return digest.hexdigest()
