"""Features and distances whose squares leave float32's range, brought back into it."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

# Between these, squares, their sums over a million dimensions, and differences a million times
# smaller than the largest value are all normal float32 numbers.
_SMALLEST, _LARGEST = 2.0**-20, 2.0**50


def l2_normalise(features: Tensor) -> Tensor:
    """Each row divided by its Euclidean norm, also where the squares overflow or underflow.

    Args:
        features: floating point [N, D], finite.
    Returns:
        float32 [N, D], rows of norm 1; a row of zeros stays zero.
    """
    features = features.float()
    least, most = features.aminmax(dim=1, keepdim=True)
    largest = torch.maximum(most, -least)
    extreme = (largest < _SMALLEST) | (largest > _LARGEST)
    if extreme.any():
        features = features / largest.masked_fill(~extreme | (largest == 0), 1)
    return F.normalize(features)


def rescale(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The same tensors, or all of them times one power of two if their squares would overflow.

    For what depends on ratios only, as re-ranking does. A power of two changes no digit, unless a
    value is so much smaller than the largest one (by more than 1e50) that it becomes 0.

    Args:
        tensors: float32 or float64, any shape but not empty, finite.
    Returns:
        The tensors themselves if the largest absolute value is ordinary (1e-6 to 1e15), else
        float64 tensors with a largest absolute value in [2^49, 2^50).
    """
    ranges = [tensor.aminmax() for tensor in tensors]
    largest = max(max(-float(least), float(most)) for least, most in ranges)
    if largest == 0 or _SMALLEST <= largest <= _LARGEST:
        return tensors
    exponent = round(math.log2(_LARGEST)) - math.frexp(largest)[1]
    # 2^1000 is a float64; a largest value that needs more is below any float64 of full precision.
    factor = math.ldexp(1.0, min(exponent, 1000))
    return tuple(tensor.double() * factor for tensor in tensors)
