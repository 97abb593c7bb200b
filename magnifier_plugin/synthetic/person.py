"""A dressed pedestrian as a layer of the image: colour, coverage and exact IUV."""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from magnifier_plugin.synthetic.body import Garment, Layer, lowest
from magnifier_plugin.synthetic.camera import Camera, View, rotation, sun_direction
from magnifier_plugin.synthetic.charts import to_iuv
from magnifier_plugin.synthetic.fabric import garments, paint
from magnifier_plugin.synthetic.outfit import dress
from magnifier_plugin.synthetic.pose import Pose
from magnifier_plugin.synthetic.raycast import (
    NOTHING,
    Hits,
    Posed,
    cast,
    normals,
    pose_solids,
    surface,
    window,
)
from magnifier_plugin.synthetic.skeleton import skeleton
from magnifier_plugin.synthetic.wardrobe import Wardrobe


class Figure(NamedTuple):
    """A rendered person, pixel by pixel."""

    colour: np.ndarray
    """float32 [3, H, W], sRGB in [0, 1], multiplied by alpha."""
    alpha: np.ndarray
    """float32 [H, W], the fraction of each pixel that is covered."""
    iuv: np.ndarray
    """uint8 [H, W, 3] in the order I, U, V, taken at the pixels' centres."""


def _blank(size: tuple[int, int]) -> Figure:
    """A figure that covers no pixel."""
    light, labels = np.float32, np.uint8
    return Figure(np.zeros((3, *size), light), np.zeros(size, light), np.zeros((*size, 3), labels))


def _finer(view: View, rows: slice, columns: slice) -> View:
    """Samples at the centres and on the edges of the given pixels: 2 n + 1 in each direction.

    They are cut out of the whole image's samples, so that they are bitwise independent of the cut.
    """
    step = np.float32(0.5 / view.scale)
    x = view.x[0] - step + step * np.arange(2 * len(view.x) + 1, dtype=np.float32)
    y = view.y[0] + step - step * np.arange(2 * len(view.y) + 1, dtype=np.float32)
    x[1::2], y[1::2] = view.x, view.y
    x = x[2 * columns.start : 2 * columns.stop + 1]
    y = y[2 * rows.start : 2 * rows.stop + 1]
    return View(x, y, 2 * view.scale, view.pitch)


def _coarser(samples: np.ndarray) -> np.ndarray:
    """Fine samples [..., 2H + 1, 2W + 1] → pixels [..., H, W], with a tent filter."""
    rows = 0.5 * samples[..., 1::2, :]
    rows += 0.25 * (samples[..., :-1:2, :] + samples[..., 2::2, :])
    return 0.5 * rows[..., 1::2] + 0.25 * (rows[..., :-1:2] + rows[..., 2::2])


def _nearness(depth: np.ndarray, reach: int) -> np.ndarray:
    """How much light is blocked by nearer surfaces next to a sample: a cheap ambient occlusion.

    Args:
        depth: float32 [h, w], −inf where there is no surface.
        reach: distance at which neighbours are compared, samples.
    Returns:
        float32 [h, w], 0 (open) to 1 (blocked).
    """
    blocked = np.zeros_like(depth)
    padded = np.pad(depth, reach, constant_values=-np.inf)
    h, w = depth.shape
    with np.errstate(invalid="ignore"):
        for dy, dx in ((-1, 0), (0, -1), (0, 1), (-0.7, -0.7), (-0.7, 0.7)):
            top, left = reach + round(dy * reach), reach + round(dx * reach)
            step = padded[top : top + h, left : left + w] - depth
            blocked += np.clip((step - 0.02) * 9, 0, 1)
    return np.nan_to_num(blocked / 5)


class _Seen(NamedTuple):
    """The N samples that hit a solid."""

    where: np.ndarray
    """int [N], index into the flattened samples."""
    solid: np.ndarray
    """int [N], index into the list of solids."""
    points: np.ndarray
    """float32 [3, N], in the view's frame."""


def _seen(hits: Hits, view: View, among: np.ndarray | bool = True) -> _Seen:
    where = np.flatnonzero((hits.solid != NOTHING) & among)
    rows, columns = np.divmod(where, len(view.x))
    points = np.stack([view.x[columns], view.y[rows], hits.depth.ravel()[where]])
    return _Seen(where, hits.solid.ravel()[where].astype(np.intp), points)


def _light(posed: Posed, hits: Hits, camera: Camera, view: View) -> np.ndarray:
    """Soft light on the person, float32 [H, W], about 1 in the sun; 1 outside the person."""
    where, solid, points = _seen(hits, view)
    normal = normals(posed, solid, points)
    sun = sun_direction(camera, view.pitch)
    facing = sun[0] * normal[0] + sun[1] * normal[1] + sun[2] * normal[2]
    direct = np.clip(0.25 + 0.75 * facing, 0, 1)
    sky = 0.76 + 0.24 * normal[1]
    light = (1 - camera.sunlight) * sky + camera.sunlight * 1.25 * direct + 0.12
    reach = max(1, round(0.055 * view.scale))
    light *= 1 - 0.75 * _nearness(hits.depth, reach).ravel()[where]
    # Creases between solids are not creases of the body, so the light is blurred inside the
    # outline; this also extends it to pixels on the outline whose centres just miss the body.
    plane = np.zeros((2, *hits.solid.shape), dtype=np.float32)
    plane[0].ravel()[where], plane[1].ravel()[where] = light, 1
    plane = ndimage.uniform_filter(plane, (0, 3, 3))
    return np.divide(plane[0], plane[1], out=np.ones_like(plane[0]), where=plane[1] > 0.01)


def _labels(posed: Posed, top: Hits, view: View, wardrobe: Wardrobe) -> np.ndarray:
    """The body's IUV at the pixels' centres; 0 where an object hides it."""
    layer = np.array([solid.layer for solid in posed.solids] + [Layer.OBJECT])  # [-1]: NOTHING
    body = cast(posed, view.x, view.y, (Layer.BODY,)) if Layer.CLOTH in layer else top
    where, solid, points = _seen(body, view, among=layer[top.solid] != Layer.OBJECT)
    place = surface(posed, solid, points)
    iuv = to_iuv(place)
    iuv[garments(place, solid, posed.solids, wardrobe) == Garment.BAG] = 0  # straps on the body
    labels = np.zeros((*top.solid.shape, 3), dtype=np.uint8)
    labels.reshape(-1, 3)[where] = iuv
    return labels


def draw_body(
    wardrobe: Wardrobe, pose: Pose, heading: float, camera: Camera, view: View
) -> np.ndarray:
    """Which pixels show the person's body, bool [H, W]; the arguments are those of `draw_person`.

    These are the pixels that `draw_person` labels, but computed in half the time.
    """
    bones = skeleton(pose, wardrobe.build)
    solids = dress(bones, wardrobe)
    posed = pose_solids(solids, bones, rotation(heading, camera.pitch), -lowest(solids))
    rows, columns = window(posed, view.x, view.y)
    body = np.zeros((len(view.y), len(view.x)), dtype=bool)
    view = view._replace(x=view.x[columns], y=view.y[rows])
    top = cast(posed, view.x, view.y, tuple(Layer))
    body[rows, columns] = _labels(posed, top, view, wardrobe)[..., 0] > 0
    return body


def draw_person(
    wardrobe: Wardrobe, pose: Pose, heading: float, camera: Camera, view: View
) -> Figure:
    """Renders one person at the origin of the image plane.

    Colour is sampled four times as densely as light and labels: patterns and outlines are sharp,
    light is soft, and labels must not be interpolated.

    Args:
        wardrobe: the person's build and clothes.
        pose: the person's pose.
        heading: degrees, see camera.rotation.
        camera: determines the light.
        view: the image plane, sampled at the pixels' centres.
    Returns:
        The figure.
    """
    bones = skeleton(pose, wardrobe.build)
    solids = dress(bones, wardrobe)
    posed = pose_solids(solids, bones, rotation(heading, camera.pitch), -lowest(solids))
    rows, columns = window(posed, view.x, view.y)
    figure = _blank((len(view.y), len(view.x)))
    fine, view = _finer(view, rows, columns), view._replace(x=view.x[columns], y=view.y[rows])
    hits = cast(posed, fine.x, fine.y, tuple(Layer))
    where, solid, points = _seen(hits, fine)
    place = surface(posed, solid, points)
    samples = np.zeros((4, hits.solid.size), dtype=np.float32)
    samples[:3, where] = paint(place, garments(place, solid, solids, wardrobe), wardrobe)
    samples[3, where] = 1
    pixels = _coarser(samples.reshape(4, *hits.solid.shape))
    centres = Hits(hits.depth[1::2, 1::2], hits.solid[1::2, 1::2])
    figure.colour[:, rows, columns] = pixels[:3] * _light(posed, centres, camera, view)
    figure.alpha[rows, columns] = pixels[3]
    figure.iuv[rows, columns] = _labels(posed, centres, view, wardrobe)
    return figure
