"""DensePose's detections, each in its own box → the IUV of the target person in an image.

This is common to detectron2's dumps and the COCO results. The size that a detection claims is
compared with the image's before its pixels are read: a few bytes can claim gigabytes.
"""

import base64
import binascii
import io
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from magnifier_plugin.annotators.densepose import to_regions
from magnifier_plugin.annotators.people import choose_person, extent
from magnifier_plugin.annotators.source import Annotation, check_size
from magnifier_plugin.images import decode_png
from magnifier_plugin.regions import NUM_PARTS

# DensePose writes every detection with a score over 0.05; most of these are not people.
MIN_SCORE = 0.5
# A box may end this many pixels outside its image: boxes have fractional coordinates, charts a
# whole number of pixels.
SLACK = 2


class Chart(Protocol):
    """The parts and coordinates of a detection, as large as its box."""

    @property
    def size(self) -> tuple[int, int]:
        """The height and width that the chart claims; no pixels are read.

        Raises:
            ValueError: the claim contradicts itself.
        """

    def iuv(self) -> np.ndarray:
        """uint8 [h, w, 3] in the order I, U, V, of the claimed size.

        Raises:
            ValueError: it is damaged, of another size, or holds a part id over 24.
        """


class FloatChart(NamedTuple):
    """A chart as detectron2's dumps hold it."""

    parts: np.ndarray
    """Integer [h, w], 0..24."""
    uv: np.ndarray
    """float [2, h, w], not clamped to 0..1."""

    @property
    def size(self) -> tuple[int, int]:
        if self.parts.ndim != 2 or self.uv.shape != (2, *self.parts.shape):
            raise ValueError(
                f"labels {list(self.parts.shape)} and uv {list(self.uv.shape)}, expected [h, w] "
                "and [2, h, w]"
            )
        return self.parts.shape

    def iuv(self) -> np.ndarray:
        if self.parts.dtype.kind not in "iu" or self.uv.dtype.kind != "f":
            raise ValueError(
                f"labels of {self.parts.dtype} and uv of {self.uv.dtype}, expected integers and "
                "floats"
            )
        _check_parts(self.parts)
        # Truncated, not rounded, as DensePose itself does when it writes bytes.
        coordinates = (np.nan_to_num(self.uv) * 255).clip(0, 255)
        return _without_background(np.stack([self.parts, *coordinates], axis=-1).astype(np.uint8))


class PngChart(NamedTuple):
    """A chart as COCO results hold it."""

    shape: tuple[int, ...]
    """(3, h, w)."""
    png: str
    """Base64 of an RGB PNG: I in red, U in green, V in blue."""

    @property
    def size(self) -> tuple[int, int]:
        if len(self.shape) != 3 or self.shape[0] != 3:
            raise ValueError(f"a detection of shape {list(self.shape)}, expected [3, h, w]")
        return self.shape[1:]

    def iuv(self) -> np.ndarray:
        try:
            content = base64.b64decode(self.png)
        except (binascii.Error, ValueError, TypeError) as error:
            raise ValueError(f"the detection is not base64 ({error})") from error
        image = decode_png(io.BytesIO(content), "the detection", self.size)
        if image.mode != "RGB":
            raise ValueError(f"the detection's PNG is {image.mode}, expected RGB")
        iuv = np.array(image)
        _check_parts(iuv[..., 0])
        return _without_background(iuv)


class Detection(NamedTuple):
    """One person that DensePose found."""

    x: float
    """The left side of the box, pixels."""
    y: float
    """The top of the box, pixels."""
    score: float
    """0..1."""
    chart: Chart
    """Parts and coordinates."""


@dataclass(frozen=True)
class DetectedPeople:
    """All people that DensePose found in one image."""

    name: str
    """The image's name in DensePose's output."""
    people: tuple[Detection, ...]
    """At least one."""
    hands: str = "lower arm"
    """The region that hands count as, "lower arm" or "background"."""
    size: tuple[int, int] | None = None
    """The image's height and width according to the COCO annotations; None if not given."""

    def read(self, size: tuple[int, int]) -> Annotation:
        """Pastes the target person; one canvas at a time, however many detections there are."""
        if self.size is not None:
            check_size(f"{self.name} in the COCO annotations", self.size, size)
        iuv = paste(self.people[0], size)
        extents = [extent(iuv[..., 0] > 0)]
        extents += [extent(paste(person, size)[..., 0] > 0) for person in self.people[1:]]
        best, ambiguity = choose_person(extents, [person.score for person in self.people])
        if best:
            iuv = paste(self.people[best], size)
        return Annotation(to_regions(iuv, self.hands), iuv, ambiguity)


def paste(person: Detection, size: tuple[int, int]) -> np.ndarray:
    """A person's IUV, uint8 [H, W, 3], at its position in an image of this height and width.

    Raises:
        ValueError: the chart is damaged, or its box is not inside the image.
    """
    height, width = person.chart.size
    if not (np.isfinite(person.x) and np.isfinite(person.y)):
        raise ValueError(f"a box at ({person.x}, {person.y})")
    x, y = int(person.x), int(person.y)
    outside = max(-x, -y, x + width - size[1], y + height - size[0])
    if outside > SLACK:
        raise ValueError(
            f"a box of {height} × {width} (height × width) at row {y}, column {x} is not inside an "
            f"image of {size[0]} × {size[1]}; annotate the data set's own images, not resized ones"
        )
    iuv = person.chart.iuv()
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
    """Sets U and V to 0 outside the parts, where they have no meaning."""
    iuv[iuv[..., 0] == 0] = 0
    return iuv
