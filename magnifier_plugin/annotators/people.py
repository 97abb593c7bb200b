"""Several people in one picture: which one is it about?

A data set's picture shows the person whose identity it carries in its middle; neighbours reach in
from the sides. So the person is taken who covers most pixels of the central window, the middle
half of the height and of the width; among equals the one the annotator is surest of.
"""

from collections.abc import Sequence

import numpy as np

# Where the runner-up covers at least this share of what the chosen one covers, it may be the other.
DOUBTFUL_SHARE = 0.5


def central_pixels(mask: np.ndarray) -> int:
    """How many pixels of a person, bool [H, W], lie in the middle half of both sides."""
    height, width = mask.shape
    top, left = height // 4, width // 4
    return int(np.count_nonzero(mask[top : height - top, left : width - left]))


def choose_person(central: Sequence[int], scores: Sequence[float]) -> tuple[int, str]:
    """The person a picture is about.

    Args:
        central: for each person, the pixels in the central window (`central_pixels`).
        scores: for each person, how sure the annotator is; decides among equals.
    Returns:
        The person's index, and why the choice is doubtful, "" where it is not.
    Raises:
        ValueError: there is nobody.
    """
    if not central:
        raise ValueError("nobody to choose from")
    ranking = sorted(range(len(central)), key=lambda i: (-central[i], -scores[i]))
    best, *others = ranking
    if not central[best]:
        return best, "nobody reaches into the middle of the picture"
    if others and central[others[0]] >= DOUBTFUL_SHARE * central[best]:
        return best, (
            f"two people in the middle of the picture, with {central[best]} and "
            f"{central[others[0]]} pixels there"
        )
    return best, ""
