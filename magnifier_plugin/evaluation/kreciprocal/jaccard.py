"""Jaccard distances between sparse encodings, through an inverted index (Zhong et al., Eq. 10)."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

# Working memory for one pair of a query's entry and a gallery image's entry, in int64 and float32.
_PAIR_BYTES = 48


class InvertedIndex:
    """For each column of the encoding, the gallery images that have a weight there.

    Args:
        encoding: float32 [N, N], sparse COO, coalesced; the first Q rows are the queries.
        num_queries: Q.
    """

    def __init__(self, encoding: Tensor, num_queries: int) -> None:
        rows, columns = encoding.indices()
        values = encoding.values()
        per_row = torch.bincount(rows, minlength=len(encoding))
        split = int(per_row[:num_queries].sum())
        by_column = columns[split:].argsort(stable=True)
        self.gallery = rows[split:][by_column] - num_queries
        self.weights = values[split:][by_column]
        self.num_queries, self.num_gallery = num_queries, len(encoding) - num_queries

        # The entries of the queries, and where each one's column starts in the index.
        per_column = torch.bincount(columns[split:], minlength=len(encoding))
        self.query, self.value = rows[:split], values[:split]
        self.count = per_column[columns[:split]]
        self.start = (per_column.cumsum(0) - per_column)[columns[:split]]
        self.entries = F.pad(per_row[:num_queries].cumsum(0), (1, 0))
        self.pairs = F.pad(self.count.cumsum(0), (1, 0))[self.entries]

    def blocks(self, memory: int) -> Iterator[slice]:
        """Slices of at least one query that `distances` can compute within `memory` bytes."""
        rows = max(1, memory // (16 * self.num_gallery))
        start = 0
        while start < self.num_queries:
            most = self.pairs[start] + memory // _PAIR_BYTES
            stop = int(torch.searchsorted(self.pairs, most, right=True)) - 1
            stop = min(max(stop, start + 1), start + rows, self.num_queries)
            yield slice(start, stop)
            start = stop

    def distances(self, queries: slice) -> Tensor:
        """1 - sum(min) / sum(max) between queries and gallery, float32 [b, G].

        Each row of the encoding sums to 1, so sum(max) = 2 - sum(min).
        """
        entries = slice(*self.entries[[queries.start, queries.stop]].tolist())
        count = self.count[entries]
        entry = torch.repeat_interleave(count)  # number of each pair's entry among these queries'
        # Pair p of an entry is p places after the entry's start in the index.
        ahead = self.start[entries] - (count.cumsum(0) - count)
        posting = ahead.index_select(0, entry)
        posting += torch.arange(len(entry), device=entry.device)
        cell = (self.query[entries] - queries.start).mul_(self.num_gallery).index_select(0, entry)
        cell += self.gallery.index_select(0, posting)
        weight = torch.minimum(
            self.value[entries].index_select(0, entry), self.weights.index_select(0, posting)
        )
        shared = weight.new_zeros(queries.stop - queries.start, self.num_gallery)
        shared.view(-1).index_add_(0, cell, weight)
        return (shared / (2 - shared)).neg_().add_(1)
