"""A single HTML file that shows a data set's label maps, worst first.

The page's address contains the current view, `#kind=odd&sort=name&text=0002`, so that it can be
shared.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from magnifier_plugin.annotators.densepose import read_iuv, to_regions
from magnifier_plugin.images import read_image
from magnifier_plugin.masks.checking import KINDS, Finding, mean_shares
from magnifier_plugin.masks.label_maps import UNKNOWN_COLOUR, read_labels
from magnifier_plugin.regions import REGION_COLOURS, REGIONS
from magnifier_plugin.visualize.html_page import data_url, shrunk, write_page
from magnifier_plugin.visualize.regions import overlay
from magnifier_plugin.workers import on_all_cores

TEMPLATE = "label_maps.html"
# Size limits of a thumbnail's photo in pixels; a thumbnail then takes some ten thousand bytes.
HEIGHT, MAX_WIDTH = 192, 384
_GAP = 2


def write_label_page(
    path: str | os.PathLike[str],
    findings: Sequence[Finding],
    *,
    title: str,
    facts: Mapping[str, str],
    limit: int = 500,
    workers: int | None = None,
) -> None:
    """Writes the page.

    Args:
        path: the page.
        findings: the findings of all images, worst first (`checking.check_labels`).
        title: the data set's name.
        facts: further lines at the top, name → value.
        limit: number of images that are shown, the worst ones; the counts are of all images.
        workers: number of processes; None: one for each core.
    """
    shown = findings[:limit]
    root = os.path.commonpath([f.image.parent for f in findings]) if findings else ""
    data = {**_items(shown, root, workers), **_overview(findings)}
    facts = {**facts, "images": root, "shown": f"the worst {len(shown):,} of {len(findings):,}"}
    write_page(path, TEMPLATE, title=title, facts=facts, data=data)


def _items(shown: Sequence[Finding], root: str, workers: int | None) -> dict[str, Any]:
    return {
        "items": [
            {
                "name": finding.image.relative_to(root).as_posix(),
                "kind": finding.kind,
                "reasons": (*finding.reasons, *finding.hints),
                "shares": [round(share, 5) for share in finding.shares],
                "picture": picture,
            }
            for finding, picture in zip(shown, on_all_cores(thumbnail, shown, workers), strict=True)
        ]
    }


def _overview(findings: Sequence[Finding]) -> dict[str, Any]:
    counts = Counter(finding.kind for finding in findings)
    return {
        "total": len(findings),
        "kinds": {kind: counts[kind] for kind in KINDS if counts[kind]},
        "regions": [*REGIONS, "unknown"],
        "colours": [f"#{bytes(colour).hex()}" for colour in (*REGION_COLOURS, UNKNOWN_COLOUR)],
        "means": [round(share, 5) for share in mean_shares(findings).values()],
    }


def thumbnail(finding: Finding) -> str:
    """The photo, and next to it the photo overlaid with its label map: a JPEG as a data URL.

    If a file cannot be read, its half is grey; the card's text says what is wrong with it.
    """
    try:
        photo = read_image(finding.image)
    except OSError:
        photo = Image.new("RGB", (HEIGHT // 2, HEIGHT), "grey")
    photo = shrunk(photo, HEIGHT, MAX_WIDTH)
    width, height = photo.size
    both = Image.new("RGB", (2 * width + _GAP, height), "white")
    both.paste(photo, (0, 0))
    both.paste(_with_regions(photo, finding), (width + _GAP, 0))
    return data_url(both, "jpeg", quality=80)


def _with_regions(photo: Image.Image, finding: Finding) -> Image.Image:
    """The photo overlaid with the regions of its label map or, if there is only an IUV, of that."""
    try:
        if finding.label:
            labels = read_labels(finding.label)
        elif finding.iuv:
            labels = to_regions(read_iuv(finding.iuv))
        else:
            return Image.new("RGB", photo.size, "grey")
    except (ValueError, OSError):
        return Image.new("RGB", photo.size, "grey")
    regions = Image.fromarray(labels).resize(photo.size, Image.Resampling.NEAREST)
    return Image.fromarray(overlay(np.asarray(photo), np.asarray(regions)))
