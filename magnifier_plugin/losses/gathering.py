"""Access to the parts of a batch that other processes hold, for losses over the whole batch."""

from torch import Tensor


class Gathering:
    """The batch of a single process; `engine.distributed.GatheredBatch` is for several processes.

    By default a process's losses are means over its share of the batch, and gradients are averaged
    over the processes. If instead every process computes a loss over the whole batch with these
    methods, the averaged gradient is that of one process with the whole batch.
    """

    def rows(self, tensor: Tensor) -> Tensor:
        """[b, …] of this process → [B, …] of all processes, in their order, with the gradient."""
        return tensor

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over the processes, with the gradient."""
        return tensor

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean over the processes, with the gradient."""
        return tensor
