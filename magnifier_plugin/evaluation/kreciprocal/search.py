"""The nearest rows of every row, from features.

Distances are computed in tiles on and above the diagonal: half the work, and never the whole
matrix.
"""

from collections.abc import Iterator
from itertools import combinations_with_replacement, pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from magnifier_plugin.evaluation.distances import square_norms, squared_distances
from magnifier_plugin.evaluation.kreciprocal.neighbours import (
    NearestRows,
    in_order,
    last_is_tied,
    nearest_in_order,
)
from magnifier_plugin.evaluation.kreciprocal.sparse import dot_products


class SquaredDistances:
    """Squared Euclidean distances between features [N, D], float32: 0 to itself, never negative."""

    def __init__(self, features: Tensor) -> None:
        self.features = features
        self.square_norms = square_norms(features)

    def tile(self, rows: slice, columns: slice) -> Tensor:
        """Distances from some rows to some columns, float32 [rows, columns]."""
        tile = self._between(rows, columns)
        return tile.fill_diagonal_(0) if rows == columns else tile

    def rows(self, rows: Tensor) -> Tensor:
        """Distances from the given rows, int64 [b], to all rows: float32 [b, N]."""
        return self._between(rows, slice(None)).scatter_(1, rows[:, None], 0)

    def pairs(self, start: int, offsets: Tensor, columns: Tensor) -> Tensor:
        """Distances from row start + i to columns[offsets[i] : offsets[i + 1]], float32 [P]."""
        own = self.features[start : start + len(offsets) - 1]
        products = dot_products(own, self.features, offsets, columns)
        rows = torch.repeat_interleave(offsets.diff()) + start
        distances = self.square_norms[rows] + self.square_norms[columns] - 2 * products
        return distances.clamp_(min=0).masked_fill_(rows == columns, 0)

    def _between(self, rows: slice | Tensor, columns: slice) -> Tensor:
        return squared_distances(
            self.features[rows],
            self.features[columns],
            self.square_norms[rows],
            self.square_norms[columns],
        ).clamp_(min=0)


class SearchResult(NamedTuple):
    """The result of one pass over all pairs."""

    nearest: Tensor
    """int64 [N, count], each row's nearest rows in order of (distance, index), itself included."""
    furthest: Tensor
    """float32 [N], the largest distance of each row."""
    query_gallery: Tensor
    """float32 [Q, G], the distances between the first Q rows and the others."""


def search(distances: SquaredDistances, num_queries: int, count: int, memory: int) -> SearchResult:
    """Makes one pass over all pairs of N rows, of which the first Q are the queries.

    Args:
        distances: distances between the rows.
        num_queries: Q, in 1..N-1.
        count: number of neighbours of each row, at most N.
        memory: bytes of working memory.
    """
    features = distances.features
    num_rows = len(features)
    # One neighbour more than requested shows whether the last one is tied.
    near = NearestRows(num_rows, min(count + 1, num_rows), features.device)
    furthest = features.new_zeros(num_rows)
    query_gallery = features.new_empty(num_queries, num_rows - num_queries)
    tiles = list(_tiles(num_queries, num_rows, memory))
    for rows, columns in tqdm(tiles, "Neighbours", leave=False, disable=None, delay=3):
        tile = distances.tile(rows, columns)
        if rows.start < num_queries <= columns.start:
            query_gallery[rows, columns.start - num_queries : columns.stop - num_queries] = tile
        both = [(rows, columns, tile)]
        if rows != columns:
            both.append((columns, rows, tile.T))
        for own, others, keys in both:
            near.update(own, others, keys)
            furthest[own] = torch.maximum(furthest[own], keys.amax(dim=1))
    nearest = _sorted_nearest(near, distances, count, memory)
    return SearchResult(nearest, furthest, query_gallery)


def _sorted_nearest(
    near: NearestRows, distances: SquaredDistances, count: int, memory: int
) -> Tensor:
    """`near` in order, int64 [N, count]; rows with a tie at the last place are searched again."""
    keys, nearest = in_order(near.keys, near.indices)
    nearest = nearest[:, :count]
    tied = last_is_tied(keys, count).nonzero().flatten()
    for rows in torch.split(tied, max(1, memory // (12 * len(nearest)))):
        nearest[rows] = nearest_in_order(distances.rows(rows), count)
    return nearest


def _tiles(num_queries: int, num_rows: int, memory: int) -> Iterator[tuple[slice, slice]]:
    """Tiles on and above the diagonal; neither side of a tile mixes queries and gallery."""
    side = max(1, int((memory / 16) ** 0.5))
    edges = [*range(0, num_queries, side), *range(num_queries, num_rows, side), num_rows]
    ranges = [slice(*ends) for ends in pairwise(edges)]
    return combinations_with_replacement(ranges, 2)
