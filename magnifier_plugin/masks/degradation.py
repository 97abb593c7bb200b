"""Label maps made worse on purpose: what a system loses by inexact annotations."""

import numpy as np
from scipy import ndimage

from magnifier_plugin.regions import BACKGROUND, UNKNOWN

_REFERENCE_HEIGHT = 256  # of an image, pixels, that radii are stated for


def scaled_radius(pixels: float, height: int) -> float:
    """A radius of so many pixels at 256 × 128 in an image of another height, at least one pixel."""
    return max(1.0, pixels * height / _REFERENCE_HEIGHT)


def erode(labels: np.ndarray, radius: float) -> np.ndarray:
    """The body without its outermost pixels, which become background.

    Borders between two regions stay, and so does the body at the image's edge.

    Args:
        labels: uint8 [H, W], region ids, 255 unknown.
        radius: pixels of the body that are no farther from the background, centre to centre.
    Returns:
        uint8 [H, W], a new array; unknown pixels stay unknown.
    """
    body = _body(labels)
    result = labels.copy()
    if (labels == BACKGROUND).any():
        to_background = ndimage.distance_transform_edt(labels != BACKGROUND)
        result[body & (to_background <= radius)] = BACKGROUND
    return result


def dilate(labels: np.ndarray, radius: float) -> np.ndarray:
    """The body with the background next to it, which takes the nearest region.

    Args:
        labels: uint8 [H, W], region ids, 255 unknown.
        radius: pixels of the background that are no farther from the body, centre to centre.
    Returns:
        uint8 [H, W], a new array; unknown pixels stay unknown.
    """
    body = _body(labels)
    result = labels.copy()
    if body.any():
        to_body, (rows, columns) = ndimage.distance_transform_edt(~body, return_indices=True)
        grown = (labels == BACKGROUND) & (to_body <= radius)
        result[grown] = labels[rows[grown], columns[grown]]
    return result


def _body(labels: np.ndarray) -> np.ndarray:
    return np.asarray((labels != BACKGROUND) & (labels != UNKNOWN))
