"""Label maps drawn from capsules and triangles, layer upon layer."""

import numpy as np

# Upper limit of a shape's coordinates: a damaged file may contain any number.
_HUGE = 2**20


class Canvas:
    """A label map that shapes are drawn into.

    Within a layer each pixel takes the label of the shape in which it is deepest, so that two limbs
    meet in the middle of their overlap; a new layer covers the earlier ones.

    Args:
        size: height and width, pixels.
    """

    def __init__(self, size: tuple[int, int]):
        self.labels = np.zeros(size, dtype=np.uint8)
        """uint8 [H, W]."""
        self._rows = np.arange(size[0], dtype=np.float32)[:, None]
        self._columns = np.arange(size[1], dtype=np.float32)
        self.start_layer()

    def start_layer(self) -> None:
        """Starts a layer whose shapes cover those drawn so far."""
        self._depths = np.zeros(self.labels.shape, dtype=np.float32)

    def draw_capsule(
        self, label: int, start: np.ndarray, end: np.ndarray, radii: tuple[float, float]
    ) -> None:
        """Draws a capsule between two discs.

        Args:
            label: the label of its pixels.
            start, end: the discs' centres, float [2], x and y in pixels.
            radii: the radii of the first and the last disc, in pixels.
        """
        window = self._window(np.stack([start, end]), max(radii))
        x, y = self._columns[window[1]] - start[0], self._rows[window[0]] - start[1]
        along = end - start
        share = (x * along[0] + y * along[1]) / max(float(along @ along), 1e-6)
        share = np.clip(share, 0, 1, out=share)
        distance = np.hypot(x - share * along[0], y - share * along[1])
        self._fill(window, label, radii[0] + (radii[1] - radii[0]) * share - distance)

    def draw_triangle(self, label: int, corners: np.ndarray, depth: float) -> None:
        """Draws a triangle with corners float [3, 2]; all its pixels have the given depth."""
        window = self._window(corners, 0)
        x, y = self._columns[window[1]], self._rows[window[0]]
        ends = np.roll(corners, -1, axis=0)
        sides = [
            (x - a[0]) * (b[1] - a[1]) - (y - a[1]) * (b[0] - a[0])
            for a, b in zip(corners, ends, strict=True)
        ]
        inside = (np.minimum.reduce(sides) >= 0) | (np.maximum.reduce(sides) <= 0)
        self._fill(window, label, np.float32(depth) * inside)

    def draw_disc(
        self, label: int, centre: np.ndarray, radius: float, rows: tuple[float, float]
    ) -> None:
        """Draws the part of a disc that is within a range of rows, both ends included."""
        window = self._window(np.array([centre, centre]), radius)
        x, y = self._columns[window[1]] - centre[0], self._rows[window[0]]
        depth = radius - np.hypot(x, y - centre[1])
        self._fill(window, label, np.where((y >= rows[0]) & (y <= rows[1]), depth, 0))

    def _window(self, points: np.ndarray, margin: float) -> tuple[slice, slice]:
        """The rows and columns that a shape may cover."""
        low = np.clip(np.floor(points.min(axis=0) - margin), 0, _HUGE).astype(int)
        high = np.clip(np.ceil(points.max(axis=0) + margin) + 1, 0, _HUGE).astype(int)
        return slice(low[1], high[1]), slice(low[0], high[0])

    def _fill(self, window: tuple[slice, slice], label: int, depth: np.ndarray) -> None:
        deepest = self._depths[window]
        deeper = depth > deepest
        deepest[deeper] = depth[deeper]
        self.labels[window][deeper] = label
