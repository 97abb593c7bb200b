"""Whether gradients and weights are finite."""

import math
from collections.abc import Sequence

from torch import Tensor, nn


def are_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether all values of all tensors are finite; large ones, whose squares overflow, are."""
    return bool(nn.utils.get_total_norm(tensors, math.inf).isfinite())
