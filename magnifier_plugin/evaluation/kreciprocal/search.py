"""The nearest rows of every row, from features, in tiles: never the whole matrix, half the work."""

import logging
from collections.abc import Iterator
from itertools import combinations_with_replacement, pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from magnifier_plugin.evaluation.distances import square_norms, squared_distances
from magnifier_plugin.evaluation.kreciprocal.neighbours import (
    Nearest,
    in_order,
    last_is_tied,
    nearest_in_order,
)
from magnifier_plugin.evaluation.kreciprocal.rounded import RoundedFeatures
from magnifier_plugin.evaluation.kreciprocal.sparse import dot_products

logger = logging.getLogger(__name__)

_HOPELESS = 0.1  # share of doubtful rows above which float32 for all is cheaper


class SquaredDistances:
    """Squared Euclidean distances among features [N, D] in float32: 0 to itself, never negative."""

    def __init__(self, features: Tensor):
        self.features = features
        self.square_norms = square_norms(features)

    def tile(self, rows: slice, columns: slice) -> Tensor:
        """float32 [rows, columns]."""
        tile = self._between(rows, columns)
        return tile.fill_diagonal_(0) if rows == columns else tile

    def rows(self, rows: Tensor) -> Tensor:
        """From chosen rows, int64 [b], to all: float32 [b, N]."""
        return self._between(rows, slice(None)).scatter_(1, rows[:, None], 0)

    def pairs(self, start: int, offsets: Tensor, columns: Tensor) -> Tensor:
        """From row start + i to each of columns[offsets[i] : offsets[i + 1]], float32 [columns]."""
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


class Found(NamedTuple):
    """What one pass over all pairs yields.

    nearest: int64 [N, count], each row's nearest rows in order of (distance, index), itself among
        them.
    furthest: float32 [N], the distance of each row's furthest.
    query_gallery: float32 [Q, G], the distances between the first Q rows and the others.
    """

    nearest: Tensor
    furthest: Tensor
    query_gallery: Tensor


def search(
    distances: SquaredDistances, num_queries: int, count: int, in_bfloat16: bool, memory: int
) -> Found:
    """One pass over all pairs of N rows, the first of which are the queries.

    Args:
        num_queries: Q, in 1..N-1.
        count: neighbours of each row, at most N.
        in_bfloat16: search among the gallery's rows by `RoundedFeatures`; the result is the same.
        memory: bytes to work in.
    """
    run = _Search(distances, num_queries, count, in_bfloat16)
    tiles = list(_tiles(num_queries, len(distances.features), memory))
    for rows, columns in tqdm(tiles, "Neighbours", leave=False, disable=None, delay=3):
        run.show(rows, columns)
        if run.rounded and columns.stop == len(distances.features):  # the rows have met all others
            run.refine(rows)
            if run.doubtful.sum() > _HOPELESS * rows.stop:
                logger.info("bfloat16 is too coarse for these features, searching in float32")
                return search(distances, num_queries, count, False, memory)
    return run.settle(block_rows=max(1, memory // (12 * len(distances.features))))


class _Search:
    """What a pass over the tiles collects; a rounded one collects more than is asked for."""

    def __init__(
        self, distances: SquaredDistances, num_queries: int, count: int, in_bfloat16: bool
    ):
        self.distances, self.num_queries, self.count = distances, num_queries, count
        features = distances.features
        num_rows, device = len(features), features.device
        self.rounded = None
        keep, keep_furthest = count + 1, 1  # one more neighbour shows whether the last one is tied
        if in_bfloat16:
            self.rounded = RoundedFeatures(
                features[num_queries:], distances.square_norms[num_queries:]
            )
            keep, keep_furthest = 3 * count, 16
        self.near = Nearest(num_rows, min(keep, num_rows), device)
        self.far = Nearest(num_rows, min(keep_furthest, num_rows), device)
        self.doubtful = torch.zeros(num_rows, dtype=torch.bool, device=device)
        self.query_gallery = features.new_empty(num_queries, num_rows - num_queries)

    def show(self, rows: slice, columns: slice) -> None:
        """Computes a tile and takes from it what its rows, and its columns, need."""
        among_gallery = _shift(rows, -self.num_queries), _shift(columns, -self.num_queries)
        if self.rounded and rows.start >= self.num_queries:
            tile = self.rounded.tile(*among_gallery)
        else:
            tile = self.distances.tile(rows, columns)
        if rows.start < self.num_queries <= columns.start:
            self.query_gallery[rows, among_gallery[1]] = tile
        views = [(rows, columns, tile)]
        if rows != columns:
            views.append((columns, rows, tile.T))
        for view in views:
            self.near.show(*view)
        tile.neg_()
        for view in views:
            self.far.show(*view)

    def refine(self, rows: slice) -> None:
        """Makes the rounded distances of rows exact, and marks the rows where this may fail."""
        if rows.start < self.num_queries:
            return
        near = self._refine(rows, self.near, self.count + 1, sign=1)
        far = self._refine(rows, self.far, 1, sign=-1)
        self.doubtful[rows] = ~(near & far)

    def _refine(self, rows: slice, kept: Nearest, count: int, sign: int) -> Tensor:
        keys, indices = in_order(kept.keys[rows], kept.indices[rows])

        def exact(chosen: Tensor) -> Tensor:
            offsets = F.pad(chosen.sum(dim=1).cumsum(dim=0), (1, 0))
            return self.distances.pairs(rows.start, offsets, indices[chosen])

        among_gallery, count = _shift(rows, -self.num_queries), min(count, keys.shape[1])
        keys, proved = self.rounded.refine(among_gallery, keys, sign, exact, count)
        kept.keys[rows], kept.indices[rows] = keys, indices
        return proved

    def settle(self, block_rows: int) -> Found:
        """The result; doubtful rows, and those with ties for the last place, are done again."""
        keys, nearest = in_order(self.near.keys, self.near.indices)
        furthest = -self.far.keys.amin(dim=1)
        again = (self.doubtful | last_is_tied(keys, self.count)).nonzero().flatten()
        logger.debug("%d of %d rows are searched again", len(again), len(keys))
        for rows in again.split(block_rows):
            block = self.distances.rows(rows)
            nearest[rows, : self.count] = nearest_in_order(block, self.count)
            furthest[rows] = block.amax(dim=1)
        return Found(nearest[:, : self.count], furthest, self.query_gallery)


def _tiles(num_queries: int, num_rows: int, memory: int) -> Iterator[tuple[slice, slice]]:
    """Tiles on and above the diagonal; none has both queries and gallery among its rows."""
    side = max(1, int((memory / 16) ** 0.5))
    edges = [*range(0, num_queries, side), *range(num_queries, num_rows, side), num_rows]
    ranges = [slice(*ends) for ends in pairwise(edges)]
    return combinations_with_replacement(ranges, 2)


def _shift(rows: slice, by: int) -> slice:
    return slice(rows.start + by, rows.stop + by)
