"""The normalised distances that re-ranking uses, from features or from whole matrices.

Both number the rows 0..N-1, queries first, and divide each row by its largest distance.
"""

from typing import Protocol

import torch
from torch import Tensor

from magnifier_plugin.evaluation.kreciprocal.neighbours import nearest_in_order
from magnifier_plugin.evaluation.kreciprocal.search import SquaredDistances, search

# A row that is at distance 0 from all others stays at 0.
_TINY = torch.finfo(torch.float32).tiny


class RowDistances(Protocol):
    """Distances of Q queries and G gallery images among each other, N rows in all."""

    num_queries: int
    num_rows: int

    def nearest(self, count: int) -> Tensor:
        """Each row's nearest rows by (distance, index), itself among them, int64 [N, count]."""

    def between(self, start: int, offsets: Tensor, columns: Tensor) -> Tensor:
        """From row start + i to each of columns[offsets[i] : offsets[i + 1]], float32 [columns].

        Only after `nearest`.
        """

    def to_gallery(self) -> Tensor:
        """From queries to gallery, float32 [Q, G], for the caller to overwrite; after `nearest`."""


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
    """Distances that are given, whole: [Q, G], [Q, Q] and [G, G]."""

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
        """Normalised distances from these rows to all, float32 [b, N].

        As in torchreid: a row is a column of the matrix that the three form, squared, then rounded
        to float32, then divided by its largest.
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
