"""k-reciprocal re-ranking (Zhong et al., CVPR 2017), exact, in bounded memory.

The authors' code, and torchreid's copy of it, hold several dense N × N matrices of all N = Q + G
images and loop over rows in Python. Here all sets are neighbour lists; only the result is dense.
Ties: of two images at the same distance, the one with the smaller index is nearer; queries come
before the gallery.
"""

import math

import numpy as np
import torch
from torch import Tensor

from magnifier_plugin.evaluation.checks import as_distances, as_features
from magnifier_plugin.evaluation.kreciprocal.encoding import encode, expand_locally
from magnifier_plugin.evaluation.kreciprocal.jaccard import InvertedIndex
from magnifier_plugin.evaluation.kreciprocal.row_distances import (
    FeatureDistances,
    MatrixDistances,
    RowDistances,
)
from magnifier_plugin.evaluation.scaling import rescale

Array = np.ndarray | Tensor

FORMS = ("torchreid", "paper")
_GIB = 2**30


@torch.no_grad()
def rerank(
    query_features: Array,
    gallery_features: Array,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    *,
    form: str = "torchreid",
    memory: float | None = None,
) -> Array:
    """Re-ranked distances from features.

    Features are not normalised here: for torchreid's cosine distance, L2-normalise them before. A
    common scale of all features has no effect, so values of any magnitude are valid. The
    computation is in float32, even inside an autocast region.

    Args:
        query_features: floating point [Q, D]; half precision is converted to float32.
        gallery_features: floating point [G, D], on the same device.
        k1: size of the reciprocal neighbourhoods, in 1..Q+G-1.
        k2: number of rows that local query expansion averages, in 1..Q+G; 1 turns it off.
        lambda_value: weight of the original distance, in [0, 1]; the rest is that of the Jaccard
            distance.
        form: the original distance, before each row is divided by its largest value: "torchreid" is
            the fourth power of the Euclidean distance (torchreid squares its squared distances, and
            its users report these numbers), "paper" is the second power.
        memory: GiB of working memory, besides the features (twice), the neighbour lists and the
            result; None: 1/64 on a CPU, where blocks then fit into its cache, and 2 elsewhere.
    Returns:
        float32 [Q, G], on the features' device; a numpy array if the query features are one.
    Raises:
        ValueError: an argument is out of range, or a feature is NaN or infinite.
    """
    features = as_features(query_features, gallery_features)
    _check_settings(k1, k2, lambda_value, form, num_rows=sum(map(len, features)))
    num_bytes = _in_bytes(memory, features[0].device)
    with torch.autocast(features[0].device.type, enabled=False):
        query, gallery = (part.float() for part in rescale(*features))
        distances = FeatureDistances(query, gallery, form, num_bytes)
        result = _rerank(distances, k1, k2, lambda_value, num_bytes)
    return result.numpy() if isinstance(query_features, np.ndarray) else result


@torch.no_grad()
def rerank_distances(
    q_g: Array,
    q_q: Array,
    g_g: Array,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    *,
    form: str = "torchreid",
    memory: float | None = None,
) -> Array:
    """Re-ranked distances from distances, with the arguments and results of torchreid's
    `re_ranking`.

    Args:
        q_g: floating point [Q, G], torchreid's "euclidean" (which is squared) or "cosine".
        q_q: floating point [Q, Q], on the same device.
        g_g: floating point [G, G], on the same device.
        form: "torchreid" squares the distances, "paper" does not.
        k1, k2, lambda_value, memory: as in `rerank`.
    Returns:
        float32 [Q, G], on the distances' device; a numpy array if q_g is one.
    Raises:
        ValueError: an argument is out of range, or a distance is NaN or infinite.
    """
    matrices = as_distances(q_g, q_q, g_g)
    _check_settings(k1, k2, lambda_value, form, num_rows=sum(matrices[0].shape))
    num_bytes = _in_bytes(memory, matrices[0].device)
    with torch.autocast(matrices[0].device.type, enabled=False):
        query_gallery, queries, gallery = rescale(*matrices)
        distances = MatrixDistances(query_gallery, queries, gallery, form, num_bytes)
        result = _rerank(distances, k1, k2, lambda_value, num_bytes)
    return result.numpy() if isinstance(q_g, np.ndarray) else result


def fit_neighbours(num_images: int, k1: int = 20, k2: int = 6) -> tuple[int, int]:
    """k1 and k2, reduced if `num_images` (query and gallery, at least 2) is too small for them."""
    return min(k1, num_images - 1), min(k2, num_images)


def _rerank(distances: RowDistances, k1: int, k2: int, lambda_value: float, memory: int) -> Tensor:
    nearest = distances.nearest(max(k1 + 1, k2))
    encoding = encode(nearest, distances.between, k1, memory)
    encoding = expand_locally(encoding, nearest, k2)
    index = InvertedIndex(encoding, distances.num_queries)
    result = distances.to_gallery().mul_(lambda_value)
    for queries in index.blocks(memory):
        result[queries].add_(index.distances(queries), alpha=1 - lambda_value)
    return result


def _check_settings(k1: int, k2: int, lambda_value: float, form: str, num_rows: int) -> None:
    if not 1 <= k1 < num_rows:
        raise ValueError(
            f"k1: expected 1..{num_rows - 1}, below the {num_rows} images of query and gallery "
            f"together, got {k1}"
        )
    if not 1 <= k2 <= num_rows:
        raise ValueError(f"k2: expected 1..{num_rows}, got {k2}")
    if not 0 <= lambda_value <= 1:
        raise ValueError(f"lambda_value: expected 0..1, got {lambda_value}")
    if form not in FORMS:
        raise ValueError(f"form: expected one of {FORMS}, got {form!r}")


def _in_bytes(memory: float | None, device: torch.device) -> int:
    if memory is None:
        memory = 1 / 64 if device.type == "cpu" else 2
    if not 0 < memory < math.inf:
        raise ValueError(f"memory: expected a finite number of GiB above 0, got {memory}")
    return int(min(memory * _GIB, 2**62))  # torch's sizes have 64 bits
