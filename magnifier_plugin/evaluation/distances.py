"""Distances between embeddings, the same numbers as torchreid's `compute_distance_matrix`."""

from torch import Tensor
from torch.nn import functional as F

from magnifier_plugin.evaluation.checks import as_features


def distance_matrix(query: Tensor, gallery: Tensor, metric: str = "euclidean") -> Tensor:
    """All distances between two sets of embeddings.

    Args:
        query: floating point [Q, D]; half precision is computed in float32.
        gallery: floating point [G, D] on the same device.
        metric: "euclidean" is the *squared* Euclidean distance, "cosine" is 1 - cosine; both names
            as in torchreid.
    Returns:
        float32 [Q, G].
    Raises:
        ValueError: the features fail `as_features`, or the metric is unknown.
    """
    query, gallery = as_features(query, gallery)
    if metric == "euclidean":
        return squared_euclidean(query, gallery)
    if metric == "cosine":
        return (F.normalize(query) @ F.normalize(gallery).T).neg_().add_(1)
    raise ValueError(f"metric: expected 'euclidean' or 'cosine', got {metric!r}")


def squared_euclidean(query: Tensor, gallery: Tensor) -> Tensor:
    """|q|² + |g|² - 2 q·g in float32 [Q, G]; rounding can leave a distance slightly below 0."""
    distances = query.square().sum(1)[:, None] + gallery.square().sum(1)
    return distances.addmm_(query, gallery.T, alpha=-2)
