"""The body as solids: tapered, partly flattened capsules around the bones of a skeleton."""

from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

import numpy as np

from magnifier_plugin.synthetic.skeleton import SIDES, Build, Skeleton, length_of


class Layer(IntEnum):
    """The role of a solid in DensePose's labels."""

    BODY = 0  # labelled
    CLOTH = 1  # hangs loose; the body under it is labelled
    OBJECT = 2  # not part of the body; hides the body under it


class Garment(IntEnum):
    """What covers a point of the body, or of a solid that hangs on it."""

    SKIN = 0
    TOP = 1
    BOTTOM = 2
    SHOES = 3
    HAIR = 4
    BAG = 5
    INNER = 6  # the shirt in an open jacket
    DARK = 7  # eyes, brows, mouth


@dataclass(frozen=True)
class Solid:
    """A tapered capsule, the union of all balls between two balls, flattened along one axis."""

    start: np.ndarray
    """float [3], centre of the first ball, metres."""
    end: np.ndarray
    """float [3], centre of the second ball; it must differ from the first."""
    radii: tuple[float, float]
    """Radii of the two balls, metres; they differ by less than the distance of the centres."""
    side: np.ndarray
    """float [3], not along the capsule: the direction in which it is not flattened."""
    segment: str
    """A name in charts.SEGMENTS; its frame gives s and w."""
    squash: float = 1.0
    """Thickness across `side`, relative to the width."""
    layer: Layer = Layer.BODY
    garment: Garment | None = None
    """What covers it; None: it depends on the segment."""
    hollow: bool = False
    """Whether it is an open tube without the balls at its ends."""


@dataclass(frozen=True)
class Looseness:
    """The distance of the garments from the skin, as fractions of the stature."""

    torso: float = 0.004
    arm: float = 0.004
    leg: float = 0.005


def _torso(bones: Skeleton, build: Build, loose: Looseness) -> list[Solid]:
    h, g = build.height, build.girth
    side = bones.frame("torso")[0]
    # Rings (along, radius, ahead) as fractions of the stature; `along` runs down from the neck.
    waist, chest = 0.074 * g, 0.088 * (0.5 * g + 0.5 * build.shoulders)
    rings = [
        (0.100, chest, 0.000),
        (0.195, waist + 0.004, 0.004),
        (0.285, 0.5 * (waist + 0.090 * build.hips * g), 0.002),
        (0.325, 0.088 * build.hips * g, -0.003),
    ]
    solids = []
    for (upper, r0, front0), (lower, r1, front1) in pairwise(rings):
        start = bones.point("torso", upper * h, 0, front0 * h)
        end = bones.point("torso", lower * h, 0, front1 * h)
        radii = ((r0 + loose.torso) * h, (r1 + loose.torso) * h)
        solids.append(Solid(start, end, radii, side, "torso", 0.62))
    width = 0.107 * build.shoulders
    for sign in (1, -1):
        # The trapezius and the collarbone slope from the neck to the shoulder; the chest muscle
        # rounds the front, the buttock the back.
        neck = bones.point("torso", 0.012 * h, sign * 0.012 * h, -0.010 * h)
        shoulder = bones.point("torso", 0.043 * h, sign * (width - 0.012) * h, -0.006 * h)
        radii = (0.030 * h, (0.030 * g + loose.torso) * h)
        solids.append(Solid(neck, shoulder, radii, side, "torso", 0.95))
        chest_top = bones.point("torso", 0.085 * h, sign * 0.044 * h, 0.012 * h)
        chest_low = bones.point("torso", 0.125 * h, sign * 0.040 * h, 0.015 * h)
        radii = ((0.043 * g + loose.torso) * h, (0.040 * g + loose.torso) * h)
        solids.append(Solid(chest_top, chest_low, radii, side, "torso", 0.9))
        seat = bones.point("torso", 0.318 * h, sign * 0.042 * h, -0.014 * h)
        end = bones.point("torso", 0.345 * h, sign * 0.044 * h, -0.012 * h)
        radii = ((0.050 * g + loose.torso) * h, (0.046 * g + loose.torso) * h)
        solids.append(Solid(seat, end, radii, side, "torso", 0.9))
    return solids


def _head(bones: Skeleton, build: Build) -> list[Solid]:
    h = build.height
    front, up, left = bones.frame("head")
    shoulders = bones.point("torso", 0.015 * h, 0, -0.006 * h)
    jaw = bones.point("head", 0.060 * h, 0.012 * h)
    skull = bones.point("head", 0.104 * h, 0.004 * h)
    throat = bones.point("head", 0.050 * h, -0.002 * h)
    nose = bones.point("head", 0.083 * h, 0.058 * h)
    tip = bones.point("head", 0.073 * h, 0.062 * h)
    solids = [
        Solid(shoulders, throat, (0.033 * h, 0.029 * h), left, "head"),
        Solid(jaw, skull, (0.034 * h, 0.046 * h), left, "head", 1.22),
        Solid(nose, tip, (0.005 * h, 0.008 * h), left, "head"),
    ]
    for sign in (1, -1):
        ear = bones.point("head", 0.078 * h, 0.0, sign * 0.043 * h)
        lobe = ear + up * 0.014 * h
        solids.append(Solid(ear, lobe, (0.007 * h, 0.009 * h), front, "head", 0.6))
    return solids


def _limb(
    bones: Skeleton,
    build: Build,
    segment: str,
    radii: tuple[float, float],
    squash: float = 1.0,
    trim: tuple[float, float] = (0.0, 0.0),
) -> Solid:
    """A capsule along a segment; radii and `trim` at its two ends are fractions of the stature."""
    h = build.height
    length = length_of(segment)
    start = bones.point(segment, trim[0] * h)
    end = bones.point(segment, (length - trim[1]) * h)
    side = bones.frame(segment)[0]
    return Solid(start, end, (radii[0] * h, radii[1] * h), side, segment, squash)


def _arm(bones: Skeleton, build: Build, side: str, loose: Looseness) -> list[Solid]:
    g, cloth = build.girth, loose.arm
    hand = bones.frame(f"{side} hand")
    h = build.height
    wrist = bones.point(f"{side} hand", 0.012 * h)
    knuckles = bones.point(f"{side} hand", 0.078 * h)
    thumb = bones.point(f"{side} hand", 0.026 * h, 0, 0.006 * h)
    tip = bones.point(f"{side} hand", 0.058 * h, -0.008 * h, 0.026 * h)
    return [
        _limb(
            bones, build, f"{side} upper arm", (0.032 * g + cloth, 0.025 * g + cloth), 1, (0.006, 0)
        ),
        _limb(bones, build, f"{side} lower arm", (0.025 * g + cloth, 0.018 * g + 0.7 * cloth)),
        # The palm is flattened in the direction that it faces.
        Solid(wrist, knuckles, (0.019 * h, 0.017 * h), hand[2], f"{side} hand", 0.6),
        Solid(thumb, tip, (0.009 * h, 0.007 * h), hand[2], f"{side} hand"),
    ]


def _leg(bones: Skeleton, build: Build, side: str, loose: Looseness) -> list[Solid]:
    g, h, cloth = build.girth, build.height, loose.leg
    thigh = (0.055 * (0.5 * g + 0.5 * build.hips) + cloth, 0.037 * g + cloth)
    shin = (0.036 * g + cloth, 0.023 * g + cloth)
    calf_top = bones.point(f"{side} lower leg", 0.050 * h, 0, -0.011 * h)
    calf_low = bones.point(f"{side} lower leg", 0.095 * h, 0, -0.009 * h)
    calf = ((0.031 * g + cloth) * h, (0.028 * g + cloth) * h)
    top = bones.frame(f"{side} foot")[0]
    # The foot: a sole that narrows to the toe, and the instep above it.
    heel = bones.point(f"{side} foot", 0.026 * h, 0.001 * h)
    toe = bones.point(f"{side} foot", 0.122 * h, -0.008 * h)
    ankle = bones.point(f"{side} foot", 0.030 * h, 0.020 * h)
    instep = bones.point(f"{side} foot", 0.080 * h, 0.001 * h)
    across = bones.frame(f"{side} foot")[2]
    return [
        _limb(bones, build, f"{side} upper leg", thigh, 1, (0.004, 0)),
        _limb(bones, build, f"{side} lower leg", shin, 1, (0, 0.012)),
        Solid(calf_top, calf_low, calf, across, f"{side} lower leg"),
        Solid(heel, toe, (0.024 * h, 0.024 * h), across, f"{side} foot", 0.72),
        Solid(ankle, instep, (0.024 * h, 0.021 * h), top, f"{side} foot", 1.0),
    ]


def body(bones: Skeleton, build: Build, loose: Looseness | None = None) -> list[Solid]:
    """The solids of a body with close-fitting clothes.

    Args:
        bones: the frames of the person's segments in a pose.
        build: the person's measures.
        loose: how loose the clothes are; None: the defaults of Looseness.
    Returns:
        About thirty solids, all in Layer.BODY.
    """
    loose = loose or Looseness()
    solids = _torso(bones, build, loose) + _head(bones, build)
    for side in SIDES:
        solids += _arm(bones, build, side, loose) + _leg(bones, build, side, loose)
    return solids


def lowest(solids: list[Solid]) -> float:
    """The lowest point of the balls of upright solids: its y, metres."""
    return min(
        float(centre[1]) - radius * min(1.0, solid.squash)
        for solid in solids
        for centre, radius in zip((solid.start, solid.end), solid.radii, strict=True)
    )
