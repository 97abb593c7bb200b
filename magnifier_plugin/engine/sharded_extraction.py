"""Extraction of embeddings by several processes."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from magnifier_plugin.engine.distributed import Processes
from magnifier_plugin.evaluation.embeddings import (
    Embed,
    Embeddings,
    Extraction,
    extract_embeddings,
)


class ShardedExtraction(Extraction):
    """Extraction in which each process computes an equal, contiguous share of the embeddings."""

    def __init__(self, processes: Processes) -> None:
        self.processes = processes

    def agree(self, found: bool) -> bool:
        """The first process's value of `found`, in all processes."""
        return self.processes.from_first(found)

    def extract(
        self, embed: Embed, loader: DataLoader[Any], description: str
    ) -> tuple[Embeddings, float]:
        """All embeddings in the first process, in the loader's order; in the others, their share.

        If there are fewer images than processes, each process computes all embeddings.
        """
        dataset: Any = loader.dataset
        count, rank = self.processes.count, self.processes.rank
        if not 1 < count <= len(dataset):
            return extract_embeddings(embed, loader, description)
        bounds = [len(dataset) * number // count for number in range(count + 1)]
        share = range(bounds[rank], bounds[rank + 1])
        own, seconds = extract_embeddings(embed, _part_of(loader, share), description)
        sizes = [stop - start for start, stop in pairwise(bounds)]
        pids, camids = (
            _gathered(torch.from_numpy(ids).to(own.features.device), sizes, rank).cpu().numpy()
            for ids in (own.pids, own.camids)
        )
        return Embeddings(_gathered(own.features, sizes, rank), pids, camids), seconds


def _part_of(loader: DataLoader[Any], indices: range) -> DataLoader[Any]:
    return DataLoader(
        Subset(loader.dataset, indices),
        batch_size=loader.batch_size,
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
        collate_fn=loader.collate_fn,
        worker_init_fn=loader.worker_init_fn,
    )


def _gathered(tensor: Tensor, sizes: Sequence[int], rank: int) -> Tensor:
    """[n, …] per process → all rows in order in the first process; in others, their own share."""
    padded = tensor.new_zeros(max(sizes), *tensor.shape[1:])
    padded[: len(tensor)] = tensor
    parts = [torch.empty_like(padded) for _ in sizes] if rank == 0 else None
    dist.gather(padded, parts, dst=0)
    if parts is None:
        return tensor
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])
