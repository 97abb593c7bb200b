"""Exact search for the nearest gallery embeddings, in memory or in a memory-mapped file."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from magnifier_plugin.evaluation.checks import as_finite
from magnifier_plugin.evaluation.distances import (
    METRICS,
    distance_matrix,
    square_norms,
    squared_distances,
)
from magnifier_plugin.evaluation.kreciprocal.neighbours import nearest_in_order
from magnifier_plugin.evaluation.scaling import l2_normalise

_BLOCK_BYTES = 2**24  # bytes of gallery embeddings that are compared at a time
_DISTANCE_BYTES = 2**28  # bytes of the distances of a group of queries to the whole gallery
# Range of norms whose squares and products are normal float32 numbers.
_ORDINARY = 1e-9, 1e9


class Nearest(NamedTuple):
    """The nearest gallery images of each query, in order of (distance, index)."""

    indices: Tensor
    """int64 [Q, count], rows of the gallery."""
    distances: Tensor
    """float32 [Q, count]."""


@torch.no_grad()
def nearest(
    query: Tensor | np.ndarray,
    gallery: Tensor | np.ndarray,
    count: int,
    *,
    metric: str = "euclidean",
    normalise: bool = False,
) -> Nearest:
    """Finds the nearest gallery embeddings of each query on the CPU, exactly, in bounded memory.

    Besides the query it needs about 0.3 GiB. If the gallery does not fit into memory, pass a
    memory-mapped file, `numpy.load("features.npy", mmap_mode="r")`; it is read once per 2^26 / G
    queries.

    Args:
        query: floating point [Q, D].
        gallery: floating point [G, D]; half precision is converted to float32.
        count: number of neighbours of each query, at least 1; at most G are returned.
        metric: "euclidean" (squared, as in torchreid) or "cosine".
        normalise: L2-normalise both first (`test.normalize_feature`).
    Returns:
        Indices and distances; equal distances are ordered by index.
    Raises:
        ValueError: count is below 1, the metric is unknown, D differs, the gallery is empty, or a
            value is not finite, and the message names the rows.
    """
    if count < 1:
        raise ValueError(f"count: expected at least 1 neighbour, got {count}")
    if metric not in METRICS:
        raise ValueError(f"metric: expected {' or '.join(map(repr, METRICS))}, got {metric!r}")
    query = as_finite("query features", query)
    if gallery.ndim != 2 or gallery.shape[1] != query.shape[1] or not len(gallery):
        raise ValueError(
            f"gallery features: expected [G, {query.shape[1]}] like the query's, got "
            f"{list(gallery.shape)}; were both extracted by the same model?"
        )
    normalise = normalise or metric == "cosine"
    query = l2_normalise(query) if normalise else query
    count = min(count, len(gallery))
    indices = torch.empty(len(query), count, dtype=torch.int64)
    distances = torch.empty(len(query), count)
    group = max(1, _DISTANCE_BYTES // (4 * len(gallery)))
    for start in range(0, len(query), group):
        rows = slice(start, start + group)
        keys = _to_gallery(query[rows], gallery, metric, normalise)
        indices[rows] = nearest_in_order(keys, count)
        distances[rows] = keys.gather(1, indices[rows]).clamp_(min=0)  # rounding can go below 0
    return Nearest(indices, distances)


def _to_gallery(
    query: Tensor, gallery: Tensor | np.ndarray, metric: str, normalise: bool
) -> Tensor:
    """All distances of some queries, float32 [b, G]; the gallery is read in blocks."""
    result = torch.empty(len(query), len(gallery))
    cosine = metric == "cosine"
    # For vectors of norm 1, the cosine distance is half the squared Euclidean distance.
    norms = torch.ones(len(query)) if cosine else square_norms(query)
    ordinary = bool((norms <= _ORDINARY[1] ** 2).all())
    rows = max(1, _BLOCK_BYTES // (4 * query.shape[1]))
    buffer = torch.empty(min(rows, len(gallery)), query.shape[1])
    for start in range(0, len(gallery), rows):
        part = gallery[start : start + rows]
        block = buffer[: len(part)]
        if isinstance(part, np.ndarray):
            block.numpy()[...] = part  # torch does not accept read-only arrays
        else:
            block.copy_(part)
        out = result[:, start : start + rows]
        lengths = torch.linalg.vector_norm(block, dim=1)
        fits = (lengths <= _ORDINARY[1]) & ((lengths >= _ORDINARY[0]) | (lengths == 0))
        if ordinary and bool(fits.all()):
            if normalise:
                block.div_(lengths.masked_fill(lengths == 0, 1)[:, None])
                lengths = torch.ones_like(lengths) if cosine else (lengths > 0).float()
            squared_distances(query, block, norms, lengths.square(), out=out)
            if cosine:
                out.div_(2)
        else:
            block = as_finite("gallery features", block, first_row=start)
            out.copy_(distance_matrix(query, l2_normalise(block) if normalise else block, metric))
    return result
