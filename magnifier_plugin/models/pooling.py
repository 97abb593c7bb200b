"""Label maps to region masks, and region pooling (MagnifierNet, section 3.1, Eq. 1)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from magnifier_plugin.regions import NUM_REGIONS, UNKNOWN

# Hard rescalings and torch's name of each.
_NEAREST = {"nearest": "nearest-exact", "nearest-corner": "nearest"}
RESCALINGS = ("bilinear", *_NEAREST)
# torch 2.6 cannot tell an export from a compilation; the plain form is right in both.
_is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)


def rescale_labels(labels: Tensor, size: Sequence[int], rescaling: str = "nearest") -> Tensor:
    """Scale label maps by nearest neighbour: labels are categories and never interpolated.

    Args:
        labels: uint8 [B, H, W], region ids or 255.
        size: target height and width.
        rescaling: "nearest" takes the pixel under the centre of the target pixel (torch's
            `nearest-exact`), "nearest-corner" the upper left one, which shifts the map (torch's
            `nearest`).
    Returns:
        uint8 [B, *size].
    """
    if labels.shape[-2:] == tuple(size):
        return labels
    mode = _NEAREST[rescaling]
    return F.interpolate(labels.unsqueeze(1), size=tuple(size), mode=mode).squeeze(1)


def fill_unknown(labels: Tensor, predicted: Tensor) -> Tensor:
    """Replace unknown pixels (255) by the segmentation head's prediction.

    Args:
        labels: uint8 [B, h, w], region ids or 255.
        predicted: integer [B, h, w], region ids.
    Returns:
        uint8 [B, h, w], region ids only.
    """
    return torch.where(labels == UNKNOWN, predicted.to(labels.dtype), labels)


def region_masks(
    labels: Tensor,
    size: Sequence[int],
    rescaling: str = "bilinear",
    dtype: torch.dtype | None = None,
) -> Tensor:
    """One mask per region at the feature map's size: R_k of Eq. 1.

    Args:
        labels: integer [B, H, W], region ids 0..7.
        size: height and width of the feature map.
        rescaling: "bilinear" (the paper; align_corners=False, no antialias), "nearest" or
            "nearest-corner" (authors' code); the last two as in `rescale_labels`.
        dtype: of the result; default float32.
    Returns:
        float [B, 8, *size] in [0, 1], summing to 1 over the regions.
    Raises:
        ValueError: rescaling is none of the three.
    """
    if rescaling not in RESCALINGS:
        raise ValueError(
            f"mask rescaling: expected one of {', '.join(RESCALINGS)}; got {rescaling!r}"
        )
    if rescaling in _NEAREST:
        labels = rescale_labels(labels.to(torch.uint8), size, rescaling)
    ids = torch.arange(NUM_REGIONS, device=labels.device, dtype=labels.dtype)
    masks = (labels.unsqueeze(1) == ids.view(1, -1, 1, 1)).to(dtype or torch.float32)
    if masks.shape[-2:] == tuple(size):
        return masks
    return F.interpolate(masks, size=tuple(size), mode="bilinear", align_corners=False)


def plain_region_max_pool(features: Tensor, masks: Tensor) -> Tensor:
    """`region_max_pool` as products and maxima alone, whose shapes do not depend on the values.

    Exported graphs take this form: every runtime has its operators, and the batch stays dynamic.
    One region after the other, so that one product [B, C, h, w] is in memory at a time.

    Args:
        features, masks: as of `region_max_pool`.
    Returns:
        The same.
    """
    products = (features * mask.unsqueeze(1) for mask in masks.to(features.dtype).unbind(1))
    return torch.stack([product.amax(dim=(2, 3)) for product in products], dim=1)


def region_max_pool(features: Tensor, masks: Tensor) -> Tensor:
    """Global max pooling of each region's masked features: p(x_k) = GMP(F ⊗ R_k), Eq. 1.

    The plain product holds [B, K, C, h, w] in memory. Where R_k is 0 the product is 0, so only the
    pixels with R_k > 0 are computed, each with its weight: their feature vectors are gathered as
    rows and reduced by scatter-max. Hard masks have one such region per pixel, bilinear ones about
    1.3. `python scripts/benchmark.py pooling` on two cores, forward and backward, B 32, C 1024,
    24 × 12, K 8: 3.5 × (fp32) to 16 × (bf16, channels-last, hard masks) faster than the plain
    product, soft masks 10 × in bf16. A segment reduction was up to 1.8 × slower than scatter-max.

    Args:
        features: float [B, C, h, w].
        masks: [B, K, h, w] in [0, 1], hard or soft; computed with in the features' dtype.
    Returns:
        [B, K, C] of the features' dtype; zeros for a region that is absent from an image.
    Raises:
        ValueError: the shapes do not match.
    """
    if (
        features.ndim != 4
        or masks.ndim != 4
        or not (masks.shape[0] == features.shape[0] and masks.shape[2:] == features.shape[2:])
    ):
        raise ValueError(
            "expected features [B, C, h, w] and masks [B, K, h, w], "
            f"got {list(features.shape)} and {list(masks.shape)}"
        )
    if _is_exporting():
        return plain_region_max_pool(features, masks)
    batch, channels, height, width = features.shape
    regions = masks.shape[1]
    weights = masks.to(features.dtype).flatten(2).flatten(0, 1)  # [B·K, h·w]
    segment, pixel = weights.nonzero(as_tuple=True)
    rows = features.permute(0, 2, 3, 1).reshape(-1, channels)  # no copy if channels-last
    image = torch.div(segment, regions, rounding_mode="floor")
    values = rows.index_select(0, image * (height * width) + pixel)
    values = values * weights[segment, pixel].unsqueeze(1)
    # A product is 0 wherever the mask is: the maximum starts there, unless no such pixel exists.
    covered = (weights != 0).all(dim=1, keepdim=True)
    start = torch.zeros_like(weights[:, :1]).masked_fill(covered, float("-inf"))
    pooled = start.expand(-1, channels).scatter_reduce(
        0, segment.unsqueeze(1).expand(-1, channels), values, "amax", include_self=True
    )
    return pooled.view(batch, regions, channels)
