"""A single HTML file that shows the hits of each query and their similarity in each region.

The page's address contains the current view, `#query=3&camera=2&text=0002&regions=on`.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from magnifier_plugin.images import read_image
from magnifier_plugin.regions import BACKGROUND, REGION_COLOURS, REGIONS
from magnifier_plugin.visualize.html_page import data_url, shrunk, write_page
from magnifier_plugin.workers import on_all_cores

TEMPLATE = "search.html"


class PageImage(NamedTuple):
    """An image on the page."""

    path: Path
    """Path of its file."""
    name: str
    """The name shown on the page: the path relative to the folder of all images."""
    folder: str
    """The folder by which images can be filtered; "" if there is none."""
    camera: str
    """The camera by which images can be filtered; "" if unknown."""
    regions: np.ndarray | None
    """uint8 [h, w], region ids, resized to the image; None: no regions are drawn."""


class PageQuery(NamedTuple):
    """A query and its hits, nearest first."""

    image: int
    """Its index in the list of images."""
    hits: np.ndarray
    """int [n], the hits' indices in the list of images."""
    distances: np.ndarray
    """float [n], the distances by which the hits are ranked."""
    plain: np.ndarray | None
    """float [n], the distances before re-ranking; None without re-ranking."""
    cosines: np.ndarray | None
    """float [m, 8] in [-1, 1], m ≤ n: cosine similarity of each region between the query and the
    first m hits, NaN if it is absent; None if the network does not pool regions."""


class Thumbnails(NamedTuple):
    """Size of the photos on a page."""

    height: int
    """Pixels; wide photos are lower."""
    most_bytes: int
    """Maximum size of a photo, unless even the lowest of `QUALITIES` exceeds it."""


# Maximum number of images → size of their photos, chosen so that 10,000 photos take less than 30
# MB; base64 needs 4 bytes for 3.
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
        images: the images of all queries and hits.
        queries: the queries, at least one.
        title: title of the page.
        facts: lines under "About this search", name → value.
        metric: description of the distances.
        topk: number of hits that are shown at first.
        gallery: number of images that were searched.
        workers: number of processes that draw thumbnails; None: one for each core.
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
    """Draws an image's thumbnail and its regions, as data URLs.

    Returns:
        The photo as a small WebP, grey if its file cannot be read; and its regions as a PNG of the
        same size with a transparent background, "" if there are none.
    """
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
    """A digest of the images and their ranking, so that pages do not share their marks."""
    digest = hashlib.blake2b(digest_size=8)
    for image in images:
        digest.update(image.name.encode(errors="surrogateescape") + b"\0")
    for query in queries:
        digest.update(query.hits.astype(np.int64).tobytes())
    return digest.hexdigest()
