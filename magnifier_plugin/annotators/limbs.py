"""Limbs that a human parser labels as one class, split into an upper and a lower half."""

import numpy as np
from scipy import ndimage

# A piece shorter than this many times its width is only the end of a limb, such as the hand that a
# sleeve leaves visible.
STUBBY = 2.0
_TOUCHING = np.ones((3, 3), dtype=bool)


def split_limb(
    mask: np.ndarray, trunk: np.ndarray, upper: int, lower: int, stubby: int | None = None
) -> np.ndarray:
    """Splits a limb at the middle of its extent along its long axis.

    The long axis is the first principal axis of the limb's pixels. The upper half is the one
    towards the trunk or, if no trunk is visible, the one that is higher in the image.

    Args:
        mask: bool [H, W], the limb's pixels.
        trunk: bool [H, W], the pixels of the trunk, to which the limb is attached.
        upper, lower: the regions of the two halves.
        stubby: if None, all pixels are one limb, even if something hides its middle. Otherwise each
            connected piece is split by itself (parsers mistake one hand for the other), and a piece
            shorter than twice its width gets this region as a whole.
    Returns:
        uint8 [H, W], the two halves' regions; 0 outside the limb.
    """
    halves = np.zeros(mask.shape, dtype=np.uint8)
    pieces, number = (mask, 1) if stubby is None else ndimage.label(mask, _TOUCHING)
    for piece in range(1, number + 1):
        points = np.argwhere(pieces == piece)
        if len(points):
            halves[tuple(points.T)] = _split(points.astype(float), trunk, upper, lower, stubby)
    return halves


def _split(
    points: np.ndarray, trunk: np.ndarray, upper: int, lower: int, stubby: int | None
) -> np.ndarray:
    """The region of each point of a limb; points are [N, 2], row and column."""
    centre = points.mean(axis=0)
    # Columns: the short axis, then the long one.
    _, axes = np.linalg.eigh(np.cov(points - centre, rowvar=False, ddof=0))
    short, long = ((points - centre) @ axes).T
    if stubby is not None and np.ptp(long) + 1 < STUBBY * (np.ptp(short) + 1):
        return np.full(len(points), stubby)
    up = np.argwhere(trunk).mean(axis=0) - centre if trunk.any() else np.array([-1.0, 0.0])
    middle = (long.max() + long.min()) / 2
    return np.where((long >= middle) == (up @ axes[:, 1] >= 0), upper, lower)
