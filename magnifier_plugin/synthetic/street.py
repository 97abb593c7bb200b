"""The street behind a pedestrian: ground, wall, clutter and the pedestrian's shadow.

Positions are in metres on the ground (x to the right, z towards the camera, 0 under the
pedestrian), so that a street looks the same in all images of its camera.
"""

import math
from typing import Any

import numpy as np

from magnifier_plugin.synthetic.camera import Camera, View

_GROUNDS = ((138, 134, 128), (112, 112, 114), (156, 148, 136), (124, 116, 108), (96, 98, 102))
_WALLS = ((168, 156, 140), (132, 92, 76), (186, 184, 178), (108, 112, 120), (150, 140, 110))
_PAINTS = (
    (52, 60, 72),
    (150, 44, 40),
    (44, 84, 120),
    (196, 194, 190),
    (70, 96, 64),
    (180, 150, 60),
)


def _colour(rgb) -> np.ndarray:
    return np.array(rgb, dtype=np.float32)[:, None, None] / 255


def _cloud(rng: np.random.Generator, size: tuple[int, int], cells: int) -> np.ndarray:
    """Smooth noise, float32 [H, W], standard deviation about 0.5."""
    height, width = size
    rows = np.linspace(0, cells - 1.001, height, dtype=np.float32)
    columns = np.linspace(0, cells - 1.001, width, dtype=np.float32)
    grid = rng.standard_normal((cells + 1, cells + 1), dtype=np.float32)
    top, left = rows.astype(int), columns.astype(int)
    fy, fx = (rows - top)[:, None], columns - left
    upper = grid[top] * (1 - fy) + grid[top + 1] * fy
    return upper[:, left] * (1 - fx) + upper[:, left + 1] * fx


def _line(distance: np.ndarray, width: float, softness: float) -> np.ndarray:
    """1 where a distance is less than half a width, with a soft edge."""
    return np.clip((width / 2 - np.abs(distance)) / softness + 0.5, 0, 1)


def _ground(rng: np.random.Generator, x: np.ndarray, z: np.ndarray, pixel: float) -> np.ndarray:
    """Slabs, cobbles or asphalt, float32 [3, H, W]; `pixel` is a pixel's width in metres."""
    colour = _colour(_GROUNDS[rng.integers(len(_GROUNDS))]) * np.float32(rng.uniform(0.8, 1.15))
    kind = rng.choice(3, p=(0.5, 0.25, 0.25))
    turn = math.radians(rng.uniform(-40, 40))
    along = x * np.float32(math.cos(turn)) + z * np.float32(math.sin(turn))
    across = z * np.float32(math.cos(turn)) - x * np.float32(math.sin(turn))
    tones = rng.uniform(-1, 1, 64).astype(np.float32)
    if kind == 2:  # asphalt with a painted line
        paint = _line(across - np.float32(rng.uniform(0.3, 1.2)), 0.16, 2 * pixel)
        return colour * 0.8 + 0.45 * paint
    tile: Any = np.float32(rng.uniform(0.35, 0.7) if kind == 0 else rng.uniform(0.14, 0.2))
    row = np.floor(across / tile)
    column = along / tile + 0.5 * (row % 2)
    tone = tones[((np.floor(column) * 7 + row * 13) % 64).astype(int)]
    joint = np.maximum(
        _line((column % 1 - 0.5) * tile, tile - 0.02, 3 * pixel) * -1 + 1,
        1 - _line((across / tile % 1 - 0.5) * tile, tile - 0.02, 3 * pixel),
    )
    return colour * (1 + (0.05 if kind == 0 else 0.1) * tone) * (1 - 0.28 * joint)


def _wall(rng: np.random.Generator, x: np.ndarray, up: np.ndarray, pixel: float) -> np.ndarray:
    """Bricks, windows, shutters or a hedge, float32 [3, H, W]; `up` is the height in metres."""
    colour = _colour(_WALLS[rng.integers(len(_WALLS))]) * np.float32(rng.uniform(0.75, 1.1))
    kind = rng.integers(4)
    tones = rng.uniform(-1, 1, 97).astype(np.float32)
    if kind == 0:
        row = np.floor(up / 0.11)
        column = x / 0.26 + 0.5 * (row % 2)
        tone = tones[((np.floor(column) * 5 + row * 31) % 97).astype(int)]
        mortar = np.maximum((up / 0.11) % 1 < 0.16, column % 1 < 0.07)
        return colour * (1 + 0.12 * tone) * (1 - 0.2 * mortar)
    if kind == 1:  # shop windows above a plinth
        cell, place = np.floor(x / 1.3), x / 1.3 % 1
        glass = (place > 0.08) & (place < 0.92) & (up > 0.45) & (up < 2.4)
        shine = 0.2 + 0.12 * tones[(cell * 11 % 97).astype(int)] + 0.06 * np.sin(4 * x + 3 * up)
        return np.where(glass, _colour((150, 170, 190)) * (0.35 + shine), colour)
    if kind == 2:
        slat = 0.5 + 0.5 * np.cos(up * (math.tau / 0.12))
        return colour * (0.78 + 0.22 * slat)
    size = np.broadcast_shapes(x.shape, up.shape)
    leaves = 0.3 * _cloud(rng, size, 40) + 0.2 * _cloud(rng, size, 12)
    return _colour((78, 98, 62)) * np.clip(1 + leaves, 0.4, 1.6)


def _blob(light: np.ndarray, view: View, centre, size, colour, power: int, soft: float) -> None:
    """Draws a superellipse with soft edges into an image, in place, brighter at its top."""
    across, rise = (view.x - centre[0]) / size[0], (view.y - centre[1]) / size[1]
    (right,), (down,) = np.nonzero(np.abs(across) < 1), np.nonzero(np.abs(rise) < 1)
    if not (len(right) and len(down)):
        return
    rows, columns = slice(down[0], down[-1] + 1), slice(right[0], right[-1] + 1)
    across, rise = across[columns], rise[rows, None]
    alpha = np.clip((1 - across**power - rise**power) / np.float32(soft), 0, 1)
    under = light[:, rows, columns]
    under += alpha * (colour * (0.85 + 0.2 * rise) - under)


def _clutter(rng: np.random.Generator, light: np.ndarray, view: View, depth: float) -> None:
    """Draws parked cars, posts, bins and passers-by, out of focus, between wall and person."""
    sin, cos = math.sin(view.pitch), math.cos(view.pitch)
    dark, glass, skin = _colour((48, 48, 52)), _colour((70, 82, 94)), _colour((176, 134, 108))
    for distance in np.sort(rng.uniform(0.5, depth, rng.integers(2, 6)))[::-1]:
        foot, place = distance * sin, rng.uniform(-1.1, 1.1)
        paint = _colour(_PAINTS[rng.integers(len(_PAINTS))]) * np.float32(rng.uniform(0.6, 1.2))
        kind = rng.choice(4, p=(0.25, 0.3, 0.2, 0.25))
        if kind == 0:  # a car: body, cabin, wheels
            place += math.copysign(0.7, place)
            _blob(light, view, (place, foot + 1.0 * cos), (0.75, 0.34 * cos), glass, 4, 0.4)
            _blob(light, view, (place, foot + 0.55 * cos), (1.25, 0.32 * cos), paint, 6, 0.4)
            for wheel in (place - 0.75, place + 0.75):
                _blob(light, view, (wheel, foot + 0.27 * cos), (0.27, 0.27 * cos), dark, 2, 0.4)
        elif kind == 1:
            _blob(light, view, (place, foot + 0.6 * cos), (0.05, 0.6 * cos), paint, 6, 0.5)
        elif kind == 2:
            _blob(light, view, (place, foot + 0.4 * cos), (0.26, 0.4 * cos), 0.8 * paint, 6, 0.4)
        else:  # a person far away: legs, trunk, head
            _blob(light, view, (place, foot + 0.42 * cos), (0.12, 0.42 * cos), dark, 4, 0.6)
            _blob(light, view, (place, foot + 1.08 * cos), (0.2, 0.34 * cos), paint, 4, 0.6)
            _blob(light, view, (place, foot + 1.53 * cos), (0.09, 0.12 * cos), skin, 2, 0.6)


def shadow(camera: Camera, view: View, stature: float) -> np.ndarray:
    """The fraction of the light that reaches the ground around a standing person.

    Args:
        camera: determines the sun.
        view: the image plane.
        stature: the person's height, metres.
    Returns:
        float32 [H, W], 1 where there is no shadow.
    """
    sin = max(math.sin(view.pitch), 0.05)
    x, z = view.x[None, :], -view.y[:, None] / np.float32(sin)
    contact = np.exp(-((x / 0.3) ** 2) - (z / 0.24) ** 2)
    azimuth, elevation = (math.radians(angle) for angle in camera.sun)
    away = -math.cos(azimuth), -math.sin(azimuth)
    reach = stature / math.tan(elevation)
    along = x * np.float32(away[0]) + z * np.float32(away[1])
    across = x * np.float32(away[1]) - z * np.float32(away[0])
    body = np.clip((0.19 - np.abs(across)) / 0.12, 0, 1) * (along > 0)
    body = body * np.clip((reach - along) / (0.3 * reach), 0, 1)
    return 1 - 0.45 * contact - np.float32(0.55 * camera.sunlight) * body * (1 - contact)


def street(camera: Camera, view: View, rng: np.random.Generator) -> np.ndarray:
    """Draws a part of a camera's street.

    Args:
        camera: the camera; ground and wall are the same in all its images.
        view: the image plane.
        rng: the generator of the person's position along the street and of the clutter.
    Returns:
        float32 [3, H, W], sRGB in [0, 1].
    """
    fixed = np.random.default_rng(camera.street)
    sin, cos = max(math.sin(view.pitch), 0.05), math.cos(view.pitch)
    depth = fixed.uniform(1.5, 5.0)
    place = np.float32(rng.uniform(-20, 20))
    x = view.x[None, :] + place
    z = -view.y[:, None] / np.float32(sin)
    pixel = 1 / view.scale
    light = _ground(fixed, x, z + np.float32(rng.uniform(-0.4, 0.4)), pixel)
    up = (view.y[:, None] - np.float32(depth * sin)) / np.float32(cos)
    above = int(np.count_nonzero(up > 0))
    if above:
        light[:, :above] = _wall(fixed, x, up[:above], pixel)
        light[:, above : above + 3] *= 0.75  # dirt where wall and ground meet
    _clutter(rng, light, view, depth)
    size = light.shape[1:]
    light *= 1 + 0.06 * _cloud(rng, size, 5) + 0.05 * _cloud(rng, size, 24)
    return light
