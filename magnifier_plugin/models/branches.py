"""The branches of MagnifierNet: G, SAB, SFB, and the ablation AB (sections 3.2, 3.3, Fig. 1)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from magnifier_plugin.models.heads import IdentityHead
from magnifier_plugin.models.pooling import region_max_pool
from magnifier_plugin.models.sampling import check_sampling, sample_kept_regions
from magnifier_plugin.regions import NUM_REGIONS

FUSIONS = ("gru", "lstm", "concat")


class BranchOutput(NamedTuple):
    """What every branch says about a batch; the last three fields are the branch's own."""

    feature: Tensor
    """float [B, D] before the BNNeck: for the triplet loss."""
    embedding: Tensor
    """float [B, D] after the BNNeck: for retrieval."""
    logits: Tensor
    """float [B, N]: for cross entropy."""
    share: Tensor | None = None
    """SAB: scalar in [0, 1], share of the batch's cells that were kept. SFB: float [8] in [0, 1],
    share of the batch's cells that each region covers."""
    regions: Tensor | None = None
    """SFB, training: float [B, 8, C], the pooled regions p(x_k) in id order."""
    region_logits: Tensor | None = None
    """SFB, training: float [B, 8, N], one classifier a region."""


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

    def forward(self, layer3: Tensor, layer4: Tensor, masks: Tensor | None) -> BranchOutput:
        """Args: layer3: not used. layer4: float [B, 2C, h, w]. masks: not used."""
        feature = layer4.mean(dim=(2, 3)).float()
        return BranchOutput(feature, *self.head(feature))


class SemanticAdversarialBranch(nn.Module):
    """SAB: identify people from a few regions, drawn anew for each batch (section 3.2, Eq. 2).

    layer3 → own bottleneck → in training all but the kept regions zeroed → global max pooling →
    1 × 1 reduction → identity head. At inference nothing is zeroed.

    Args:
        channels: layer3's width C, also the embedding's.
        num_classes: number N of training identities.
        sampling: "torso" or "baseline".
        keep: K̂, how many body regions stay; the background always does.
        authors_bias: reduction without and classifier with a bias, as the authors' code has it.
    Raises:
        ValueError: sampling and keep do not go together.
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

    def forward(self, layer3: Tensor, layer4: Tensor, masks: Tensor) -> BranchOutput:
        """Args: layer3: float [B, C, h, w]. layer4: not used. masks: [B, 8, h, w] in [0, 1]."""
        features = self.bottleneck(layer3)
        share = None
        if self.training:
            kept = masks[:, sample_kept_regions(self.sampling, self.keep)].sum(1, keepdim=True)
            features = features * kept.to(features.dtype)
            share = kept.float().mean()
        feature = self.reduction(features.amax(dim=(2, 3))).float()
        return BranchOutput(feature, *self.head(feature), share)


class RecurrentFusion(nn.Module):
    """Regions in id order through one recurrent layer; its last output (section 3.3).

    Args:
        channels: width C of a region's feature and of the state.
        cell: `nn.GRU` (the paper) or `nn.LSTM` (the authors' code).
    """

    def __init__(self, channels: int, cell: type[nn.RNNBase] = nn.GRU) -> None:
        super().__init__()
        self.cell = cell(channels, channels, batch_first=True)

    def forward(self, regions: Tensor) -> Tensor:
        """Args: regions: float [B, 8, C]. Returns: float [B, C]."""
        outputs, _ = self.cell(regions)
        return outputs[:, -1]


class ConcatFusion(nn.Module):
    """The ablation branch AB (Fig. 4): a 1 × 1 convolution a region to C/8, concatenated to C.

    Args:
        channels: width C of a region's feature and of the result.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reductions = nn.Conv1d(NUM_REGIONS * channels, channels, 1, groups=NUM_REGIONS)

    def forward(self, regions: Tensor) -> Tensor:
        """Args: regions: float [B, 8, C]. Returns: float [B, C]."""
        return self.reductions(regions.flatten(1).unsqueeze(2)).squeeze(2)


def build_fusion(fusion: str, channels: int) -> nn.Module:
    """The fusion of SFB by its configuration name: "gru", "lstm" or "concat"."""
    if fusion not in FUSIONS:
        raise ValueError(f"magnifier.fusion: expected one of {FUSIONS}, got {fusion!r}")
    if fusion == "concat":
        return ConcatFusion(channels)
    return RecurrentFusion(channels, nn.GRU if fusion == "gru" else nn.LSTM)


class SemanticFusionBranch(nn.Module):
    """SFB: pool every region and fuse them selectively (section 3.3).

    layer3 → own bottleneck → p(x_k) for k = 0..7 → fusion → identity head. In training each p(x_k)
    has an identity head of its own, and the Semantic Diversity loss acts on them.

    Args:
        channels: layer3's width C, also the embedding's.
        num_classes: number N of training identities.
        fusion: "gru" (paper), "lstm" (authors' code) or "concat" (the ablation branch).
        authors_bias: classifiers with a bias, as the authors' code has it.
    Raises:
        ValueError: fusion is none of the three.
    """

    def __init__(
        self, channels: int, num_classes: int, *, fusion: str = "gru", authors_bias: bool = False
    ) -> None:
        super().__init__()
        self.bottleneck = Bottleneck(channels, channels // Bottleneck.expansion)
        self.fusion = build_fusion(fusion, channels)
        self.head = IdentityHead(channels, num_classes, bias=authors_bias)
        self.region_heads = nn.ModuleList(
            IdentityHead(channels, num_classes, bias=authors_bias) for _ in range(NUM_REGIONS)
        )
        self.embedding_size = channels

    def forward(self, layer3: Tensor, layer4: Tensor, masks: Tensor) -> BranchOutput:
        """Args: layer3: float [B, C, h, w]. layer4: not used. masks: [B, 8, h, w] in [0, 1]."""
        regions = region_max_pool(self.bottleneck(layer3), masks)
        feature = self.fusion(regions).float()
        output = BranchOutput(feature, *self.head(feature))
        if not self.training:
            return output
        pairs = zip(self.region_heads, regions.unbind(1), strict=True)
        logits = torch.stack([head(region).logits for head, region in pairs], dim=1)
        share = masks.float().mean(dim=(0, 2, 3))
        return output._replace(share=share, regions=regions, region_logits=logits)
