"""A search in bfloat16 that provably finds what a search in float32 finds.

Features are rounded to bfloat16 and multiplied at a multiple of float32's speed. How far such a
distance can be off is bounded (Cauchy-Schwarz on what the rounding took away), so a row's true
neighbours are among the candidates whose rounded distance comes within that bound; only candidates
are computed in float32. A row that kept too few candidates to prove this says so.
"""

from collections.abc import Callable

import torch
from torch import Tensor

_ROUNDING = 2.0**-8  # bfloat16's largest relative error
_LEAST_DIM = 1536  # below it, the multiplications that are saved cost less than the repairs
_BLOCK = 256  # rows; they stay in the cache


class RoundedFeatures:
    """bfloat16 copies of features [n, D], centred: distances stay, the norms and errors shrink."""

    def __init__(self, features: Tensor, square_norms: Tensor):
        n, dim = features.shape
        centre = features.mean(dim=0)
        self.features = torch.empty_like(features, dtype=torch.bfloat16)
        self.square_norms, lost = torch.empty_like(square_norms), torch.empty_like(square_norms)
        for start in range(0, n, _BLOCK):
            block = slice(start, start + _BLOCK)
            centred = features[block] - centre
            self.square_norms[block] = centred.square().sum(dim=1)
            self.features[block] = centred
            lost[block] = centred.sub_(self.features[block]).norm(dim=1)
        kept, norms = self.square_norms.sqrt(), square_norms.sqrt()
        # |x·y - x̂·ŷ| <= |x - x̂||ŷ| + |x||y - ŷ|, and float32's own error on both sides.
        float32 = (dim + 32) * 2.0**-23 * (norms + norms.max()).square()
        self.error = 2 * (lost * (kept + lost).max() + kept * lost.max()) + float32

    def tile(self, rows: slice, columns: slice) -> Tensor:
        """Squared Euclidean distances, rounded, float32 [rows, columns]."""
        products = self.features[rows] @ self.features[columns].T
        norms = self.square_norms[rows, None] + self.square_norms[columns]
        return norms.sub_(products, alpha=2)

    def bound(self, rows: slice, distances: Tensor) -> Tensor:
        """How far each of these rounded distances [rows, C] can be from the true one.

        It grows slower than they do: adding or taking it away leaves them in their order.
        """
        # The product itself was rounded too, by a share of itself. It is (|x|² + |y|² - d) / 2.
        least, most = self.square_norms.aminmax()
        norms = self.square_norms[rows, None]
        product = torch.maximum(norms + most - distances, distances - norms - least)
        return self.error[rows, None] + _ROUNDING * product

    def refine(
        self, rows: slice, keys: Tensor, sign: int, exact: Callable[[Tensor], Tensor], count: int
    ) -> tuple[Tensor, Tensor]:
        """Computes exactly what can matter of the rounded keys.

        Args:
            rows: whose keys these are.
            keys: float32 [rows, C], ascending, the C smallest of each row: sign times the rounded
                distance.
            sign: 1 where the nearest are asked for, -1 where the furthest are.
            exact: bool [rows, C], some of them → their exact distances, float32 [some].
            count: how many exact keys each row must be sure of.
        Returns:
            exact keys, infinite where they cannot matter, and bool [rows]: whether the `count`
            smallest of all are proved to be among them.
        """
        bound = self.bound(rows, sign * keys)
        chosen = torch.zeros_like(keys, dtype=torch.bool)
        chosen[:, :count] = True
        found = torch.full_like(keys, torch.inf)
        found[chosen] = sign * exact(chosen)
        worst = found[:, :count].amax(dim=1, keepdim=True)
        further = (keys - bound <= worst) & ~chosen
        found[further] = sign * exact(further)
        # Whoever was not kept has a key of at least the last one's, so its true key is larger than:
        proved = keys[:, -1] - bound[:, -1] > worst[:, 0]
        # The bound assumes products summed in float32; it is cheap to see that it holds.
        proved &= ((found - keys).abs() <= bound).logical_or_(found.isinf()).all(dim=1)
        return found, proved


def bfloat16_pays(features: Tensor) -> bool:
    """Whether a CPU multiplies bfloat16 so much faster that it makes up for the repairs.

    AMX does. AVX512-BF16 is twice as fast as float32 in AVX-512, which the repairs eat up. GPUs sum
    bfloat16 products in ways that the bound does not cover, and are fast in float32.
    """
    if features.device.type != "cpu" or features.shape[1] < _LEAST_DIM:
        return False
    # Not in every torch that this runs on.
    return getattr(torch.cpu, "get_capabilities", dict)().get("amx_bf16", False)
