"""Functions that the HTML pages share: filling a template, thumbnails as data URLs.

A page is a single file that includes its images, so it needs neither a network nor other files.
`common.html` holds the style and the code that all pages share.
"""

import base64
import io
import json
import os
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from magnifier_plugin.files import write_atomically

# In a template `{{common}}`, `{{title}}`, `{{facts}}` and `{{data}}` are replaced.
TEMPLATES = Path(__file__).parent / "pages"
_COMMON = "common.html"


def write_page(
    path: str | os.PathLike[str],
    template: str,
    *,
    title: str,
    facts: Mapping[str, str],
    data: Mapping[str, Any],
) -> None:
    """Fills a template and writes the page atomically.

    Args:
        path: the page.
        template: a file in `pages/`.
        title: title of the page; it is escaped.
        facts: name → value, shown at the top; both are escaped.
        data: the data for the page's code: plain values, escaped as JSON.
    """
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    # "<" is escaped, so that no file name can end the script.
    script = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    fields = {
        "common": (TEMPLATES / _COMMON).read_text(encoding="utf-8"),
        "title": escape(title),
        "facts": rows,
        "data": script,
    }
    # The template is split before anything is filled in, so no value is searched for fields.
    first, *parts = (TEMPLATES / template).read_text(encoding="utf-8").split("{{")
    filled = [first]
    for part in parts:
        name, _, text = part.partition("}}")
        filled += [fields[name], text]
    with write_atomically(path) as part_file:
        # Names of folders need not be valid Unicode.
        part_file.write_text("".join(filled), encoding="utf-8", errors="replace")


def shrunk(photo: Image.Image, height: int, max_width: int) -> Image.Image:
    """The photo scaled to this height, or to a smaller one if it would exceed `max_width`."""
    scale = min(height / photo.height, max_width / photo.width)
    width, height = (max(1, round(side * scale)) for side in photo.size)
    return photo.resize((width, height), Image.Resampling.BILINEAR)


def data_url(image: Image.Image, kind: str, **options: Any) -> str:
    """The image as a `data:` URL.

    Args:
        kind: "jpeg", "webp" or "png".
        options: further arguments of Pillow's `save`.
    """
    content = io.BytesIO()
    image.save(content, format=kind.upper(), **options)
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"
