"""One HTML file with the pictures of a data set's label maps, the worst first.

Its address holds the chosen view, `#kind=odd&sort=name&text=0002`, so that a view can be shared.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from magnifier_plugin.annotators.densepose import read_iuv, to_regions
from magnifier_plugin.files import read_image
from magnifier_plugin.masks.checking import KINDS, Finding, mean_shares
from magnifier_plugin.masks.label_maps import UNKNOWN_COLOUR, read_labels
from magnifier_plugin.regions import REGION_COLOURS, REGIONS
from magnifier_plugin.visualize.html_page import data_url, shrunk, write_page
from magnifier_plugin.visualize.regions import overlay
from magnifier_plugin.workers import on_all_cores

TEMPLATE = "label_maps.html"
# Pixels of a thumbnail's photo, so that it takes some ten thousand bytes.
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
        findings: of every image, the worst first (`checking.check_labels`).
        title: the data set's name.
        facts: further lines at the top, name → value.
        limit: how many images are shown, the worst ones; the counts are those of all images.
        workers: processes; None: one for each core.
    """
    shown = findings[:limit]
    root = os.path.commonpath([f.image.parent for f in findings]) if findings else ""
    data = {**_items(shown, root, workers), **_overview(findings)}
    facts = {**facts, "images": root, "shown": f"{len(shown):,} of {len(findings):,}, the worst"}
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
    """The photo, and next to it the photo under its label map: a JPEG as a data URL.

    A file that cannot be read leaves its half grey; the card's text says what is wrong with it.
    """
    try:
        photo = read_image(finding.image)
    except OSError:
        photo = Image.new("RGB", (HEIGHT // 2, HEIGHT), "grey")
    photo = shrunk(photo, HEIGHT, MAX_WIDTH)
    width, height = photo.size
    both = Image.new("RGB", (2 * width + _GAP, height), "white")
    both.paste(photo, (0, 0))
    both.paste(_under_regions(photo, finding), (width + _GAP, 0))
    return data_url(both, "jpeg", quality=80)


def _under_regions(photo: Image.Image, finding: Finding) -> Image.Image:
    """The photo under the regions of its label map, or of its IUV if that is all there is."""
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
