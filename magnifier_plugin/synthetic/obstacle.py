"""Obstacles that hide a pedestrian: a pole, a box, another pedestrian, or the image's edge."""

import math
from dataclasses import dataclass
from typing import cast

import numpy as np

from magnifier_plugin.synthetic.camera import Camera, View
from magnifier_plugin.synthetic.person import draw_person
from magnifier_plugin.synthetic.pose import Pose, random_pose
from magnifier_plugin.synthetic.wardrobe import COLOURS, Wardrobe, random_wardrobe

KINDS = ("pole", "box", "pedestrian", "frame")
_PAINTS = ("charcoal", "grey", "silver", "olive", "brown", "navy", "burgundy", "teal")


@dataclass(frozen=True)
class Obstacle:
    """Something between the camera and the person."""

    kind: str
    """One of KINDS; with `frame`, nothing is in between, but the detector's box cuts off a part of
    the person."""
    right: float = 0.0
    """How far it is to the right of the person, metres."""
    nearer: float = 0.5
    """How much nearer to the camera it is than the person, metres."""
    width: float = 0.0
    """Of a pole or a box, metres."""
    height: float = 0.0
    """Of a pole or a box, metres."""
    colour: str = "grey"
    """A name in wardrobe.COLOURS."""
    stranger: Wardrobe | None = None
    """The clothes of the pedestrian in front."""
    pose: Pose | None = None
    """The pose of the pedestrian in front."""
    heading: float = 0.0
    """The heading of the pedestrian in front, degrees."""


def random_obstacle(kind: str, rng: np.random.Generator) -> Obstacle:
    """Draws an obstacle that hides a large part of a person, but never all of it.

    Args:
        kind: one of KINDS.
        rng: the generator of all random choices.
    Returns:
        The obstacle.
    """
    colour = str(rng.choice(_PAINTS))
    nearer = round(rng.uniform(0.4, 0.9), 2)
    if kind == "pole":
        right, width = round(rng.uniform(-0.16, 0.16), 3), round(rng.uniform(0.08, 0.2), 3)
        return Obstacle(kind, right, nearer, width, 3.0, colour)
    if kind == "box":
        width, height = round(rng.uniform(0.6, 1.6), 2), round(rng.uniform(0.55, 1.05), 2)
        right = round(rng.choice((-1, 1)) * (width / 2 - rng.uniform(0.1, 0.3)), 2)
        return Obstacle(kind, right, nearer, width, height, colour)
    if kind == "pedestrian":
        right = round(rng.choice((-1, 1)) * rng.uniform(0.12, 0.28), 2)
        stranger, heading = random_wardrobe(rng), round(rng.uniform(0, 360), 1)
        pose = random_pose(rng, 0.6)
        return Obstacle(kind, right, nearer, stranger=stranger, pose=pose, heading=heading)
    return Obstacle(kind)


def _pole(obstacle: Obstacle, view: View) -> tuple[np.ndarray, np.ndarray]:
    across = (view.x / np.float32(obstacle.width / 2))[None, :]
    bottom = np.clip(view.y[:, None] * np.float32(view.scale) + 0.5, 0, 1)
    alpha = np.clip((1 - np.abs(across)) * (obstacle.width / 2 * view.scale) + 0.5, 0, 1) * bottom
    shade = 0.5 + 0.5 * np.sqrt(np.clip(1 - (across + 0.3) ** 2, 0, 1))
    bands = 1 - 0.18 * ((view.y[:, None] / 0.9) % 1 < 0.06)
    return shade * bands, alpha


def _box(obstacle: Obstacle, view: View) -> tuple[np.ndarray, np.ndarray]:
    x, y = view.x[None, :], view.y[:, None]
    rim = obstacle.height * math.cos(view.pitch)
    back = rim + 0.55 * math.sin(view.pitch)
    sides = np.clip((obstacle.width / 2 - np.abs(x)) * view.scale + 0.5, 0, 1)
    alpha = sides * np.clip((back - y) * view.scale + 0.5, 0, 1)
    alpha = alpha * np.clip(y * view.scale + 0.5, 0, 1)
    slats = 0.06 * np.cos(y * (math.tau / 0.16)) - 0.12 * (np.abs(x / 0.4 % 1 - 0.5) > 0.46)
    front = 0.72 + 0.12 * y / max(rim, 0.1) + slats
    return np.where(y > rim, 1.12, np.where(y > rim - 0.05, 0.6, front)), alpha


def draw_obstacle(
    obstacle: Obstacle, camera: Camera, view: View
) -> tuple[np.ndarray, np.ndarray] | None:
    """Renders an obstacle into the image of the person that it hides.

    Args:
        obstacle: what to draw.
        camera: determines the light.
        view: the image plane of the person.
    Returns:
        Colour multiplied by alpha, float32 [3, H, W], and alpha [H, W]; None for the kind `frame`.
    """
    view = view.moved(obstacle.right, obstacle.nearer)
    if obstacle.kind == "frame":
        return None
    if obstacle.kind == "pedestrian":
        stranger, pose = cast(Wardrobe, obstacle.stranger), cast(Pose, obstacle.pose)
        figure = draw_person(stranger, pose, obstacle.heading, camera, view)
        return figure.colour, figure.alpha
    shade, alpha = (_pole if obstacle.kind == "pole" else _box)(obstacle, view)
    colour = np.array(COLOURS[obstacle.colour], dtype=np.float32)[:, None, None] / 255
    return (colour * (shade * alpha)).astype(np.float32), alpha.astype(np.float32)
