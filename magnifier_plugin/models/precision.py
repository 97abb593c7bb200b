"""The precision in which sums and losses are computed."""

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """Convert float16 and bfloat16 to float32; keep float32 and float64.

    Args:
        tensor: floating point, any shape.
    """
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def mean_in_float32(tensor: Tensor, dim: tuple[int, ...] | None = None) -> Tensor:
    """Mean, accumulated and returned in at least float32, without converting the input first.

    Args:
        tensor: floating point, any shape.
        dim: dimensions to average over; None for all.
    """
    return tensor.mean(dim, dtype=torch.promote_types(tensor.dtype, torch.float32))
