"""A pedestrian's pose: joint angles when standing and during the gait cycle."""

import math
from dataclasses import dataclass

import numpy as np

# Degrees at full stride, from gait studies: swing of hip and shoulder, flexion of the lifted knee.
_HIP_SWING = 26.0
_ARM_SWING = 24.0
_KNEE_BEND = 50.0


@dataclass(frozen=True)
class Pose:
    """Joint angles in degrees; a pair is (left, right). With all angles 0 the body is straight."""

    hip: tuple[float, float] = (0.0, 0.0)
    """Thigh forward."""
    hip_abduction: tuple[float, float] = (2.0, 2.0)
    """Thigh outward."""
    knee: tuple[float, float] = (0.0, 0.0)
    """Flexion."""
    foot: tuple[float, float] = (0.0, 0.0)
    """Toes down."""
    shoulder: tuple[float, float] = (0.0, 0.0)
    """Upper arm forward."""
    shoulder_abduction: tuple[float, float] = (9.0, 9.0)
    """Upper arm outward."""
    elbow: tuple[float, float] = (10.0, 10.0)
    """Flexion."""
    lean: float = 0.0
    """Trunk forward."""
    head_yaw: float = 0.0
    """Head to the body's left."""
    head_nod: float = 0.0
    """Head down."""


def _leg(phase: float, stride: float) -> tuple[float, float, float]:
    """Angles of hip, knee and foot at a phase of the cycle: 0 is heel strike, π toe-off."""
    hip = stride * _HIP_SWING * (math.cos(phase) + 0.12)
    in_the_air = max(0.0, math.sin(phase - 0.82 * math.pi)) ** 1.5
    knee = 4 + stride * (6 + _KNEE_BEND * in_the_air)
    push_off = max(0.0, math.sin(phase - 0.55 * math.pi)) ** 2
    foot = stride * (38 * push_off - 14 * max(0.0, math.cos(phase)) ** 3)
    return hip, knee, foot


def _arm(phase: float, stride: float) -> tuple[float, float]:
    """Angles of shoulder and elbow; the arm swings opposite to the leg of its side."""
    swing = -math.cos(phase)
    return stride * _ARM_SWING * swing - 2, 12 + stride * (10 + 14 * swing)


def walk(phase: float, stride: float) -> Pose:
    """The pose at a phase of the gait cycle.

    Args:
        phase: radians; 0 is the left heel strike, π the right one.
        stride: 0 is standing, 1 is walking briskly.
    Returns:
        The pose, with the head straight ahead.
    """
    legs = [_leg((phase + shift) % math.tau, stride) for shift in (0.0, math.pi)]
    arms = [_arm(phase + shift, stride) for shift in (0.0, math.pi)]
    hip, knee, foot = zip(*legs, strict=True)
    shoulder, elbow = zip(*arms, strict=True)
    return Pose(hip, (2.0, 2.0), knee, foot, shoulder, (9.0, 9.0), elbow, lean=3.0 * stride)


def random_pose(rng: np.random.Generator, longest: float = 1.05) -> Pose:
    """Draws a pose: four in five pedestrians walk, one in five stands; some hold a telephone.

    Args:
        rng: the generator of all random choices.
        longest: the longest stride, as in `walk`; shorter in a skirt.
    Returns:
        The pose, with angles rounded to a tenth of a degree.
    """
    stride = longest * (rng.uniform(0.55, 1) if rng.random() < 0.8 else rng.uniform(0, 0.15))
    pose = walk(rng.uniform(0, math.tau), stride)
    shoulder, elbow = list(pose.shoulder), list(pose.elbow)
    if rng.random() < 0.2:
        shoulder[1], elbow[1] = rng.uniform(5, 30), rng.uniform(80, 125)
    spread, reach = rng.uniform(6, 14, 2), rng.uniform(1, 5, 2)
    return Pose(
        hip=_rounded(pose.hip),
        hip_abduction=_rounded(reach),
        knee=_rounded(pose.knee),
        foot=_rounded(pose.foot),
        shoulder=_rounded(shoulder),
        shoulder_abduction=_rounded(spread),
        elbow=_rounded(elbow),
        lean=round(pose.lean + rng.uniform(-2, 3), 1),
        head_yaw=round(float(np.clip(rng.normal(0, 16), -50, 50)), 1),
        head_nod=round(rng.uniform(-5, 14), 1),
    )


def _rounded(pair) -> tuple[float, float]:
    left, right = pair
    return round(float(left), 1), round(float(right), 1)
