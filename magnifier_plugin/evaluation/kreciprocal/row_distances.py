"""The normalised distances that re-ranking uses, from features or from given matrices.

In both cases the rows are numbered 0..N-1, queries first, and each row is divided by its largest
distance.
"""

from typing import Protocol

import torch
from torch import Tensor

from magnifier_plugin.evaluation.kreciprocal.neighbours import nearest_in_order
from magnifier_plugin.evaluation.kreciprocal.search import SquaredDistances, search

# Replaces a largest distance of 0, so that a row of zeros stays zero.
_TINY = torch.finfo(torch.float32).tiny


class RowDistances(Protocol):
    """Distances between all N = Q + G images, Q queries and G gallery images."""

    num_queries: int
    num_rows: int

    def nearest(self, count: int) -> Tensor:
        """The nearest rows of each row by (distance, index), itself included: int64 [N, count]."""

    def between(self, start: int, offsets: Tensor, columns: Tensor) -> Tensor:
        """Distances from row start + i to columns[offsets[i] : offsets[i + 1]], for all i.

        `nearest` must have been called before.

        Returns:
            float32 [P], in the order of `columns` [P].
        """

    def to_gallery(self) -> Tensor:
        """Distances from queries to gallery, float32 [Q, G], which the caller may overwrite.

        `nearest` must have been called before.
        """


class FeatureDistances:
    """Distances of features [Q, D] and [G, D], computed on demand."""

    def __init__(self, query: Tensor, gallery: Tensor, form: str, memory: int) -> None:
        self.distances = SquaredDistances(torch.cat([query, gallery]))
        self.num_queries, self.num_rows = len(query), len(query) + len(gallery)
        self.form, self.memory = form, memory

    def nearest(self, count: int) -> Tensor:
        found = search(self.distances, self.num_queries, count, self.memory)
        self.furthest, self.query_gallery = found.furthest.clamp_(min=_TINY), found.query_gallery
        return found.nearest

    def between(self, start: int, offsets: Tensor, columns: Tensor) -> Tensor:
        rows = torch.repeat_interleave(offsets.diff()) + start
        return self._normalise(self.distances.pairs(start, offsets, columns), self.furthest[rows])

    def to_gallery(self) -> Tensor:
        return self._normalise(self.query_gallery, self.furthest[: self.num_queries, None])

    def _normalise(self, distances: Tensor, furthest: Tensor) -> Tensor:
        distances /= furthest
        return distances.square_() if self.form == "torchreid" else distances


class MatrixDistances:
    """Distances given as whole matrices [Q, G], [Q, Q] and [G, G]."""

    def __init__(self, q_g: Tensor, q_q: Tensor, g_g: Tensor, form: str, memory: int) -> None:
        self.q_g, self.q_q, self.g_g, self.form = q_g, q_q, g_g, form
        self.num_queries, self.num_rows = len(q_q), len(q_q) + len(g_g)
        self.block_rows = max(1, memory // (32 * self.num_rows))

    def nearest(self, count: int) -> Tensor:
        return torch.cat(
            [
                nearest_in_order(self._rows(start, start + self.block_rows), count)
                for start in range(0, self.num_rows, self.block_rows)
            ]
        )

    def between(self, start: int, offsets: Tensor, columns: Tensor) -> Tensor:
        parts = []
        for first in range(0, len(offsets) - 1, self.block_rows):
            ends = offsets[first : first + self.block_rows + 1]
            rows = torch.repeat_interleave(ends.diff())
            block = self._rows(start + first, start + first + len(ends) - 1)
            parts.append(block[rows, columns[ends[0] : ends[-1]]])
        return torch.cat(parts)

    def to_gallery(self) -> Tensor:
        return torch.cat(
            [
                self._rows(start, min(start + self.block_rows, self.num_queries))[
                    :, self.num_queries :
                ]
                for start in range(0, self.num_queries, self.block_rows)
            ]
        )

    def _rows(self, start: int, stop: int) -> Tensor:
        """Normalised distances from these rows to all rows, float32 [b, N].

        As in torchreid: row i is column i of the matrix [N, N] that the three matrices form. It is
        squared, then rounded to float32, then divided by its largest value.
        """
        count = self.num_queries
        queries = slice(min(start, count), min(stop, count))
        gallery = slice(max(start, count) - count, max(stop, count) - count)
        block = torch.cat(
            [
                torch.cat([self.q_q[:, queries].T, self.q_g[queries]], dim=1),
                torch.cat([self.q_g[:, gallery].T, self.g_g[:, gallery].T], dim=1),
            ]
        )
        block = (block.square() if self.form == "torchreid" else block).float()
        return block / block.amax(dim=1, keepdim=True).clamp_(min=_TINY)
