"""The skeleton: origin and axes of each segment of the body in a pose.

The body's frame has x to the body's left, y up and z to the front. Lengths are fractions of the
stature (Drillis and Contini's proportions), except in `Skeleton`, where they are in metres.
"""

import math
from dataclasses import dataclass

import numpy as np

from magnifier_plugin.synthetic.charts import SEGMENTS
from magnifier_plugin.synthetic.pose import Pose

HIP_HEIGHT = 0.515
NECK_HEIGHT = 0.845
SHOULDER_HEIGHT = 0.797
SIDES = ("left", "right")
_LENGTHS = {
    "torso": 0.365,
    "head": 0.15,
    "upper arm": 0.176,
    "lower arm": 0.148,
    "hand": 0.098,
    "upper leg": 0.238,
    "lower leg": 0.238,
    "foot": 0.145,
}
# By how many degrees a limb's front is turned towards the other side of the body: the palms of
# hanging arms face inwards.
_INWARD = {"upper arm": 18.0, "lower arm": 60.0, "hand": 10.0, "upper leg": 0.0, "lower leg": 0.0}


def length_of(segment: str) -> float:
    """Length of one of charts.SEGMENTS, as a fraction of the stature."""
    return _LENGTHS[segment.removeprefix("left ").removeprefix("right ")]


@dataclass(frozen=True)
class Build:
    """A person's measures."""

    height: float = 1.72
    """Metres."""
    girth: float = 1.0
    """Girth of torso and limbs, relative to the average."""
    shoulders: float = 1.0
    """Width, relative to the average."""
    hips: float = 1.0
    """Width, relative to the average."""


@dataclass(frozen=True)
class Skeleton:
    """Frames of the segments, in the order of charts.SEGMENTS, in metres in the body's frame."""

    origin: np.ndarray
    """float [S, 3], the point with s = 0."""
    axes: np.ndarray
    """float [S, 3, 3], unit vectors as rows: towards w = 0, along s, the direction half 0 faces."""
    length: np.ndarray
    """float [S], distance from s = 0 to s = 1."""

    def point(self, segment: str, along: float, sideways: float = 0.0, ahead: float = 0.0):
        """A point given in a segment's frame, in metres → float [3] in the body's frame."""
        row = SEGMENTS.index(segment)
        return self.origin[row] + np.array([sideways, along, ahead]) @ self.axes[row]

    def frame(self, segment: str) -> np.ndarray:
        """A segment's axes, float [3, 3]."""
        return self.axes[SEGMENTS.index(segment)]


def _turn_forward(degrees: float) -> np.ndarray:
    """Rotation about the body's x axis that swings a hanging limb to the front."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def _turn_left(degrees: float) -> np.ndarray:
    """Rotation about the vertical axis that turns the front to the body's left."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])


def _spread(degrees: float) -> np.ndarray:
    """Rotation about the body's z axis that swings a hanging limb to the body's left."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])


def _limb(side: int, forward: float, outward: float) -> np.ndarray:
    """Axes of a limb (outside, along, front), swung forward and outward; side: 1 left, -1 right.

    The rotations above apply to row vectors: axes @ rotation.
    """
    hanging = np.array([[side, 0, 0], [0, -1, 0], [0, 0, 1]], dtype=float)
    return hanging @ _turn_forward(forward) @ _spread(side * outward)


def _twisted(axes: np.ndarray, degrees: float) -> np.ndarray:
    """A limb's axes with its front turned towards the other side of the body."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    outside, along, front = axes
    return np.stack([c * outside + s * front, along, c * front - s * outside])


def _arm(pose: Pose, build: Build, index: int, side: int) -> dict[str, tuple]:
    trunk = _turn_forward(-pose.lean)
    origin = np.array([side * 0.107 * build.shoulders, SHOULDER_HEIGHT - HIP_HEIGHT, -0.004])
    origin = origin @ trunk + [0, HIP_HEIGHT, 0]
    swing, outward = pose.shoulder[index], pose.shoulder_abduction[index]
    bend = pose.elbow[index]
    # A bent forearm swings in front of the belly, a hanging one only a little.
    angles = {
        "upper arm": (swing, outward),
        "lower arm": (swing + bend, outward * 0.35 - 0.2 * bend),
        "hand": (swing + bend + 4, outward * 0.2 - 0.2 * bend),
    }
    return _chain(origin, angles, side)


def _leg(pose: Pose, build: Build, index: int, side: int) -> dict[str, tuple]:
    origin = np.array([side * 0.05 * build.hips, HIP_HEIGHT, 0.0])
    hip, outward = pose.hip[index], pose.hip_abduction[index]
    angles = {
        "upper leg": (hip, outward),
        "lower leg": (hip - pose.knee[index], outward * 0.5),
    }
    limbs = _chain(origin, angles, side)
    ankle, shank, length = limbs["lower leg"]
    ankle = ankle + shank[1] * length
    # The foot is level unless the heel is lifted, and points a little outward.
    level = np.array([[0, 1, 0], [0, 0, 1], [side, 0, 0]], dtype=float)
    foot = level @ _turn_forward(-pose.foot[index]) @ _turn_left(side * 7)
    heel = ankle + (-0.026 * foot[1] - 0.020 * foot[0])
    limbs["foot"] = heel, foot, length_of("foot")
    return limbs


def _chain(origin, angles: dict[str, tuple[float, float]], side: int) -> dict[str, tuple]:
    """Segments joined end to end: name → (origin, axes, length)."""
    limbs = {}
    for name, (forward, outward) in angles.items():
        axes = _limb(side, forward, outward)
        limbs[name] = origin, _twisted(axes, _INWARD[name]), length_of(name)
        origin = origin + axes[1] * length_of(name)
    return limbs


def _trunk(pose: Pose) -> dict[str, tuple]:
    lean = _turn_forward(-pose.lean)
    torso = np.array([[1, 0, 0], [0, -1, 0], [0, 0, 1]], dtype=float) @ lean
    neck = np.array([0, NECK_HEIGHT - HIP_HEIGHT, 0]) @ lean + [0, HIP_HEIGHT, 0]
    # Rows: towards the face, up, towards the body's left. Leaning does not tilt the head.
    level = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]], dtype=float)
    head = level @ _turn_forward(-pose.head_nod) @ _turn_left(pose.head_yaw)
    return {"torso": (neck, torso, length_of("torso")), "head": (neck, head, length_of("head"))}


def skeleton(pose: Pose, build: Build) -> Skeleton:
    """The frames of a person's segments in a pose.

    Args:
        pose: joint angles.
        build: the person's measures.
    Returns:
        The frames. The hips are at y = HIP_HEIGHT × stature, so the feet need not be on the ground.
    """
    frames = _trunk(pose)
    for index, (name, side) in enumerate(zip(SIDES, (1, -1), strict=True)):
        limbs = _arm(pose, build, index, side) | _leg(pose, build, index, side)
        frames |= {f"{name} {limb}": frame for limb, frame in limbs.items()}
    origin, axes, length = zip(*(frames[name] for name in SEGMENTS), strict=True)
    return Skeleton(
        np.array(origin) * build.height, np.array(axes), np.array(length) * build.height
    )
