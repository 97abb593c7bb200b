"""Whether gradients, weights and running statistics are finite."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def are_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether all values of all tensors are finite."""
    # On a CPU the Euclidean norm takes an eighth of the time of the largest absolute value; only
    # the former overflows if values are large.
    return any(bool(nn.utils.get_total_norm(tensors, p).isfinite()) for p in (2.0, math.inf))


def largest_statistic(model: nn.Module) -> Tensor:
    """Largest absolute value of the running statistics of batch norm: a scalar, 0 if none.

    If a batch's activations are huge, its variance overflows, but batch norm maps them to 0, so
    that loss and gradients stay finite. The statistics, used in a test, stay infinite for good.
    """
    statistics = [
        buffer
        for name, buffer in model.named_buffers()
        if name.endswith(("running_mean", "running_var"))
    ]
    if not statistics:
        return torch.zeros(())
    return nn.utils.get_total_norm(statistics, math.inf)
