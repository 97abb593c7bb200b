"""The cameras: viewpoint, light, lens, sensor and JPEG quality."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import ndimage

# The image height, in pixels, for which blur is stated; it scales with the height.
_REFERENCE_HEIGHT = 256
# Fraction of the image's height that a person in a well-fitting box fills.
_FILL = 0.87


@dataclass(frozen=True)
class Camera:
    """One camera and its street."""

    index: int
    """Numbered from 1, as in Market-1501."""
    pitch: float
    """Angle by which it is tilted down, degrees."""
    heading: float
    """Heading of people who walk along its street, degrees, 0 facing the camera; people walk both
    ways."""
    cast: tuple[float, float, float]
    """Colour cast: gains of red, green and blue."""
    brightness: float
    """A factor; 1 changes nothing."""
    contrast: float
    """A factor; 1 changes nothing."""
    blur: float
    """Standard deviation in pixels, for an image 256 pixels high."""
    noise: float
    """Standard deviation, as a fraction of the full range 0..255."""
    quality: int
    """JPEG quality, 1..95."""
    sun: tuple[float, float]
    """Direction of the sun, degrees: azimuth from the camera's right, and elevation."""
    sunlight: float
    """The sun's fraction of the light, 0..1; 0 is overcast."""
    street: int
    """Seed of the street's ground and walls."""


class View(NamedTuple):
    """The image plane and its samples; the origin is the ground under the person."""

    x: np.ndarray
    """float32 [w], x of the samples, ascending, metres."""
    y: np.ndarray
    """float32 [h], y of the samples, descending, metres."""
    scale: float
    """Samples per metre."""
    pitch: float
    """Angle by which the camera is tilted down, radians."""

    def moved(self, right: float, nearer: float) -> "View":
        """The plane with its origin moved on the ground, right and nearer to the camera, metres."""
        return self._replace(x=self.x - right, y=self.y + nearer * math.sin(self.pitch))


def random_cameras(rng: np.random.Generator, count: int) -> tuple[Camera, ...]:
    """Draws cameras that differ; their headings are spread evenly.

    Args:
        rng: the generator of all random choices.
        count: the number of cameras.
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
                cast=(_gain(warm), _gain(tint), _gain(-warm)),
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
    """The rotation from the body's frame to the view's frame.

    Args:
        heading: degrees; 0 faces the camera, 90 walks to the image's right, 180 shows the back.
        pitch: angle by which the camera is tilted down, degrees.
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
    """The image plane of a detector's box around a standing person, sampled at the pixels' centres.

    Args:
        camera: the camera.
        stature: the person's height, metres.
        size: height and width of the image, pixels.
        zoom: above 1, the box is smaller than one that fits the person.
        shift: the person's shift in the image, to the right and down, as fractions of its height.
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
    """Turns the light of a scene into the camera's image, before JPEG compression.

    Args:
        light: float32 [3, H, W], sRGB in [0, 1].
        camera: the camera whose colour cast, exposure, blur and noise are applied.
        rng: the generator of the noise.
    Returns:
        uint8 [H, W, 3], RGB.
    """
    gains = np.array(camera.cast, dtype=np.float32) * camera.brightness * 255
    picture = light * gains[:, None, None]
    picture = 118 + camera.contrast * (picture - 118)
    blur = camera.blur * light.shape[1] / _REFERENCE_HEIGHT
    picture = ndimage.gaussian_filter(picture, (0, blur, blur), truncate=2.5)
    noise = rng.standard_normal(light.shape, dtype=np.float32)
    # After demosaicing, sensor noise is correlated between neighbouring pixels.
    noise[:, :, 1:] += 0.6 * noise[:, :, :-1]
    picture += noise * (camera.noise * 255 * 0.85)
    return np.clip(picture, 0, 255).astype(np.uint8).transpose(1, 2, 0)


def _gain(shift: float) -> float:
    """The gain of a colour channel."""
    return round(float(1 + shift), 3)
