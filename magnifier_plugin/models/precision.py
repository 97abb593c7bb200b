"""Which precision sums and losses are computed in."""

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """Raise half and bfloat16 to float32; keep float32 and float64.

    Args:
        tensor: floating point, any shape.
    """
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def mean_in_float32(tensor: Tensor, dim: tuple[int, ...] | None = None) -> Tensor:
    """Mean that is summed and returned in at least float32, without a copy of the input.

    Args:
        tensor: floating point, any shape.
        dim: dimensions to average over, default all.
    """
    return tensor.mean(dim, dtype=torch.promote_types(tensor.dtype, torch.float32))
