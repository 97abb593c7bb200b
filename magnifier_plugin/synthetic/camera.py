"""The cameras: where each looks from, and what its lens, sensor and coder do to a picture."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import ndimage

# The height of picture that blur and noise are stated for; others scale with it.
_REFERENCE_HEIGHT = 256
# Share of the picture's height that a centred detection fills.
_FILL = 0.87


@dataclass(frozen=True)
class Camera:
    """One camera; `index` counts from 1, as Market-1501 does.

    pitch: degrees that it looks down by. heading: degrees that people who walk its street are
    turned by from facing it (they walk in both directions). cast: gains of red, green, blue.
    brightness: a factor. contrast: 1 leaves the picture. blur: standard deviation, pixels at 256
    high. noise: standard deviation, 0..1. quality: of JPEG, 1..95. sun: its direction in the
    street, degrees (azimuth from the camera's right, elevation). sunlight: the sun's share of the
    light, 0 overcast. street: what its street is made of is drawn from this number.
    """

    index: int
    pitch: float
    heading: float
    cast: tuple[float, float, float]
    brightness: float
    contrast: float
    blur: float
    noise: float
    quality: int
    sun: tuple[float, float]
    sunlight: float
    street: int


class View(NamedTuple):
    """A picture's plane: samples at x [w], rising, and y [h], falling, float32 metres, 0 the
    ground under the person; scale in samples a metre; pitch in radians."""

    x: np.ndarray
    y: np.ndarray
    scale: float
    pitch: float

    def moved(self, right: float, nearer: float) -> "View":
        """The plane as seen by somebody who stands elsewhere on the ground, metres."""
        return self._replace(x=self.x - right, y=self.y + nearer * math.sin(self.pitch))


def random_cameras(rng: np.random.Generator, count: int) -> tuple[Camera, ...]:
    """Cameras that differ: headings are spread evenly, the rest is drawn.

    Args:
        rng: the generator that every choice is drawn from.
        count: how many.
    Returns:
        The cameras, in the order of their index.
    """
    start = rng.uniform(0, 180)
    order = rng.permutation(count)
    pitches = np.linspace(6, 24, count) if count > 1 else np.array([12.0])
    pitches = rng.permutation(pitches)
    exposures = rng.permutation(np.linspace(0.88, 1.2, count))
    cameras = []
    for i in range(count):
        warm, tint = rng.normal(0, 0.05), rng.normal(0, 0.025)
        cameras.append(
            Camera(
                index=i + 1,
                pitch=round(float(pitches[i] + rng.uniform(-1.5, 1.5)), 1),
                heading=round(float((start + 180 * order[i] / count) % 180), 1),
                cast=tuple(round(float(1 + gain), 3) for gain in (warm, tint, -warm)),
                brightness=round(float(exposures[i]), 3),
                contrast=round(rng.uniform(0.85, 1.12), 3),
                blur=round(rng.uniform(0.35, 1.0), 2),
                noise=round(rng.uniform(0.006, 0.022), 4),
                quality=int(rng.integers(68, 93)),
                sun=(round(rng.uniform(20, 160), 1), round(rng.uniform(30, 60), 1)),
                sunlight=round(rng.uniform(0.25, 0.65), 2),
                street=int(rng.integers(2**31)),
            )
        )
    return tuple(cameras)


def rotation(heading: float, pitch: float) -> np.ndarray:
    """Body's frame → view's frame.

    Args:
        heading: degrees; 0 faces the camera, 90 walks to the image's right, 180 shows the back.
        pitch: degrees that the camera looks down by.
    Returns:
        float [3, 3].
    """
    c, s = math.cos(math.radians(heading)), math.sin(math.radians(heading))
    turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    c, s = math.cos(math.radians(pitch)), math.sin(math.radians(pitch))
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ turn


def look(
    camera: Camera,
    stature: float,
    size: tuple[int, int],
    zoom: float = 1.0,
    shift: tuple[float, float] = (0.0, 0.0),
) -> View:
    """The plane of a detector's box round a standing person, at the centres of its pixels.

    Args:
        camera: the camera that looks.
        stature: the person's height, metres.
        size: height and width of the picture, pixels.
        zoom: above 1 the box is smaller than the person asks for.
        shift: of the person in the picture, to the right and down, in shares of its height.
    Returns:
        The plane.
    """
    height, width = size
    pitch = math.radians(camera.pitch)
    seen = stature * math.cos(pitch) + 0.3 * math.sin(pitch)
    scale = _FILL * height * zoom / seen
    middle = 0.5 * (stature * math.cos(pitch))
    x = (np.arange(width) + 0.5 - width / 2 - shift[0] * height) / scale
    y = middle - (np.arange(height) + 0.5 - height / 2 - shift[1] * height) / scale
    return View(x.astype(np.float32), y.astype(np.float32), scale, pitch)


def sun_direction(camera: Camera, pitch: float) -> np.ndarray:
    """Unit vector towards the sun in the view's frame, float32 [3]."""
    azimuth, elevation = (math.radians(angle) for angle in camera.sun)
    flat = math.cos(elevation)
    sun = [flat * math.cos(azimuth), math.sin(elevation), flat * math.sin(azimuth)]
    return (rotation(0, math.degrees(pitch)) @ sun).astype(np.float32)


def develop(light: np.ndarray, camera: Camera, rng: np.random.Generator) -> np.ndarray:
    """What the camera makes of a scene, before JPEG.

    Args:
        light: float32 [3, H, W], sRGB in [0, 1].
        camera: whose colour cast, exposure, blur and noise are applied.
        rng: the noise's generator.
    Returns:
        uint8 [H, W, 3].
    """
    gains = np.array(camera.cast, dtype=np.float32) * camera.brightness * 255
    picture = light * gains[:, None, None]
    picture = 118 + camera.contrast * (picture - 118)
    blur = camera.blur * light.shape[1] / _REFERENCE_HEIGHT
    picture = ndimage.gaussian_filter(picture, (0, blur, blur), truncate=2.5)
    noise = rng.standard_normal(light.shape, dtype=np.float32)
    # Sensor noise is not independent in neighbours after demosaicing.
    noise[:, :, 1:] += 0.6 * noise[:, :, :-1]
    picture += noise * (camera.noise * 255 * 0.85)
    return np.clip(picture, 0, 255).astype(np.uint8).transpose(1, 2, 0)
