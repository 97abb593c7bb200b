"""The nearest rows of each row, updated while distances are computed tile by tile."""

from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F

_GROUP = 8  # number of columns that are skipped together if even their smallest key is too large


class NearestRows:
    """The `count` smallest keys (distances) of each row so far, and their columns, unordered.

    Attributes:
        keys: float32 [N, count], infinite where a row has had fewer than `count` keys.
        indices: int64 [N, count], the columns.
    """

    def __init__(self, num_rows: int, count: int, device: torch.device) -> None:
        self.keys = torch.full((num_rows, count), torch.inf, device=device)
        self.indices = torch.zeros(num_rows, count, dtype=torch.int64, device=device)

    def update(self, rows: slice, columns: slice, keys: Tensor) -> None:
        """Adds the keys of `rows` and `columns`, float32 [rows, columns]; each pair only once.

        A group of columns is skipped if its smallest key is not below the largest kept key; of the
        other groups, at most `count` can contribute.
        """
        if padding := -keys.shape[1] % _GROUP:
            keys = F.pad(keys, (0, padding), value=torch.inf)
        groups = torch.unflatten(keys, 1, (_GROUP, -1))  # a group's columns are not adjacent
        # Pairwise minima are also fast for transposed keys.
        least = reduce(torch.minimum, groups.unbind(1)).contiguous()
        closer = least < self.keys[rows].amax(dim=1, keepdim=True)
        changed = closer.any(dim=1).nonzero().flatten()
        if len(changed) == 0:
            return
        count = self.keys.shape[1]
        num_groups = min(int(closer.sum(dim=1).amax()), count)
        best = least[changed].topk(num_groups, dim=1, largest=False, sorted=False).indices
        members = torch.arange(_GROUP, device=keys.device)[:, None] * least.shape[1]
        candidates = (best[:, None, :] + members).flatten(1)
        own = changed + rows.start
        merged = torch.cat([self.keys[own], keys[changed[:, None], candidates]], dim=1)
        indices = torch.cat([self.indices[own], candidates + columns.start], dim=1)
        self.keys[own], chosen = merged.topk(count, dim=1, largest=False, sorted=False)
        self.indices[own] = indices.gather(1, chosen)


def in_order(keys: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Sorts each row [N, count] by (key, index)."""
    indices, by_index = indices.sort(dim=1)
    keys, by_key = keys.gather(1, by_index).sort(dim=1, stable=True)
    return keys, indices.gather(1, by_key)


def nearest_in_order(keys: Tensor, count: int) -> Tensor:
    """Columns of the `count` smallest keys of each row [b, N], by (key, index).

    Returns:
        int64 [b, count].
    """
    kept = keys.topk(min(count + 1, keys.shape[1]), dim=1, largest=False)
    smallest, indices = in_order(*kept)
    tied = last_is_tied(smallest, count)
    indices[tied] = keys[tied].argsort(dim=1, stable=True)[:, : indices.shape[1]]
    return indices[:, :count]


def last_is_tied(keys: Tensor, count: int) -> Tensor:
    """Whether the last of the `count` smallest keys of a row is tied with the next one.

    If so, the smallest keys do not show which of the tied columns have the smallest indices.

    Args:
        keys: float32 [N, C], ascending, the C smallest keys of each row; C == count if there are no
            others, and count + 1 otherwise.
        count: number of keys that are wanted.
    Returns:
        bool [N].
    """
    if keys.shape[1] == count:
        return keys.new_zeros(len(keys), dtype=torch.bool)
    return keys[:, count - 1] == keys[:, count]
