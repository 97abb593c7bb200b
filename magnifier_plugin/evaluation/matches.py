"""The matches of every query and their ranks, without a loop over queries.

The CMC, AP and INP of a query depend only on the ranks of its matches, so the whole ranking is not
computed. The distances of each row are sorted without their indices, which is several times faster
than an argsort, and a binary search in them finds the rank of a match.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from magnifier_plugin.evaluation.kreciprocal.sorting import sort_rows

_BLOCK_BYTES = 2**24  # bytes of distances that are sorted at a time


class Matches(NamedTuple):
    """The P pairs of a query and a gallery image of the same identity and another camera.

    The pairs are sorted by query, then by rank.
    """

    query: np.ndarray
    """int64 [P], the query's row in the distance matrix."""
    gallery: np.ndarray
    """int64 [P], the gallery image's column."""
    rank: np.ndarray
    """int64 [P], the gallery image's rank, from 1, among those that are not left out."""
    order: np.ndarray
    """int64 [P], 1 for the query's first match, 2 for its second, …"""
    total: np.ndarray
    """int64 [P], the query's number of matches."""


def find_matches(
    distmat: Tensor,
    q_pids: np.ndarray,
    g_pids: np.ndarray,
    q_camids: np.ndarray,
    g_camids: np.ndarray,
) -> Matches:
    """Finds the ranks of all matches.

    A query's gallery images of the same identity and camera are left out.

    Args:
        distmat: float32 or float64 [Q, G] on any device. Among equal distances the smaller gallery
            index comes first.
        q_pids, q_camids: integers [Q].
        g_pids, g_camids: integers [G].
    Raises:
        ValueError: a distance is NaN.
    """
    query, gallery = _same_identity(q_pids, g_pids)
    ahead = _count_ahead(distmat, query, gallery)
    by_rank = np.lexsort((ahead, query))
    query, gallery, ahead = query[by_rank], gallery[by_rank], ahead[by_rank]

    kept = q_camids[query] != g_camids[gallery]
    rank = ahead + 1 - _running_count(~kept, query)
    query, gallery, rank = query[kept], gallery[kept], rank[kept]
    order = _running_count(np.ones_like(query), query)
    total = np.bincount(query, minlength=len(q_pids))[query]
    return Matches(query, gallery, rank, order, total)


def find_first_hits(
    distmat: Tensor,
    q_pids: np.ndarray,
    g_pids: np.ndarray,
    q_camids: np.ndarray,
    g_camids: np.ndarray,
) -> np.ndarray:
    """Finds the gallery image that comes first for each query, whether it is a match or not.

    Args:
        distmat, q_pids, g_pids, q_camids, g_camids: as in `find_matches`.
    Returns:
        int64 [Q], columns of the distance matrix; -1 if the whole gallery is left out for a query.
    """
    hits = np.empty(len(distmat), np.int64)
    step = max(1, _BLOCK_BYTES // (distmat.shape[1] * distmat.element_size()))
    for start in range(0, len(distmat), step):
        block = slice(start, start + step)
        dropped = q_pids[block, None] == g_pids
        dropped &= q_camids[block, None] == g_camids
        distances = np.where(dropped, np.inf, distmat[block].numpy(force=True))
        nearest = distances.argmin(axis=1)
        unclear = dropped[np.arange(len(nearest)), nearest]  # all kept distances are infinite too
        nearest[unclear] = (~dropped[unclear]).argmax(axis=1)
        hits[block] = np.where(dropped.all(axis=1), -1, nearest)
    return hits


def draw_single_shots(
    distmat: Tensor, g_pids: np.ndarray, matches: Matches, generator: np.random.Generator
) -> np.ndarray:
    """Draws one image of each gallery identity, and ranks each query's identity among them.

    Each query has its own draw, in which the image of its identity is one of its matches.

    Args:
        distmat: floating point [Q, G].
        g_pids: integers [G].
        matches: the result of `find_matches` for these distances.
        generator: random generator of the draws.
    Returns:
        int64 [V], the rank from 1 for each query that has a match.
    """
    first = np.flatnonzero(matches.order == 1)
    queries, total = matches.query[first], matches.total[first]
    targets = matches.gallery[first + generator.integers(total)]
    own = g_pids[targets]

    by_pid = np.argsort(g_pids, kind="stable")
    pids, start, count = np.unique(g_pids[by_pid], return_index=True, return_counts=True)
    ranks = np.empty(len(queries), np.int64)
    step = max(1, _BLOCK_BYTES // (16 * len(pids)))
    for i in range(0, len(queries), step):
        block = slice(i, i + step)
        shape = (len(queries[block]), len(pids))
        drawn = by_pid[start + generator.integers(np.broadcast_to(count, shape))]
        distances = _gather(distmat, queries[block, None], drawn)
        target = _gather(distmat, queries[block], targets[block])[:, None]
        closer = distances < target
        closer |= (distances == target) & (drawn < targets[block, None])
        closer &= pids != own[block, None]
        ranks[block] = 1 + closer.sum(axis=1)
    return ranks


def _gather(distmat: Tensor, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    indices = tuple(torch.from_numpy(index).to(distmat.device) for index in (rows, columns))
    return distmat[indices].cpu().numpy()


def _same_identity(q_pids: np.ndarray, g_pids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs (query, gallery image) with the same identity, sorted by query."""
    by_pid = np.argsort(g_pids, kind="stable")
    start = np.searchsorted(g_pids, q_pids, sorter=by_pid)
    count = np.searchsorted(g_pids, q_pids, side="right", sorter=by_pid) - start
    query = np.repeat(np.arange(len(q_pids)), count)
    return query, by_pid[start[query] + _running_count(np.ones_like(query), query) - 1]


def _running_count(flags: np.ndarray, group: np.ndarray) -> np.ndarray:
    """For each entry, the number of flags set in its group up to and including it.

    The groups must be sorted.
    """
    running = np.concatenate([[0], flags.cumsum()])
    counts: np.ndarray = running[1:] - running[np.searchsorted(group, group)]
    return counts


def _count_ahead(distmat: Tensor, query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """How many gallery images precede that of each pair; the pairs are sorted by query."""
    ahead = [np.empty(0, np.int64)]
    step = max(1, _BLOCK_BYTES // (distmat.shape[1] * distmat.element_size()))
    for start in range(0, len(distmat), step):
        block = distmat[start : start + step]
        ordered = sort_rows(block)
        if ordered[:, -1].isnan().any():  # sorting puts NaN last
            row = start + int(ordered[:, -1].isnan().nonzero()[0])
            raise ValueError(f"distmat: NaN in row {row}; were the features finite?")
        pairs = slice(*np.searchsorted(query, (start, start + step)))
        rows = torch.from_numpy(query[pairs] - start).to(distmat.device)
        columns = torch.from_numpy(gallery[pairs]).to(distmat.device)
        ahead.append(_count_ahead_in_block(block, ordered, rows, columns).cpu().numpy())
    return np.concatenate(ahead)


def _count_ahead_in_block(block: Tensor, ordered: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    if len(rows) == 0:
        return rows
    slots = torch.arange(len(rows), device=rows.device) - torch.searchsorted(rows, rows)
    values = block.new_zeros(len(block), int(slots.max()) + 1)  # a row's pairs in its first slots
    values[rows, slots] = block[rows, columns]
    closer = torch.searchsorted(ordered, values)[rows, slots]
    closer_or_equal = torch.searchsorted(ordered, values, right=True)[rows, slots]

    tied = closer_or_equal - closer > 1
    if tied.any():  # only these pairs depend on the order of equal distances
        closer[tied] += _equal_before(block, rows[tied], columns[tied])
    return closer


def _equal_before(block: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """For each pair, how many values left of its column are equal to its value, int64 [P].

    There are few such pairs, and each needs a scan of about half a row; a loop in numpy neither
    copies nor sorts.
    """
    values = block.numpy(force=True)
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    counts = [np.count_nonzero(values[i, :j] == values[i, j]) for i, j in pairs]
    return torch.tensor(counts, device=block.device)
