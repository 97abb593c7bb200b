"""The branches of MagnifierNet: G, SAB, SFB, and the ablation AB (sections 3.2, 3.3, Fig. 1)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from magnifier_plugin.models.heads import IdentityHead
from magnifier_plugin.models.pooling import region_max_pool
from magnifier_plugin.models.precision import at_least_float32, mean_in_float32
from magnifier_plugin.models.sampling import check_sampling, draw_kept_regions
from magnifier_plugin.regions import NUM_REGIONS

FUSIONS = ("gru", "lstm", "concat", "concat-reduced")


class BranchOutput(NamedTuple):
    """The outputs of a branch; not every branch has the last three."""

    feature: Tensor
    """float [B, D] before the BNNeck: for the triplet loss."""
    embedding: Tensor
    """float [B, D] after the BNNeck: for retrieval."""
    logits: Tensor
    """float [B, N]: for cross entropy."""
    share: Tensor | None = None
    """SAB: scalar in [0, 1], share of the batch's cells that were kept. SFB: float [8] in [0, 1],
    share of the batch's cells covered by each region. In training only."""
    regions: Tensor | None = None
    """SFB, training: float [B, 8, C], the pooled regions p(x_k) in id order; with
    fusion="concat-reduced" [B, 8, C/8], the reduced p(x_k)."""
    region_logits: Tensor | None = None
    """SFB, training: float [B, 8, N], from one classifier per region."""


class GlobalBranch(nn.Module):
    """G: global average pooling of layer4 and an identity head.

    Args:
        channels: layer4's width.
        num_classes: number N of training identities.
        bias: give the classifier a bias (authors' code).
    """

    def __init__(self, channels: int, num_classes: int, *, bias: bool = False) -> None:
        super().__init__()
        self.head = IdentityHead(channels, num_classes, bias=bias)
        self.embedding_size = channels

    def forward(
        self, layer3: Tensor, layer4: Tensor, masks: Tensor | None, *, training: bool
    ) -> BranchOutput:
        """Args: layer3: not used. layer4: float [B, 2C, h, w]. masks, training: not used."""
        feature = mean_in_float32(layer4, (2, 3))
        return BranchOutput(feature, *self.head(feature))

    def feature_map(self, layer3: Tensor, layer4: Tensor) -> Tensor:
        """The feature map that is pooled, float [B, 2C, h, w]."""
        return layer4


class SemanticAdversarialBranch(nn.Module):
    """SAB: identify people from a few regions, redrawn for each batch (section 3.2, Eq. 2).

    layer3 → own bottleneck → in training, zero all but the kept regions → global max pooling →
    1 × 1 reduction → identity head. At inference nothing is zeroed.

    Args:
        channels: width C of layer3 and of the embedding.
        num_classes: number N of training identities.
        sampling: "torso" or "baseline", see `draw_kept_regions`.
        keep: K̂, number of body regions that are kept; the background is always kept.
        authors_bias: no bias in the reduction, a bias in the classifier, as in the authors' code.
    Raises:
        ValueError: an unknown sampling, or it cannot draw `keep` regions.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        sampling: str = "torso",
        keep: int = 4,
        authors_bias: bool = False,
    ) -> None:
        super().__init__()
        check_sampling(sampling, keep)
        self.bottleneck = Bottleneck(channels, channels // Bottleneck.expansion)
        self.reduction = nn.Linear(channels, channels, bias=not authors_bias)  # 1 × 1 on one cell
        self.head = IdentityHead(channels, num_classes, bias=authors_bias)
        self.sampling, self.keep = sampling, keep
        self.embedding_size = channels

    def forward(
        self, layer3: Tensor, layer4: Tensor, masks: Tensor, *, training: bool
    ) -> BranchOutput:
        """Args: layer3: float [B, C, h, w]. layer4: not used. masks: [B, 8, h, w] in [0, 1].
        training: draw and zero regions; the network's mode, since a frozen branch is in `eval`."""
        features = self.bottleneck(layer3)
        share = None
        if training:
            drawn = draw_kept_regions(self.sampling, self.keep).to(masks)
            kept = (masks * drawn).sum(1, keepdim=True)
            features = features * kept.to(features.dtype)
            share = mean_in_float32(kept)
        feature = at_least_float32(self.reduction(features.amax(dim=(2, 3))))
        embedding, logits = self.head(feature)
        return BranchOutput(feature, embedding, logits, share)

    def feature_map(self, layer3: Tensor, layer4: Tensor) -> Tensor:
        """The feature map that is pooled, before regions are zeroed, float [B, C, h, w]."""
        features: Tensor = self.bottleneck(layer3)
        return features


class RecurrentFusion(nn.Module):
    """Feed the regions in id order to one recurrent layer and return its last output (section 3.3).

    Args:
        channels: width C of a region's feature and of the hidden state.
        cell: `nn.GRU` (the paper) or `nn.LSTM` (the authors' code).
    """

    def __init__(self, channels: int, cell: type[nn.GRU] | type[nn.LSTM] = nn.GRU) -> None:
        super().__init__()
        self.cell = cell(channels, channels, batch_first=True)
        self.region_channels = channels

    def train(self, mode: bool = True) -> "RecurrentFusion":
        """Set the mode; the cell, which has no dropout, always stays in training mode.

        cuDNN needs it for gradients that pass through a frozen branch to the backbone.
        """
        super().train(mode)
        self.cell.training = True
        return self

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Args: regions: float [B, 8, C]. Returns: float [B, C] and the regions, unchanged."""
        outputs, _ = self.cell(regions)
        return outputs[:, -1], regions


class ConcatFusion(nn.Module):
    """The ablation branch AB (Fig. 4): reduce each region to C/8 (1 × 1 convolution), concatenate.

    Args:
        channels: width C of a region's feature and of the result, a multiple of 8.
        bias: give the reductions a bias (the authors' code does not).
        reduced: the region heads and the Semantic Diversity loss act on the reduced regions
            (authors' code), else on p(x_k), as in SFB.
    """

    def __init__(self, channels: int, *, bias: bool = True, reduced: bool = False) -> None:
        super().__init__()
        self.reductions = nn.Conv1d(
            NUM_REGIONS * channels, channels, 1, groups=NUM_REGIONS, bias=bias
        )
        self.reduced = reduced
        self.region_channels = channels // NUM_REGIONS if reduced else channels

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Args: regions: float [B, 8, C]. Returns: float [B, C], and [B, 8, C] or [B, 8, C/8]."""
        feature = self.reductions(regions.flatten(1).unsqueeze(2)).squeeze(2)
        return feature, feature.unflatten(1, (NUM_REGIONS, -1)) if self.reduced else regions


def build_fusion(
    fusion: str, channels: int, *, authors_bias: bool
) -> RecurrentFusion | ConcatFusion:
    """The fusion of SFB by its configuration name, one of `FUSIONS`.

    Args:
        fusion: "gru", "lstm", "concat" or "concat-reduced".
        channels: width C of a region's feature.
        authors_bias: no bias in AB's reductions, as in the authors' code.
    Raises:
        ValueError: fusion is not one of `FUSIONS`.
    """
    if fusion not in FUSIONS:
        raise ValueError(f"magnifier.fusion: expected one of {', '.join(FUSIONS)}; got {fusion!r}")
    if fusion.startswith("concat"):
        reduced = fusion == "concat-reduced"
        return ConcatFusion(channels, bias=not authors_bias, reduced=reduced)
    return RecurrentFusion(channels, nn.GRU if fusion == "gru" else nn.LSTM)


class SemanticFusionBranch(nn.Module):
    """SFB: pool every region and fuse them selectively (section 3.3).

    layer3 → own bottleneck → p(x_k) for k = 0..7 → fusion → identity head. In training each p(x_k)
    also has its own identity head, and the Semantic Diversity loss acts on all p(x_k).

    Args:
        channels: width C of layer3 and of the embedding.
        num_classes: number N of training identities.
        fusion: "gru" (paper) or "lstm" (authors' code); for the ablation branch AB "concat", or
            "concat-reduced" (authors' code), where the region heads and the Semantic Diversity loss
            act on the reduced regions.
        authors_bias: a bias in the classifiers, none in AB's reductions, as in the authors' code.
    Raises:
        ValueError: fusion is not one of `FUSIONS`.
    """

    def __init__(
        self, channels: int, num_classes: int, *, fusion: str = "gru", authors_bias: bool = False
    ) -> None:
        super().__init__()
        self.bottleneck = Bottleneck(channels, channels // Bottleneck.expansion)
        self.fusion = build_fusion(fusion, channels, authors_bias=authors_bias)
        self.head = IdentityHead(channels, num_classes, bias=authors_bias)
        self.region_heads = nn.ModuleList(
            IdentityHead(self.fusion.region_channels, num_classes, bias=authors_bias)
            for _ in range(NUM_REGIONS)
        )
        self.embedding_size = channels

    def pool(self, layer3: Tensor, masks: Tensor) -> Tensor:
        """The pooled regions p(x_k) of Eq. 1, float [B, 8, C]; zeros for an absent region.

        Args:
            layer3: float [B, C, h, w].
            masks: [B, 8, h, w] in [0, 1].
        """
        return region_max_pool(self.bottleneck(layer3), masks)

    def forward(
        self, layer3: Tensor, layer4: Tensor, masks: Tensor, *, training: bool
    ) -> BranchOutput:
        """Args: layer3: float [B, C, h, w]. layer4: not used. masks: [B, 8, h, w] in [0, 1].
        training: also compute what only the losses need; the network's mode."""
        fused, regions = self.fusion(self.pool(layer3, masks))
        feature = at_least_float32(fused)
        output = BranchOutput(feature, *self.head(feature))
        if not training:
            return output
        pairs = zip(self.region_heads, regions.unbind(1), strict=True)
        logits = torch.stack([head(region).logits for head, region in pairs], dim=1)
        share = mean_in_float32(masks, (0, 2, 3))
        return output._replace(share=share, regions=regions, region_logits=logits)

    def feature_map(self, layer3: Tensor, layer4: Tensor) -> Tensor:
        """The feature map that is pooled per region, float [B, C, h, w]."""
        features: Tensor = self.bottleneck(layer3)
        return features


Branch = GlobalBranch | SemanticAdversarialBranch | SemanticFusionBranch
