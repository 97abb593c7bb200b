"""Degraded label maps, to measure how much a system loses with inexact annotations."""

import numpy as np
from scipy import ndimage

from magnifier_plugin.regions import BACKGROUND, UNKNOWN

_REFERENCE_HEIGHT = 256  # height of the image that radii are stated for, pixels


def scaled_radius(pixels: float, height: int) -> float:
    """Scales a radius from an image of 256 × 128 to one of another height; at least one pixel."""
    return max(1.0, pixels * height / _REFERENCE_HEIGHT)


def erode(labels: np.ndarray, radius: float) -> np.ndarray:
    """Turns the outermost pixels of the body into background.

    Borders between two regions do not change, nor does the body at the image's edge.

    Args:
        labels: uint8 [H, W], region ids, 255 unknown.
        radius: pixels of the body at most this far from a background pixel are eroded; the distance
            is from centre to centre, in pixels.
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
    """Grows the body into the background next to it, which takes the nearest region.

    Args:
        labels: uint8 [H, W], region ids, 255 unknown.
        radius: background pixels at most this far from a pixel of the body are filled; the distance
            is from centre to centre, in pixels.
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
