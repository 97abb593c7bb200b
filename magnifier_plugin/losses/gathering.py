"""What a loss needs of the other processes that share a batch."""

from torch import Tensor


class Gathering:
    """A batch of one process, which is whole; `engine.distributed` has that of several.

    A process's losses are means over its share of the batch, and the processes' gradients are
    averaged: a loss that every process computes of the whole batch then has the gradient of one
    process with that batch.
    """

    def rows(self, tensor: Tensor) -> Tensor:
        """[b, …] of this process's images → [B, …] of all, in the order of the processes."""
        return tensor

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over the processes, with its gradient."""
        return tensor

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean over the processes, with its gradient."""
        return tensor
