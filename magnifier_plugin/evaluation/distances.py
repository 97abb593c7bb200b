"""Distances between embeddings, with the same values as torchreid's `compute_distance_matrix`."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from magnifier_plugin.evaluation.checks import as_features
from magnifier_plugin.evaluation.scaling import l2_normalise

METRICS = ("euclidean", "cosine")
_NORM_ROWS = 256  # number of feature rows whose squares fit into the CPU's cache
_BLOCK_BYTES = 2**24  # bytes of distances that are computed at a time
_MAX_DISTANCE = torch.finfo(torch.float32).max


@torch.no_grad()
def distance_matrix(query: Tensor, gallery: Tensor, metric: str = "euclidean") -> Tensor:
    """All distances between two sets of embeddings, in float32 even inside an autocast region.

    Args:
        query: floating point [Q, D]; half precision is converted to float32.
        gallery: floating point [G, D] on the same device.
        metric: "euclidean" is the *squared* Euclidean distance, "cosine" is 1 - cosine; both are
            torchreid's names.
    Returns:
        float32 [Q, G]; rounding can make a distance slightly negative. Euclidean distances of
        features below 1e-19 are rounded to 0.
    Raises:
        ValueError: as in `as_features`, the metric is unknown, or the features are so large (norms
            from 1e19) that a squared Euclidean distance exceeds float32.
    """
    query, gallery = as_features(query, gallery)
    with torch.autocast(query.device.type, enabled=False):
        if metric == "euclidean":
            norms = square_norms(query), square_norms(gallery)
            if float(norms[0].amax()) ** 0.5 + float(norms[1].amax()) ** 0.5 >= _MAX_DISTANCE**0.5:
                raise _beyond_float32(query, gallery)
            return _in_blocks(query, gallery, *norms)
        if metric == "cosine":  # for vectors of norm 1, half the squared Euclidean distance
            ones = query.new_ones(len(query)), query.new_ones(len(gallery))
            return _in_blocks(l2_normalise(query), l2_normalise(gallery), *ones).div_(2)
    raise ValueError(f"metric: expected {' or '.join(map(repr, METRICS))}, got {metric!r}")


def square_norms(features: Tensor) -> Tensor:
    """|x|² of each row, float32 [N]."""
    return torch.cat([block.square().sum(dim=1) for block in torch.split(features, _NORM_ROWS)])


def squared_distances(
    rows: Tensor,
    others: Tensor,
    row_norms: Tensor,
    other_norms: Tensor,
    out: Tensor | None = None,
) -> Tensor:
    """|x|² + |y|² - 2 x·y for all pairs of rows [m, D] and others [n, D], float32 [m, n].

    Args:
        rows, others: float32.
        row_norms, other_norms: their `square_norms`.
        out: the tensor for the result; None: a new one.
    """
    distances = torch.add(row_norms[:, None], other_norms, out=out)
    if not _onednn_pays(rows):
        return distances.addmm_(rows, others.T, alpha=-2)
    return distances.sub_(F.linear(rows.to_mkldnn(), others).to_dense(), alpha=2)


def _beyond_float32(query: Tensor, gallery: Tensor) -> ValueError:
    norms = (float(part.double().norm(dim=1).amax()) for part in (query, gallery))
    return ValueError(
        f"features: expected norms of query and gallery below {_MAX_DISTANCE**0.5 / 2:.2g}, since "
        f"squared Euclidean distances above {_MAX_DISTANCE:.2g} exceed float32; found norms up to "
        f"{next(norms):.2g} and {next(norms):.2g}; scale or L2-normalise the features, or use the "
        "metric 'cosine'"
    )


def _in_blocks(query: Tensor, gallery: Tensor, *norms: Tensor) -> Tensor:
    """`squared_distances`, computed block by block to need little memory besides the result."""
    result = query.new_empty(len(query), len(gallery))
    block_rows = max(1, _BLOCK_BYTES // (4 * len(gallery)))
    parts = (torch.split(tensor, block_rows) for tensor in (result, query, norms[0]))
    for block, rows, row_norms in zip(*parts, strict=True):
        squared_distances(rows, gallery, row_norms, norms[1], out=block)
    return result


def _onednn_pays(features: Tensor) -> bool:
    """Whether to multiply float32 matrices with oneDNN.

    The BLAS that torch calls does not use AVX-512 on AMD's processors; oneDNN does, and is twice as
    fast there.
    """
    has_onednn: Callable[[], bool] = torch.backends.mkldnn.is_available
    return (
        features.device.type == "cpu"
        and has_onednn()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
    )
