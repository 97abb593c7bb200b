"""What looks wrong in one label map: its body's size, place and order, and left and right."""

from collections.abc import Sequence

import numpy as np

from magnifier_plugin.regions import BODY_REGIONS, PARTS, REGIONS

# A body with a smaller share of the picture is odd.
SMALL_BODY = 0.03
# A body whose middle is within this share of the width from a side is probably another person's.
SIDE = 0.2
# Regions in their order from top to bottom in a person who stands, walks or sits.
_DOWNWARDS = ("head", "chest", "upper leg", "lower leg", "foot")
# By how much, in heights of the picture, the lower of two may be higher; for left and right in
# widths.
_TOLERANCE = 0.05
_TORSO_BACK, _TORSO_FRONT = (PARTS.index(f"torso {side}") for side in ("back", "front"))
# Part ids of the limbs of each side; a head turns by itself.
_LEFT, _RIGHT = (
    [i for i, part in enumerate(PARTS) if side in part.split() and "head" not in part]
    for side in ("left", "right")
)
# One side of the torso must be this many times as visible to show where the person faces.
_FACING = 4


def oddities(labels: np.ndarray, regions: Sequence[int]) -> list[str]:
    """What is odd in a label map.

    Args:
        labels: uint8 [H, W], region ids.
        regions: the body regions that count as visible in it, at least one.
    Returns:
        The oddities in words; empty if there are none.
    """
    height, width = labels.shape
    body = np.isin(labels, BODY_REGIONS)
    found = []
    if body.mean() < SMALL_BODY:
        found.append(f"the body covers {body.mean():.1%} of the picture")
    middle = np.nonzero(body)[1].mean() / width
    if not SIDE <= middle <= 1 - SIDE:
        found.append(f"the body is at the {'left' if middle < SIDE else 'right'} side")
    downwards = [name for name in _DOWNWARDS if REGIONS.index(name) in regions]
    rows = [np.nonzero(labels == REGIONS.index(name))[0].mean() / height for name in downwards]
    for upper, lower, above, below in zip(downwards, downwards[1:], rows, rows[1:], strict=False):
        if below < above - _TOLERANCE:
            found.append(f"{lower} above {upper}")
    return found


def sides_may_be_swapped(parts: np.ndarray) -> bool:
    """Whether the body's left and right limbs are where those of a mirrored person would be.

    A person who shows the front of the torso has the body's right limbs on the picture's left.
    Arms that cross the body and side views look swapped too: this is a hint, not a fault.

    Args:
        parts: uint8 [H, W], DensePose's parts.
    """
    back, front = (int((parts == torso).sum()) for torso in (_TORSO_BACK, _TORSO_FRONT))
    if max(back, front) < _FACING * max(min(back, front), 1):
        return False
    left, right = (np.nonzero(np.isin(parts, side))[1] for side in (_LEFT, _RIGHT))
    if not left.size or not right.size:
        return False
    # Positive if the body's left is on the picture's right, as in a person who faces the camera.
    lead = (left.mean() - right.mean()) / parts.shape[1] * (1 if front > back else -1)
    return bool(lead < -_TOLERANCE)
