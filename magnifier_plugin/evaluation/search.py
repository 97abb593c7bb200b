"""The nearest rows of every row, from features, in tiles: never the whole matrix, half the work."""

import logging
from collections.abc import Iterator
from itertools import combinations_with_replacement, pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from magnifier_plugin.evaluation.neighbours import Nearest, in_order, last_is_tied
from magnifier_plugin.evaluation.rounded import RoundedFeatures
from magnifier_plugin.evaluation.sparse import dot_products

logger = logging.getLogger(__name__)

_MAX_SIDE = 4096  # of a tile; larger ones are no faster
_BLOCK = 256  # rows of features whose squares stay in the cache
_SPARE_FURTHEST = 16  # candidates that a rounded search keeps
_HOPELESS = 0.2  # share of rows without a proof from which on everything is searched in float32


class SquaredDistances:
    """Squared Euclidean distances among features [N, D] in float32: 0 to itself, never negative."""

    def __init__(self, features: Tensor):
        self.features = features
        self.square_norms = torch.cat([b.square().sum(dim=1) for b in features.split(_BLOCK)])

    def tile(self, rows: slice, columns: slice) -> Tensor:
        """float32 [rows, columns]."""
        tile = self.square_norms[rows, None] + self.square_norms[columns]
        tile.addmm_(self.features[rows], self.features[columns].T, alpha=-2).clamp_(min=0)
        return tile.fill_diagonal_(0) if rows == columns else tile

    def rows(self, rows: Tensor) -> Tensor:
        """From chosen rows, int64 [b], to all: float32 [b, N]."""
        distances = self.square_norms[rows, None] + self.square_norms
        distances.addmm_(self.features[rows], self.features.T, alpha=-2).clamp_(min=0)
        return distances.scatter_(1, rows[:, None], 0)

    def pairs(self, start: int, offsets: Tensor, columns: Tensor) -> Tensor:
        """From row start + i to each of columns[offsets[i] : offsets[i + 1]], float32 [columns]."""
        own = self.features[start : start + len(offsets) - 1]
        products = dot_products(own, self.features, offsets, columns)
        rows = torch.repeat_interleave(offsets.diff()) + start
        distances = self.square_norms[rows] + self.square_norms[columns] - 2 * products
        return distances.clamp_(min=0).masked_fill_(rows == columns, 0)


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
    num_rows, device = len(distances.features), distances.features.device
    rounded = None
    if in_bfloat16:
        gallery = distances.features[num_queries:], distances.square_norms[num_queries:]
        rounded = RoundedFeatures(*gallery)
    near = Nearest(num_rows, min(2 * count + 6 if rounded else count + 1, num_rows), device)
    far = Nearest(num_rows, min(_SPARE_FURTHEST, num_rows) if rounded else 1, device)
    query_gallery = near.keys.new_empty(num_queries, num_rows - num_queries)
    for rows, columns in _tiles(num_queries, num_rows, memory):
        if rounded and rows.start >= num_queries:
            tile = rounded.tile(_shift(rows, -num_queries), _shift(columns, -num_queries))
        else:
            tile = distances.tile(rows, columns)
        if rows.start < num_queries <= columns.start:
            query_gallery[rows, _shift(columns, -num_queries)] = tile
        both_ways = [(rows, columns, tile)]
        if rows != columns:
            both_ways.append((columns, rows, tile.T.clone(memory_format=torch.contiguous_format)))
        for own, others, keys in both_ways:
            near.show(own, others, keys)
            far.show(own, others, keys.neg_())

    proved = torch.ones(num_rows, dtype=torch.bool, device=device)
    if rounded:
        proved[num_queries:] = _refine(rounded, distances, near, count + 1, sign=1)
        proved[num_queries:] &= _refine(rounded, distances, far, 1, sign=-1)
        share = 1 - proved.float().mean().item()
        logger.info("bfloat16 search: %.2f %% of the rows need float32", 100 * share)
        if share > _HOPELESS:
            return search(distances, num_queries, count, False, memory)
    keys, nearest = in_order(near.keys, near.indices)
    furthest = -far.keys.amin(dim=1)
    again = (last_is_tied(keys, count) | ~proved).nonzero().flatten()
    for rows in again.split(max(1, memory // (32 * num_rows))):
        ordered = distances.rows(rows).sort(dim=1, stable=True)
        nearest[rows] = ordered.indices[:, : nearest.shape[1]]
        furthest[rows] = ordered.values[:, -1]
    return Found(nearest[:, :count], furthest, query_gallery)


def _refine(
    rounded: RoundedFeatures, distances: SquaredDistances, kept: Nearest, count: int, sign: int
) -> Tensor:
    """Makes the gallery's kept keys exact; bool [G], which of them are proved to be right."""
    first = len(distances.features) - len(rounded.features)
    keys, indices = in_order(kept.keys[first:], kept.indices[first:])

    def exact(chosen: Tensor) -> Tensor:
        offsets = F.pad(chosen.sum(dim=1).cumsum(dim=0), (1, 0))
        return distances.pairs(first, offsets, indices[chosen])

    kept.keys[first:], proved = rounded.refine(keys, sign, exact, min(count, keys.shape[1]))
    kept.indices[first:] = indices
    return proved


def _tiles(num_queries: int, num_rows: int, memory: int) -> Iterator[tuple[slice, slice]]:
    """Tiles on and above the diagonal; none has both queries and gallery among its rows."""
    side = max(1, min(_MAX_SIDE, int((memory / 16) ** 0.5)))
    edges = [*range(0, num_queries, side), *range(num_queries, num_rows, side), num_rows]
    ranges = [slice(*ends) for ends in pairwise(edges)]
    return combinations_with_replacement(ranges, 2)


def _shift(rows: slice, by: int) -> slice:
    return slice(rows.start + by, rows.stop + by)
