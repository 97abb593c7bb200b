"""Rays against solids: the solid that each sample of the image plane hits first.

The view's frame has x to the image's right, y up and z towards the camera, in metres; rays run
along −z (a weak perspective: the camera is far away). In a solid's own frame, divided by its
flattening, a solid is a rounded cone, and the ray's hit a root of a quadratic (Quilez, "rounded
cone intersection", for a direction of any length).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from magnifier_plugin.synthetic.body import Layer, Solid
from magnifier_plugin.synthetic.charts import SEGMENTS, Surface
from magnifier_plugin.synthetic.skeleton import Skeleton

NOTHING = -1


class Hits(NamedTuple):
    """The nearest solid at each sample."""

    depth: np.ndarray
    """float32 [h, w], view z; −inf if there is no solid."""
    solid: np.ndarray
    """int16 [h, w], index into the list of solids; NOTHING if there is none."""


class Posed(NamedTuple):
    """K solids and S segments in the view's frame, as tables of float32."""

    solids: list[Solid]
    """K solids, in the body's frame."""
    start: np.ndarray
    """[K, 3]"""
    shape: np.ndarray
    """[K, 3, 3], view → the solid's frame: rows side, along, flat / squash."""
    length: np.ndarray
    """[K]"""
    radii: np.ndarray
    """[K, 2]"""
    segment: np.ndarray
    """int [K], index into charts.SEGMENTS."""
    origin: np.ndarray
    """[S, 3]"""
    chart: np.ndarray
    """[S, 3, 3], view → the segment's frame: rows towards w = 0, s, towards half 0."""


def pose_solids(solids: list[Solid], bones: Skeleton, view: np.ndarray, lift: float) -> Posed:
    """Transforms solids and chart frames into the view's frame.

    Args:
        solids: in the body's frame.
        bones: the skeleton they hang on.
        view: float [3, 3], rotation body → view.
        lift: metres to raise the body by, so that its feet are on the ground.
    Returns:
        The tables.
    """
    up = np.array([0, lift, 0])
    start = np.array([solid.start for solid in solids]) + up
    end = np.array([solid.end for solid in solids]) + up
    length = np.linalg.norm(end - start, axis=1)
    along = (end - start) / length[:, None]
    flat = np.cross([solid.side for solid in solids], along)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    thickness = np.array([solid.squash for solid in solids])[:, None]
    shape = np.stack([np.cross(along, flat), along, flat / thickness], axis=1)
    chart = bones.axes.copy()
    chart[:, 1] /= bones.length[:, None]
    chart[SEGMENTS.index("torso"), 2] /= 0.66  # so that w is even round the flat torso
    radii = np.array([solid.radii for solid in solids])
    origin = (bones.origin + up) @ view.T
    segment = np.array([SEGMENTS.index(solid.segment) for solid in solids])
    return Posed(
        solids,
        start=(start @ view.T).astype(np.float32),
        shape=(shape @ view.T).astype(np.float32),
        length=length.astype(np.float32),
        radii=radii.astype(np.float32),
        segment=segment,
        origin=origin.astype(np.float32),
        chart=(chart @ view.T).astype(np.float32),
    )


def _windows(posed: Posed, x: np.ndarray, y: np.ndarray) -> list[tuple[slice, slice]]:
    """For each solid the rows and columns of samples that it can cover; x rises, y falls."""
    axes = np.linalg.inv(posed.shape)[:, :2]  # [K, 2, 3]: the flattened axes in the picture
    spread = np.sqrt((axes**2).sum(axis=2))[:, None] * posed.radii[:, :, None]  # [K, 2 balls, 2]
    end = posed.start[:, :2] + axes[:, :, 1] * posed.length[:, None]
    balls = np.stack([posed.start[:, :2], end], axis=1)
    low, high = (balls - spread).min(axis=1), (balls + spread).max(axis=1)
    first, last = np.searchsorted(x, low[:, 0]), np.searchsorted(x, high[:, 0], "right")
    columns = map(slice, first, last)
    first, last = np.searchsorted(-y, -high[:, 1]), np.searchsorted(-y, -low[:, 1], "right")
    return list(zip(map(slice, first, last), columns, strict=True))


def window(posed: Posed, x: np.ndarray, y: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of the pixels, centres at x [w] and y [h], that any solid may touch.

    One more on each side, because an outline also reaches pixels whose centres it misses; so the
    window is never empty.
    """
    rows, columns = zip(*_windows(posed, x, y), strict=True)
    return _union(rows), _union(columns)


def _union(parts: Sequence[slice]) -> slice:
    """What covers all parts, and one more on each side."""
    return slice(max(0, min(part.start for part in parts) - 1), max(p.stop for p in parts) + 1)


def _depth(posed: Posed, k: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """View z of a solid's surface at samples x [w], y [h] → float32 [h, w], NaN where missed."""
    shape, length = posed.shape[k], posed.length[k]
    r0, r1 = posed.radii[k]
    ray = shape[:, 2]
    x, y = x - posed.start[k, 0], (y - posed.start[k, 1])[:, None]
    # Products of the sample's offset o in the solid's frame, as forms in x and y: o's height on
    # the axis, o · ray, o · o.
    along = shape[1, 0] * x + shape[1, 1] * y
    (xx, xy, xz), (_, yy, yz), (_, _, a) = shape.T @ shape
    b = xz * x + yz * y
    c = xx * x * x + yy * y * y + (2 * xy * x) * y
    # The two balls ...
    if posed.solids[k].hollow:
        depth = np.full_like(c, np.nan)
    else:
        b1 = b - length * ray[1]
        ball = np.sqrt(b * b - a * (c - r0 * r0)) - b
        depth = np.sqrt(b1 * b1 - a * (c - (2 * length) * along + (length**2 - r1 * r1))) - b1
        depth = np.fmax(ball, depth) / a
    # ... and the cone that touches both, between the circles where it does.
    taper = r0 - r1
    inside = length**2 - taper**2
    k2 = inside * a - (length * ray[1]) ** 2
    if k2 > 1e-9:
        k1 = inside * b + (length * ray[1]) * (taper * r0 - length * along)
        k0 = inside * c - (length * along) ** 2 + length * r0 * (2 * taper * along - length * r0)
        cone = (np.sqrt(k1 * k1 - k2 * k0) - k1) / k2
        height = length * (along + cone * ray[1]) - r0 * taper
        cone[(height < 0) | (height > inside)] = np.nan
        depth = np.fmax(depth, cone)
    return depth + posed.start[k, 2]


def cast(posed: Posed, x: np.ndarray, y: np.ndarray, layers: tuple[Layer, ...]) -> Hits:
    """The nearest solid at every sample.

    Args:
        posed: the solids.
        x: float32 [w], the samples' view x, rising, metres.
        y: float32 [h], their view y, falling.
        layers: solids of other layers are left out.
    Returns:
        The hits, [h, w].
    """
    depth = np.full((len(y), len(x)), -np.inf, dtype=np.float32)
    nearest = np.full(depth.shape, NOTHING, dtype=np.int16)
    with np.errstate(invalid="ignore"):
        for k, (rows, columns) in enumerate(_windows(posed, x, y)):
            if posed.solids[k].layer not in layers:
                continue
            found = _depth(posed, k, x[columns], y[rows])
            nearer = found > depth[rows, columns]
            np.copyto(depth[rows, columns], found, where=nearer)
            np.copyto(nearest[rows, columns], np.int16(k), where=nearer)
    return Hits(depth, nearest)


def _take(table: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Rows of a table [K, 3] as contiguous columns: [3, N]."""
    return np.take(np.ascontiguousarray(table.T), index, axis=1)


def _dot(rows: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Row-wise products: [3, N] · [3, N] → [N]."""
    return rows[0] * points[0] + rows[1] * points[1] + rows[2] * points[2]


def surface(posed: Posed, solid: np.ndarray, points: np.ndarray) -> Surface:
    """Segment and coordinates of points on solids.

    Args:
        posed: the solids.
        solid: int [N].
        points: float32 [3, N], in the view's frame.
    Returns:
        Their places on the body.
    """
    segment = posed.segment[solid]
    offset = points - _take(posed.origin, segment)
    side, s, face = (_dot(_take(posed.chart[:, i], segment), offset) for i in range(3))
    w = np.abs(np.arctan2(face, side)) * np.float32(1 / np.pi)
    return Surface(segment, s, w, (face < 0).astype(np.intp))


def normals(posed: Posed, solid: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Outward unit normals, in the view's frame, of points on solids: float32 [3, N]."""
    offset = points - _take(posed.start, solid)
    shape = [_take(posed.shape[:, i], solid) for i in range(3)]
    side, along, flat = (_dot(row, offset) for row in shape)
    # The ball that touches the cone at a point has its centre a little off the foot of the
    # perpendicular, by the taper.
    taper = posed.radii[:, 0] - posed.radii[:, 1]
    slope = taper / np.sqrt(np.maximum(posed.length**2 - taper**2, np.float32(1e-9)))
    centre = along - np.sqrt(side * side + flat * flat) * slope[solid]
    along = along - np.clip(centre, 0, posed.length[solid])
    normal = shape[0] * side + shape[1] * along + shape[2] * flat
    return normal / np.sqrt(_dot(normal, normal))
