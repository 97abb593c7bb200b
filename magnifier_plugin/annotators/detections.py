"""DensePose's detections, each in a box of its own → the IUV of the person a picture is about.

What detectron2's dumps and the COCO results have in common once they are read.
"""

import base64
import binascii
import io
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from magnifier_plugin.annotators.densepose import to_regions
from magnifier_plugin.annotators.people import central_pixels, choose_person
from magnifier_plugin.annotators.source import Annotation
from magnifier_plugin.files import MAX_PIXELS, decode_png
from magnifier_plugin.regions import NUM_PARTS

# DensePose writes down whatever it sees with a score over 0.05; most of that is nobody.
MIN_SCORE = 0.5
# A box may end this many pixels outside its image: boxes are fractions, charts whole pixels.
SLACK = 2


class Chart(Protocol):
    """A detection's parts and coordinates, of its box's size."""

    def iuv(self) -> np.ndarray:
        """uint8 [h, w, 3] in the order I, U, V.

        Raises:
            ValueError: it is damaged or holds a part id over 24.
        """


class FloatChart(NamedTuple):
    """As detectron2 holds it: parts, int [h, w]; uv, float [2, h, w], not clamped to 0..1."""

    parts: np.ndarray
    uv: np.ndarray

    def iuv(self) -> np.ndarray:
        if self.parts.size > MAX_PIXELS:  # strides of zero make a giant of a few bytes
            raise ValueError(f"refused, a detection of {self.parts.size:,} pixels")
        if self.parts.ndim != 2 or self.uv.shape != (2, *self.parts.shape):
            raise ValueError(
                f"labels {list(self.parts.shape)} and uv {list(self.uv.shape)}, expected [h, w] "
                "and [2, h, w]"
            )
        _check_parts(self.parts)
        # Cut, not rounded, as DensePose itself does where it writes bytes.
        coordinates = (np.nan_to_num(self.uv) * 255).clip(0, 255)
        return _without_background(np.stack([self.parts, *coordinates], axis=-1).astype(np.uint8))


class PngChart(NamedTuple):
    """As COCO results hold it: shape (3, h, w) and base64 of an RGB PNG, red I, green U, blue V."""

    shape: tuple[int, ...]
    png: str

    def iuv(self) -> np.ndarray:
        try:
            content = base64.b64decode(self.png)
        except (binascii.Error, ValueError, TypeError) as error:
            raise ValueError(f"the detection is no base64 ({error})") from error
        image = decode_png(io.BytesIO(content), "the detection")
        height, width = image.size[::-1]
        if image.mode != "RGB" or tuple(self.shape) != (3, height, width):
            raise ValueError(
                f"the detection's PNG is {image.mode} [3, {height}, {width}], expected RGB "
                f"{list(self.shape)}"
            )
        iuv = np.array(image)
        _check_parts(iuv[..., 0])
        return _without_background(iuv)


class Detection(NamedTuple):
    """One person that DensePose found: the box's corner in pixels, the score 0..1, the chart."""

    x: float
    y: float
    score: float
    chart: Chart


@dataclass(frozen=True)
class DetectedPeople:
    """Everybody whom DensePose found in one image."""

    name: str
    people: tuple[Detection, ...]
    hands: str = "lower arm"

    def read(self, size: tuple[int, int]) -> Annotation:
        canvases = [paste(person, size) for person in self.people]
        central = [central_pixels(canvas[..., 0] > 0) for canvas in canvases]
        best, doubt = choose_person(central, [person.score for person in self.people])
        return Annotation(to_regions(canvases[best], self.hands), canvases[best], doubt)


def paste(person: Detection, size: tuple[int, int]) -> np.ndarray:
    """A person's IUV, uint8 [H, W, 3], at its place in an image of this height and width.

    Raises:
        ValueError: the chart is damaged, or its box does not lie in such an image.
    """
    iuv = person.chart.iuv()
    height, width = iuv.shape[:2]
    if not (np.isfinite(person.x) and np.isfinite(person.y)):
        raise ValueError(f"a box at ({person.x}, {person.y})")
    x, y = int(person.x), int(person.y)
    outside = max(-x, -y, x + width - size[1], y + height - size[0])
    if outside > SLACK:
        raise ValueError(
            f"a box of {height} × {width} (height × width) at row {y}, column {x} does not lie in "
            f"an image of {size[0]} × {size[1]}; annotate the data set's own images, not resized "
            "ones"
        )
    canvas = np.zeros((*size, 3), dtype=np.uint8)
    top, left = max(y, 0), max(x, 0)
    inside = iuv[top - y : size[0] - y, left - x : size[1] - x]
    canvas[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return canvas


def _check_parts(parts: np.ndarray) -> None:
    if parts.size and (parts.min() < 0 or parts.max() > NUM_PARTS):
        raise ValueError(
            f"part ids {parts.min()}..{parts.max()} in a detection, expected 0..{NUM_PARTS}"
        )


def _without_background(iuv: np.ndarray) -> np.ndarray:
    """Coordinates mean nothing where there is no part."""
    iuv[iuv[..., 0] == 0] = 0
    return iuv
