"""k-reciprocal encoding: an image as a sparse vector of its neighbours (Zhong et al., CVPR 2017).

Each of the paper's sets holds only a few of the N rows, so they are stored as neighbour lists.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from magnifier_plugin.evaluation.kreciprocal.sorting import sort_rows
from magnifier_plugin.evaluation.kreciprocal.sparse import square, without_sparse_warnings

# (first row, CSR offsets, columns) → distances of these pairs; see `RowDistances.between`.
Between = Callable[[int, Tensor, Tensor], Tensor]


class Reciprocal(NamedTuple):
    """R(i, k): those of the k + 1 nearest rows of row i whose own k + 1 nearest rows include i."""

    indices: Tensor
    """int64 [N, k + 1], the nearest rows."""
    mask: Tensor
    """bool [N, k + 1], which of them are in R."""


def encode(indices: Tensor, between: Between, k1: int, memory: int) -> Tensor:
    """V: row i holds exp(-d(i, j)) for the members j of R*(i, k1), divided by their sum (Eq. 7).

    The division is that of the authors' code. A row whose R* is empty, which ties can cause, is 0.

    Args:
        indices: int64 [N, K], K > k1, each row's nearest rows in order, itself included.
        between: distances of pairs, as `RowDistances.between`.
        k1: size of the neighbourhoods, at least 1.
        memory: bytes of working memory.
    Returns:
        float32 [N, N], sparse COO, coalesced.
    """
    num_rows = len(indices)
    whole = reciprocal(indices[:, : k1 + 1], memory)
    # Like numpy's around in the authors' code, round() rounds half to even.
    half = reciprocal(indices[:, : round(k1 / 2) + 1], memory)
    row_bytes = 2 * num_rows + 32 * (k1 + 1) * half.mask.shape[1]
    parts = []
    for block in blocks(num_rows, memory // row_bytes):
        members = _expanded(block, whole, half)
        rows, slots = (members < num_rows).nonzero(as_tuple=True)
        columns = members[rows, slots].long()
        counts = torch.bincount(rows, minlength=len(members))
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        weights = between(block.start, offsets, columns).neg_().exp_()
        sums = weights.new_zeros(len(members)).index_add_(0, rows, weights)
        parts.append((rows + block.start, columns, weights / sums[rows]))
    rows, columns, weights = (torch.cat(part) for part in zip(*parts, strict=True))
    return square(rows, columns, weights, num_rows)


def expand_locally(encoding: Tensor, indices: Tensor, k2: int) -> Tensor:
    """Local query expansion: each row becomes the mean over its k2 nearest rows (Eq. 11).

    Args:
        encoding: float32 [N, N], sparse COO, coalesced.
        indices: int64 [N, K], K >= k2, each row's nearest rows in order, itself included.
        k2: number of rows in the mean, at least 1; 1 returns the encoding unchanged.
    Returns:
        float32 [N, N], sparse COO, coalesced.
    """
    if k2 == 1:  # as in torchreid, even if the nearest row of some row is not itself
        return encoding
    num_rows = len(indices)
    columns = indices[:, :k2].flatten()
    rows = torch.arange(num_rows, device=indices.device).repeat_interleave(k2)
    mean = square(rows, columns, torch.full_like(rows, 1 / k2, dtype=encoding.dtype), num_rows)
    with without_sparse_warnings():
        expanded: Tensor = torch.sparse.mm(mean, encoding)
        return expanded.coalesce()


def reciprocal(indices: Tensor, memory: int) -> Reciprocal:
    """Finds which of each row's nearest rows, int64 [N, k + 1], are reciprocal neighbours."""
    mask = torch.empty_like(indices, dtype=torch.bool)
    for block in blocks(len(indices), memory // (10 * indices.shape[1] ** 2)):
        rows = torch.arange(block.start, block.stop, device=indices.device)
        mask[block] = (indices[indices[block]] == rows[:, None, None]).any(dim=2)
    return Reciprocal(indices, mask)


def blocks(num_rows: int, block_rows: int) -> Iterator[slice]:
    """Consecutive slices of at most max(1, block_rows) rows."""
    block_rows = max(1, block_rows)
    for start in range(0, num_rows, block_rows):
        yield slice(start, min(start + block_rows, num_rows))


def _expanded(block: slice, whole: Reciprocal, half: Reciprocal) -> Tensor:
    """R*(i, k1) of the rows in a block.

    It is R(i, k1) and each R(j, k1/2), j in R(i, k1), more than 2/3 of which is in R(i, k1).

    Returns:
        int32 [b, M], the members of each row in ascending order; N marks empty places.
    """
    num_rows = len(whole.indices)
    near, in_near = whole.indices[block], whole.mask[block]  # [b, k1 + 1]
    others = half.indices[near].flatten(1)  # [b, (k1 + 1) * (k1/2 + 1)]
    in_others = half.mask[near] & in_near[:, :, None]  # [b, k1 + 1, k1/2 + 1]

    member = torch.zeros(len(near), num_rows, dtype=torch.bool, device=near.device)
    member.scatter_(1, near, in_near)
    shared = member.gather(1, others).view_as(in_others) & in_others
    accepted = 3 * shared.sum(dim=2) > 2 * in_others.sum(dim=2)
    in_others &= accepted[:, :, None]

    members = torch.cat([near, others], dim=1).int()
    members[~torch.cat([in_near, in_others.flatten(1)], dim=1)] = num_rows
    members = sort_rows(members)
    members[:, 1:][members[:, 1:] == members[:, :-1]] = num_rows
    return members
