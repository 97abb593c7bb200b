"""Sheets of several pictures: which ones to show, and how they are joined."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from PIL import Image

T = TypeVar("T")

GAP = 8  # pixels between pictures


def spread_evenly(items: Sequence[T], count: int) -> list[T]:
    """`count` entries of a list, evenly spread; all if there are fewer."""
    chosen = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[i] for i in chosen]


def stack(rows: Sequence[Image.Image], gap: int = GAP) -> Image.Image:
    """Images one below the other on a white background."""
    height = sum(row.height for row in rows) + gap * (len(rows) + 1)
    sheet = Image.new("RGB", (max(row.width for row in rows) + 2 * gap, height), "white")
    top = gap
    for row in rows:
        sheet.paste(row, (gap, top))
        top += row.height + gap
    return sheet
