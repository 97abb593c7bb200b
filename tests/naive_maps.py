"""Eroded and dilated label maps, pixel by pixel."""

import numpy as np

BACKGROUND, UNKNOWN = 0, 255


def _close(labels, row, column, wanted, radius):
    """Distance and label of each pixel with a wanted label within a radius."""
    found = []
    for other_row, other_column in np.argwhere(wanted):
        distance = np.hypot(other_row - row, other_column - column)
        if distance <= radius:
            found.append((distance, labels[other_row, other_column]))
    return found


def _body(labels):
    return (labels != BACKGROUND) & (labels != UNKNOWN)


def eroded(labels, radius):
    result = labels.copy()
    for row, column in np.argwhere(_body(labels)):
        if _close(labels, row, column, labels == BACKGROUND, radius):
            result[row, column] = BACKGROUND
    return result


def grown(labels, radius):
    """Background pixels that become body when it is dilated."""
    background = np.argwhere(labels == BACKGROUND)
    body = _body(labels)
    return {tuple(place) for place in background if _close(labels, *place, body, radius)}


def nearest(labels, row, column, radius):
    """Labels of the body's pixels that are nearest to one."""
    found = _close(labels, row, column, _body(labels), radius)
    return {label for distance, label in found if distance == min(found)[0]}
