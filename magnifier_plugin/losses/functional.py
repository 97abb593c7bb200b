"""The losses of MagnifierNet as pure functions (sections 3.3 and 3.4, Eq. 3 and 4)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from magnifier_plugin.models.pooling import rescale_labels
from magnifier_plugin.models.precision import at_least_float32
from magnifier_plugin.regions import UNKNOWN


def batch_hard_triplet(features: Tensor, pids: Tensor, margin: float = 0.3) -> Tensor:
    """Triplet loss of each anchor's farthest positive and nearest negative (Hermans et al., 2017).

    Euclidean distance; an anchor is its own positive if the batch has no other image of its
    identity. The values are those of torchreid's `TripletLoss`, without its loop over the batch.

    Args:
        features: float [B, D].
        pids: integer [B].
        margin: margin in units of distance, at least 0.
    Returns:
        Scalar, the mean over the anchors; 0 (with a gradient) if all images show one identity.
    Raises:
        ValueError: the shapes do not match.
    """
    if features.ndim != 2 or pids.shape != features.shape[:1]:
        raise ValueError(
            "expected features [B, D] and pids [B], "
            f"got {list(features.shape)} and {list(pids.shape)}"
        )
    features = at_least_float32(features)
    same = pids.unsqueeze(0) == pids.unsqueeze(1)
    squared = features.square().sum(dim=1)
    distances = squared.unsqueeze(0) + squared.unsqueeze(1) - 2 * features @ features.T
    distances = distances.clamp(min=1e-12).sqrt()  # the root's gradient is infinite at 0
    farthest = distances.masked_fill(~same, float("-inf")).amax(dim=1)
    nearest = distances.masked_fill(same, float("inf")).amin(dim=1)
    # Without a negative, the nearest is infinitely far away, and loss and gradient are 0.
    return F.relu(farthest - nearest + margin).mean()


def semantic_diversity(regions: Tensor, eps: float = 1e-6) -> Tensor:
    """Mean pairwise cosine similarity of pooled region features (Semantic Diversity Loss, Eq. 3).

    The mean is over the batch and the K(K−1)/2 pairs i < j. (The paper's sum starts at i = j, by
    mistake: that would pair a region with itself.)

    Args:
        regions: float [B, K, D], any scale. A region that is absent from an image is all zeros; its
            pairs have similarity 0 and count in the mean.
        eps: lower bound of the product of norms (Eq. 3), with which the gradient is finite at zero.
    Returns:
        Scalar in [-1, 1].
    Raises:
        ValueError: regions is not three-dimensional, or K < 2.
    """
    if regions.ndim != 3 or regions.shape[1] < 2:
        raise ValueError(f"expected regions [B, K >= 2, D], got {list(regions.shape)}")
    regions = at_least_float32(regions)
    # Scaled to a largest entry of 1 first, so that squares neither overflow nor underflow.
    scale = regions.detach().abs().amax(dim=2, keepdim=True)
    present = scale > 0
    regions = regions / torch.where(present, scale, 1)
    norms = torch.where(present, regions.square().sum(dim=2, keepdim=True), 1).sqrt()
    units = regions / norms
    i, j = torch.triu_indices(regions.shape[1], regions.shape[1], 1, device=regions.device)
    cosines = (units @ units.transpose(1, 2))[:, i, j]
    lengths = (norms * scale).squeeze(2)
    return (cosines * (lengths[:, i] * lengths[:, j] / eps).clamp(max=1)).mean()


def segmentation_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    class_balanced: bool = True,
    total: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> Tensor:
    """Cross entropy of region logits (L_mask of Eq. 4).

    Args:
        logits: float [B, K, h, w].
        labels: uint8 [B, H, W], region ids; 255 is unknown and ignored. They are rescaled to the
            logits' size by nearest neighbour.
        class_balanced: average over the pixels of each region present in the batch, then over these
            regions; else over all known pixels.
        total: sums a tensor over the processes that share the batch, see `Gathering.total`.
    Returns:
        Scalar, at least 0; 0 (with a gradient) if no pixel is known.
    Raises:
        ValueError: the shapes do not match.
    """
    if logits.ndim != 4 or labels.ndim != 3 or len(labels) != len(logits):
        raise ValueError(
            "expected logits [B, K, h, w] and labels [B, H, W], "
            f"got {list(logits.shape)} and {list(labels.shape)}"
        )
    logits = at_least_float32(logits)
    labels = rescale_labels(labels, logits.shape[-2:]).long()
    losses = F.cross_entropy(logits, labels, ignore_index=UNKNOWN, reduction="none")
    known = labels != UNKNOWN
    if not class_balanced:
        sums = total(torch.stack([losses.sum(), known.sum().to(losses.dtype)]))
        return sums[0] / sums[1].clamp(min=1)
    regions = torch.where(known, labels, 0).flatten()
    sums = losses.new_zeros(logits.shape[1]).index_add(0, regions, losses.flatten())
    counts = losses.new_zeros(logits.shape[1]).index_add(0, regions, known.flatten().to(sums.dtype))
    sums, counts = total(torch.stack([sums, counts])).unbind()
    return (sums / counts.clamp(min=1)).sum() / (counts > 0).sum().clamp(min=1)
