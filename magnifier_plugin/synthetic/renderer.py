"""Rendering of one image: a pedestrian in a street, seen by a camera, with the exact IUV."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from magnifier_plugin.synthetic.camera import Camera, develop, look
from magnifier_plugin.synthetic.obstacle import Obstacle, draw_obstacle
from magnifier_plugin.synthetic.person import draw_person
from magnifier_plugin.synthetic.pose import Pose
from magnifier_plugin.synthetic.street import shadow, street
from magnifier_plugin.synthetic.wardrobe import Wardrobe

# To be increased whenever the same options give other bytes; rendered folders record it.
VERSION = 1


@dataclass(frozen=True)
class Scene:
    """The parameters that vary between the images of one person in one camera."""

    pose: Pose
    heading: float
    """Degrees, see camera.rotation."""
    zoom: float
    """Zoom of the detector's box, see camera.look."""
    shift: tuple[float, float]
    """Shift of the person in the box, see camera.look."""
    obstacle: Obstacle | None
    """What hides a part of the person; None: nothing."""
    seed: tuple[int, ...]
    """Seed of the street's clutter and the sensor's noise."""


class Picture(NamedTuple):
    """A rendered image and its labels."""

    photo: np.ndarray
    """uint8 [H, W, 3], RGB."""
    iuv: np.ndarray
    """uint8 [H, W, 3] in the order I, U, V."""


def render(scene: Scene, wardrobe: Wardrobe, camera: Camera, size: tuple[int, int]) -> Picture:
    """Renders one image and its labels; the same arguments give the same bytes.

    Args:
        scene: pose, heading, box, obstacle.
        wardrobe: build and clothes of the person.
        camera: the camera.
        size: height and width, pixels.
    Returns:
        Photo and IUV; I is 0 where something hides the body.
    """
    rng = np.random.default_rng(scene.seed)
    stature = wardrobe.build.height
    view = look(camera, stature, size, scene.zoom, scene.shift)
    light = street(camera, view, rng) * shadow(camera, view, stature)
    person = draw_person(wardrobe, scene.pose, scene.heading, camera, view)
    light += person.colour - light * person.alpha
    iuv = person.iuv
    hidden = draw_obstacle(scene.obstacle, camera, view) if scene.obstacle else None
    if hidden is not None:
        colour, alpha = hidden
        light += colour - light * alpha
        iuv[alpha >= 0.5] = 0
    return Picture(develop(light, camera, rng), iuv)
