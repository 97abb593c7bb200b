"""Choosing one of several people in a picture.

A data set's picture shows the person whose identity it carries in its middle; other people reach in
from the sides. The person is chosen who covers most pixels of the central window, the middle half
of the height and of the width; among equals the one whom the annotator is surest of. A person far
smaller than the largest one, such as a false detection of a few pixels, is not chosen.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Another person who covers at least this share of what the chosen one covers may be the right one.
AMBIGUOUS_SHARE = 0.5
# A person who covers less than this share of what the largest one covers is not chosen.
SPECK_SHARE = 0.1


class Extent(NamedTuple):
    """How much of a picture one person covers."""

    total: int
    """Pixels in the whole picture."""
    central: int
    """Pixels in the middle half of both sides."""


def extent(mask: np.ndarray) -> Extent:
    """The extent of a person's pixels, bool [H, W]."""
    height, width = mask.shape
    top, left = height // 4, width // 4
    middle = mask[top : height - top, left : width - left]
    return Extent(int(np.count_nonzero(mask)), int(np.count_nonzero(middle)))


def choose_person(people: Sequence[Extent], scores: Sequence[float]) -> tuple[int, str]:
    """The person whom a picture is about.

    Args:
        people: each person's extent.
        scores: how sure the annotator is of each; decides among equals.
    Returns:
        The person's index, and why the choice is ambiguous, "" if it is not.
    Raises:
        ValueError: there is no person.
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
        return best, "no person in the middle of the picture"
    if rival >= AMBIGUOUS_SHARE * central:
        return best, (
            f"two people in the middle of the picture, with {central} and {rival} pixels there"
        )
    if total < AMBIGUOUS_SHARE * largest:
        return best, f"a larger person next to this one, with {largest} and {total} pixels"
    return best, ""
