"""The proportions of a body: the distances between its joints and the widths of its limbs.

All are fractions of the stature. The lengths follow Drillis and Contini (1966); the widths are
those of clothed people, fitted to the exact label maps of rendered people
(`scripts/benchmark.py masks`).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse.csgraph import shortest_path

from magnifier_plugin.annotators.joints import JOINTS

SIDES = ("left", "right")
# The head's position is that of the ears or, if they were not found, that of the face.
EARS, FACE = ("left ear", "right ear"), ("nose", "left eye", "right eye")
HEAD = "head"
NODES = (HEAD, *(joint for joint in JOINTS if joint not in (*EARS, *FACE)))


class Widths(NamedTuple):
    """Radii of limbs at their joints, and how far parts reach beyond joints."""

    skull: float = 0.054
    jaw: float = 0.050
    neck: float = 0.026
    shoulder: float = 0.034
    elbow: float = 0.032
    wrist: float = 0.021
    knuckles: float = 0.018
    hand: float = 0.075
    """Length of the hand beyond the wrist."""
    hip: float = 0.060
    knee: float = 0.045
    ankle: float = 0.027
    foot: float = 0.019
    chest: float = 0.048
    """Radius of the trunk's upper corners."""
    waist: float = 0.045
    """Radius of the trunk's lower corners."""
    chest_inset: float = 0.40
    """How far the upper corners are moved from the shoulders towards their midpoint, 0..1."""
    waist_inset: float = 0.30
    """How far the lower corners are moved from the hips towards their midpoint, 0..1."""
    rise: float = 0.028
    """How far the lower corners are above the hips."""


WIDTHS = Widths()

_LENGTHS = {
    ("shoulder", "elbow"): 0.176,
    ("elbow", "wrist"): 0.148,
    ("shoulder", "hip"): 0.282,
    ("hip", "knee"): 0.238,
    ("knee", "ankle"): 0.238,
    ("ankle", "heel"): 0.050,
    ("ankle", "big toe"): 0.130,
    ("ankle", "small toe"): 0.120,
}
# From the left joint to the right one.
_ACROSS = {"shoulder": 0.214, "hip": 0.100}
_HEAD_TO_SHOULDER = 0.165

# Neighbouring joints → the distance between them.
BONES: Mapping[tuple[str, str], float] = {
    **{
        (f"{side} {a}", f"{side} {b}"): length
        for (a, b), length in _LENGTHS.items()
        for side in SIDES
    },
    **{(f"left {name}", f"right {name}"): length for name, length in _ACROSS.items()},
    **{(HEAD, f"{side} shoulder"): _HEAD_TO_SHOULDER for side in SIDES},
}
# Bones that show a person's size in any pose. Feet are too short for it, and the distances between
# left and right joints vary with the direction that the person faces.
MEASURES = tuple(
    (f"{side} {a}", f"{side} {b}") for a, b in _LENGTHS if a != "ankle" for side in SIDES
)


def _distances() -> np.ndarray:
    """float [N, N]: the distance along the bones between any two of NODES."""
    lengths = np.zeros((len(NODES), len(NODES)))
    for (a, b), length in BONES.items():
        lengths[NODES.index(a), NODES.index(b)] = length
    distances: np.ndarray = shortest_path(lengths, directed=False)
    return distances


DISTANCES = _distances()
# The vertical order of the joints in a standing person; elbows and wrists can be anywhere.
LEVELS = {HEAD: 0, "shoulder": 1, "hip": 2, "knee": 3, "ankle": 4, "toe": 5, "heel": 5}


def level(joint: str) -> int | None:
    """The joint's entry in LEVELS, None for elbows and wrists."""
    return LEVELS.get(joint.rpartition(" ")[2])


def definition() -> dict[str, Any]:
    """All proportions as plain JSON types."""
    bones = {f"{a}, {b}": length for (a, b), length in BONES.items()}
    return {"widths": WIDTHS._asdict(), "bones": bones}
