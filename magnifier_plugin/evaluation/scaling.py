"""Scaling of features and distances so that their squares stay within float32's range."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

# If the largest value is between these, its square, the sum of a million such squares, and
# differences a million times smaller than the value are all normal float32 numbers.
_SMALLEST, _LARGEST = 2.0**-20, 2.0**50


def l2_normalise(features: Tensor) -> Tensor:
    """Divides each row by its Euclidean norm, even if the squares would overflow or underflow.

    Args:
        features: floating point [N, D], finite.
    Returns:
        float32 [N, D], rows with norm 1; a row of zeros stays zero.
    """
    features = features.float()
    least, most = features.aminmax(dim=1, keepdim=True)
    largest = torch.maximum(most, -least)
    extreme = (largest < _SMALLEST) | (largest > _LARGEST)
    if extreme.any():
        features = features / largest.masked_fill(~extreme | (largest == 0), 1)
    return F.normalize(features)


def rescale(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Multiplies all tensors by one power of two if their squares would overflow or underflow.

    It is for computations that depend only on ratios, such as re-ranking. A power of two changes no
    digit. In float32, values over 1e52 times smaller than the largest may then lose digits or be 0.

    Args:
        tensors: float32 or float64, any shape but not empty, finite.
    Returns:
        The tensors themselves if the largest absolute value is ordinary (1e-6 to 1e15), else
        float64 tensors whose largest absolute value is in [2^49, 2^50), or less if it was below
        2^-950.
    """
    ranges = [tensor.aminmax() for tensor in tensors]
    largest = max(max(-float(least), float(most)) for least, most in ranges)
    if largest == 0 or _SMALLEST <= largest <= _LARGEST:
        return tensors
    exponent = round(math.log2(_LARGEST)) - math.frexp(largest)[1]
    # The limit keeps the factor finite. It affects only values below 2^-950, and still brings
    # float64's smallest normal value, 2^-1022, to 2^-22.
    factor = math.ldexp(1.0, min(exponent, 1000))
    return tuple(tensor.double() * factor for tensor in tensors)
