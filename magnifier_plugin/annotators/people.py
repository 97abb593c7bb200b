"""Choosing the target person, whose identity an image is labelled with, among several people.

The target person is in the middle of the image; other people reach in from the sides. The chosen
person is the one with most pixels in the central window, which is half as high and half as wide as
the image; among equals, the one with the highest score. A person much smaller than the largest one,
such as a false detection of a few pixels, is never chosen.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# The choice is ambiguous if another person covers at least this fraction of the chosen person's
# central pixels, or if the chosen person covers less than this fraction of the largest one's area.
AMBIGUOUS_SHARE = 0.5
# A person who covers less than this fraction of the largest one's area is not chosen.
SPECK_SHARE = 0.1


class Extent(NamedTuple):
    """How much of an image one person covers."""

    total: int
    """Pixels in the whole image."""
    central: int
    """Pixels in the central window."""


def extent(mask: np.ndarray) -> Extent:
    """The extent of a person's pixels, bool [H, W]."""
    height, width = mask.shape
    top, left = height // 4, width // 4
    middle = mask[top : height - top, left : width - left]
    return Extent(int(np.count_nonzero(mask)), int(np.count_nonzero(middle)))


def choose_person(people: Sequence[Extent], scores: Sequence[float]) -> tuple[int, str]:
    """Chooses the target person.

    Args:
        people: each person's extent.
        scores: the annotator's score of each person; decides among equals.
    Returns:
        The person's index, and why the choice is ambiguous ("" if it is not).
    Raises:
        ValueError: people is empty.
    """
    if not people:
        raise ValueError("people: expected at least one, got none")
    largest = max(person.total for person in people)
    candidates = [i for i, one in enumerate(people) if one.total >= SPECK_SHARE * largest]
    best = min(candidates, key=lambda i: (-people[i].central, -scores[i]))
    total, central = people[best]
    others = [person for i, person in enumerate(people) if i != best]
    rival = max((person.central for person in others), default=0)
    if not central:
        return best, "no person in the middle of the image"
    if rival >= AMBIGUOUS_SHARE * central:
        return best, (
            f"two people in the middle of the image, with {central} and {rival} pixels there"
        )
    if total < AMBIGUOUS_SHARE * largest:
        return best, f"a larger person next to the chosen one, with {largest} and {total} pixels"
    return best, ""
