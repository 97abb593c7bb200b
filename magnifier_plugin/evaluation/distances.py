"""Distances between embeddings, the same numbers as torchreid's `compute_distance_matrix`."""

import torch
from torch import Tensor
from torch.nn import functional as F

from magnifier_plugin.evaluation.checks import as_features

METRICS = ("euclidean", "cosine")
_NORM_ROWS = 256  # rows of features whose squares stay in the cache
_BLOCK_BYTES = 2**24  # of distances that are computed at a time


@torch.no_grad()
def distance_matrix(query: Tensor, gallery: Tensor, metric: str = "euclidean") -> Tensor:
    """All distances between two sets of embeddings.

    Args:
        query: floating point [Q, D]; half precision is computed in float32.
        gallery: floating point [G, D] on the same device.
        metric: "euclidean" is the *squared* Euclidean distance, "cosine" is 1 - cosine; both names
            as in torchreid.
    Returns:
        float32 [Q, G]; rounding can leave a distance slightly below 0.
    Raises:
        ValueError: the features fail `as_features`, or the metric is unknown.
    """
    query, gallery = as_features(query, gallery)
    if metric == "euclidean":
        return _in_blocks(query, gallery, square_norms(query), square_norms(gallery))
    if metric == "cosine":  # of vectors of length 1 it is half the squared Euclidean distance
        ones = query.new_ones(len(query)), query.new_ones(len(gallery))
        return _in_blocks(F.normalize(query), F.normalize(gallery), *ones).div_(2)
    raise ValueError(f"metric: expected {' or '.join(map(repr, METRICS))}, got {metric!r}")


def square_norms(features: Tensor) -> Tensor:
    """|x|² of each row, float32 [N]."""
    return torch.cat([block.square().sum(dim=1) for block in features.split(_NORM_ROWS)])


def squared_distances(
    rows: Tensor,
    others: Tensor,
    row_norms: Tensor,
    other_norms: Tensor,
    out: Tensor | None = None,
) -> Tensor:
    """|x|² + |y|² - 2 x·y of all rows [m, D] and others [n, D], float32 [m, n].

    Args:
        rows, others: float32.
        row_norms, other_norms: their `square_norms`.
        out: where to put the result, None for a new tensor.
    """
    distances = torch.add(row_norms[:, None], other_norms, out=out)
    if not _onednn_pays(rows):
        return distances.addmm_(rows, others.T, alpha=-2)
    return distances.sub_(F.linear(rows.to_mkldnn(), others).to_dense(), alpha=2)


def _in_blocks(query: Tensor, gallery: Tensor, *norms: Tensor) -> Tensor:
    """`squared_distances` that needs little memory besides its result."""
    result = query.new_empty(len(query), len(gallery))
    block_rows = max(1, _BLOCK_BYTES // (4 * len(gallery)))
    parts = (tensor.split(block_rows) for tensor in (result, query, norms[0]))
    for block, rows, row_norms in zip(*parts, strict=True):
        squared_distances(rows, gallery, row_norms, norms[1], out=block)
    return result


def _onednn_pays(features: Tensor) -> bool:
    """Whether to multiply float32 by oneDNN.

    The BLAS that torch calls leaves AVX-512 alone on AMD's processors, oneDNN does not and is twice
    as fast there.
    """
    return (
        features.device.type == "cpu"
        and torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
    )
