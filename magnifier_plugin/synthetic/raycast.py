"""Ray casting: the solid that the ray through each sample of the image plane hits first.

The view's frame has x to the image's right, y up and z towards the camera, in metres; rays run
along −z (weak perspective: the camera is far away). In a solid's own frame, scaled to undo its
flattening, the solid is a rounded cone, and the ray's hit is a root of a quadratic equation
(Quilez, "rounded cone intersection", here for a direction of any length).
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
    """float32 [h, w], z in the view's frame; −inf if there is no solid."""
    solid: np.ndarray
    """int16 [h, w], index into the list of solids; NOTHING if there is none."""


class Posed(NamedTuple):
    """K solids and S segments in the view's frame, as tables of float32."""

    solids: list[Solid]
    """K solids, in the body's frame."""
    start: np.ndarray
    """[K, 3], centre of each solid's first ball."""
    shape: np.ndarray
    """[K, 3, 3], view → the solid's frame: rows side, along, flat / squash."""
    length: np.ndarray
    """[K], distance between the centres of the two balls."""
    radii: np.ndarray
    """[K, 2], radii of the two balls."""
    segment: np.ndarray
    """int [K], index into charts.SEGMENTS."""
    origin: np.ndarray
    """[S, 3], the point of each segment with s = 0."""
    chart: np.ndarray
    """[S, 3, 3], view → the segment's frame: rows towards w = 0, along s, towards half 0."""


def pose_solids(solids: list[Solid], bones: Skeleton, view: np.ndarray, lift: float) -> Posed:
    """Transforms solids and chart frames into the view's frame.

    Args:
        solids: the solids in the body's frame.
        bones: the skeleton to which they belong.
        view: float [3, 3], rotation body → view.
        lift: height by which to raise the body so that its feet are on the ground, metres.
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
    chart[SEGMENTS.index("torso"), 2] /= 0.66  # makes w uniform around the flat torso
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
    """For each solid, the rows and columns of samples that it can cover; x ascends, y descends."""
    axes = np.linalg.inv(posed.shape)[:, :2]  # [K, 2, 3]: the flattened axes in the image plane
    spread = np.sqrt((axes**2).sum(axis=2))[:, None] * posed.radii[:, :, None]  # [K, 2 balls, 2]
    end = posed.start[:, :2] + axes[:, :, 1] * posed.length[:, None]
    balls = np.stack([posed.start[:, :2], end], axis=1)
    low, high = (balls - spread).min(axis=1), (balls + spread).max(axis=1)
    first, last = np.searchsorted(x, low[:, 0]), np.searchsorted(x, high[:, 0], "right")
    columns = map(slice, first, last)
    first, last = np.searchsorted(-y, -high[:, 1]), np.searchsorted(-y, -low[:, 1], "right")
    return list(zip(map(slice, first, last), columns, strict=True))


def window(posed: Posed, x: np.ndarray, y: np.ndarray) -> tuple[slice, slice]:
    """The rows and columns of the pixels, with centres x [w] and y [h], that any solid may touch.

    They include one more on each side, because an outline also touches pixels whose centres it
    misses. So the window is never empty.
    """
    rows, columns = zip(*_windows(posed, x, y), strict=True)
    return _union(rows), _union(columns)


def _union(parts: Sequence[slice]) -> slice:
    """The smallest slice that covers all parts, extended by one on each side."""
    return slice(max(0, min(part.start for part in parts) - 1), max(p.stop for p in parts) + 1)


def _depth(posed: Posed, k: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """z of a solid's surface at samples x [w], y [h]: float32 [h, w], NaN where it is missed."""
    shape, length = posed.shape[k], posed.length[k]
    r0, r1 = posed.radii[k]
    ray = shape[:, 2]
    x, y = x - posed.start[k, 0], (y - posed.start[k, 1])[:, None]
    # With o the sample's offset in the solid's frame, as polynomials in x and y: o's component
    # along the axis, o · ray (b), o · o (c).
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
    # ... and the cone that is tangent to both, between the circles where it touches them.
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
    """Finds the nearest solid at every sample.

    Args:
        posed: the solids.
        x: float32 [w], x of the samples in the view's frame, ascending, metres.
        y: float32 [h], y of the samples, descending, metres.
        layers: solids of other layers are ignored.
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
    """Dot products of the columns: [3, N] · [3, N] → [N]."""
    return rows[0] * points[0] + rows[1] * points[1] + rows[2] * points[2]


def surface(posed: Posed, solid: np.ndarray, points: np.ndarray) -> Surface:
    """The surface coordinates of points on solids.

    Args:
        posed: the solids.
        solid: int [N], index of each point's solid.
        points: float32 [3, N], in the view's frame.
    Returns:
        Segment and coordinates of each point.
    """
    segment = posed.segment[solid]
    offset = points - _take(posed.origin, segment)
    side, s, face = (_dot(_take(posed.chart[:, i], segment), offset) for i in range(3))
    w = np.abs(np.arctan2(face, side)) * np.float32(1 / np.pi)
    return Surface(segment, s, w, (face < 0).astype(np.intp))


def normals(posed: Posed, solid: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Outward unit normals of points on solids, in the view's frame: float32 [3, N]."""
    offset = points - _take(posed.start, solid)
    shape = [_take(posed.shape[:, i], solid) for i in range(3)]
    side, along, flat = (_dot(row, offset) for row in shape)
    # Because of the taper, the centre of the ball that touches the cone at a point is a little off
    # the foot of the perpendicular from the point to the axis.
    taper = posed.radii[:, 0] - posed.radii[:, 1]
    slope = taper / np.sqrt(np.maximum(posed.length**2 - taper**2, np.float32(1e-9)))
    centre = along - np.sqrt(side * side + flat * flat) * slope[solid]
    along = along - np.clip(centre, 0, posed.length[solid])
    normal = shape[0] * side + shape[1] * along + shape[2] * flat
    return normal / np.sqrt(_dot(normal, normal))
