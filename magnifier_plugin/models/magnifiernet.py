"""MagnifierNet (Lan et al., "MagnifierNet: Towards Semantic Adversary and Fusion", BMVC 2020)."""

import functools
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from magnifier_plugin.models.backbone import Backbone
from magnifier_plugin.models.branches import (
    BranchOutput,
    GlobalBranch,
    SemanticAdversarialBranch,
    SemanticFusionBranch,
)
from magnifier_plugin.models.heads import SegmentationHead
from magnifier_plugin.models.pooling import RESCALINGS, fill_unknown, region_masks, rescale_labels

BRANCHES = ("G", "M", "SAB", "SFB")
LOSSES = ("magnifier", "triplet", "softmax")


class MagnifierOutput(NamedTuple):
    """What MagnifierNet returns in training with `loss="magnifier"`."""

    branches: dict[str, BranchOutput]
    """One entry for each of "G", "SAB", "SFB" that the network has, in that order."""
    mask_logits: Tensor | None
    """float [B, 8, 2h, 2w], region logits; None without M."""


class MaskModule(nn.Module):
    """M: predict the regions, and choose what the branches pool with (section 3.1).

    Args:
        channels: layer4's width.
        rescaling: from 2h × 2w to h × w, "bilinear" (paper) or "nearest".
        bias: give the transposed convolution a bias (the authors' code does not).
    Raises:
        ValueError: rescaling is neither of the two.
    """

    def __init__(self, channels: int, *, rescaling: str = "bilinear", bias: bool = True) -> None:
        super().__init__()
        if rescaling not in RESCALINGS:
            raise ValueError(
                f"magnifier.mask_rescaling: expected one of {RESCALINGS}, got {rescaling!r}"
            )
        self.head = SegmentationHead(channels, bias=bias)
        self.rescaling = rescaling

    def forward(self, layer4: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Region logits and masks.

        Training pools with the label maps; where a pixel is unknown, without label maps, and at
        inference, with the head's own arg-max.

        Args:
            layer4: float [B, C, h, w].
            labels: uint8 [B, H, W], region ids or 255.
        Returns:
            Logits float [B, 8, 2h, 2w] and masks float [B, 8, h, w] in [0, 1].
        """
        logits = self.head(layer4)
        regions = logits.detach().argmax(dim=1).to(torch.uint8)
        if self.training and labels is not None:
            regions = fill_unknown(rescale_labels(labels, logits.shape[-2:]), regions)
        return logits, region_masks(regions, layer4.shape[-2:], self.rescaling, layer4.dtype)


class NoMaskModule(nn.Module):
    """Stands where M is left out: no logits, no masks."""

    def forward(self, layer4: Tensor, labels: Tensor | None) -> tuple[None, None]:
        return None, None


class MagnifierNet(nn.Module):
    """Global, Semantic Adversarial and Semantic Fusion Branch on one backbone (Fig. 1).

    With ResNet-50 the embedding has 2048 + 1024 + 1024 = 4096 numbers. One class and one set of
    state-dict keys, whichever `loss` it is built with.

    Args:
        num_classes: number N of training identities.
        loss: what `forward` returns in training: "magnifier" a `MagnifierOutput`, "softmax" and
            "triplet" what torchreid's engines expect (lists over the branches).
        backbone: a torchvision ResNet.
        branches: which of G, M, SAB, SFB to build: the rows of the paper's Table 2.
        sampling: SAB's strategy, "torso" or "baseline".
        keep: K̂, how many body regions SAB keeps.
        fusion: SFB's, "gru", "lstm" (authors' code) or "concat" (the ablation branch).
        mask_rescaling: "bilinear" (paper) or "nearest".
        authors_bias: biases where the authors' code has them instead of the paper.
    Raises:
        ValueError: an unknown name, or options that do not go together.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        loss: str = "magnifier",
        backbone: str = "resnet50",
        branches: Sequence[str] = BRANCHES,
        sampling: str = "torso",
        keep: int = 4,
        fusion: str = "gru",
        mask_rescaling: str = "bilinear",
        authors_bias: bool = False,
    ) -> None:
        super().__init__()
        check_options(loss, branches)
        self.loss = loss
        self.backbone = Backbone(backbone)
        layer3, layer4 = self.backbone.layer3_channels, self.backbone.layer4_channels
        self.mask_module = (
            MaskModule(layer4, rescaling=mask_rescaling, bias=not authors_bias)
            if "M" in branches
            else NoMaskModule()
        )
        self.branches = nn.ModuleDict()
        if "G" in branches:
            self.branches["G"] = GlobalBranch(layer4, num_classes, bias=authors_bias)
        if "SAB" in branches:
            self.branches["SAB"] = SemanticAdversarialBranch(
                layer3, num_classes, sampling=sampling, keep=keep, authors_bias=authors_bias
            )
        if "SFB" in branches:
            self.branches["SFB"] = SemanticFusionBranch(
                layer3, num_classes, fusion=fusion, authors_bias=authors_bias
            )
        self.feature_dim = sum(branch.embedding_size for branch in self.branches.values())

    def forward(
        self, images: Tensor, masks: Tensor | None = None, return_featuremaps: bool = False
    ) -> Tensor | MagnifierOutput | list[Tensor] | tuple[list[Tensor], list[Tensor]]:
        """Embed images, or describe them for the losses.

        Args:
            images: float [B, 3, H, W], normalised.
            masks: training only: label maps uint8 [B, H, W], region ids or 255; without them the
                segmentation head's own prediction serves.
            return_featuremaps: return layer4's map instead (torchreid's activation tool).
        Returns:
            In evaluation the raw embedding float [B, D]; in training what `loss` asks for.
        """
        layer3, layer4 = self.backbone(images)
        if return_featuremaps:
            return layer4
        mask_logits, regions = self.mask_module(layer4, masks)
        outputs = {name: branch(layer3, layer4, regions) for name, branch in self.branches.items()}
        if not self.training:
            return torch.cat([output.embedding for output in outputs.values()], dim=1)
        return self._for_loss(MagnifierOutput(outputs, mask_logits))

    def predict_regions(self, images: Tensor) -> Tensor:
        """The segmentation head's own idea of the regions.

        Args:
            images: float [B, 3, H, W], normalised.
        Returns:
            int64 [B, H/8, W/8], region ids.
        Raises:
            ValueError: the network has no M.
        """
        if isinstance(self.mask_module, NoMaskModule):
            raise ValueError(
                "magnifier.branches: regions are predicted by M, and this network has none"
            )
        return self.mask_module.head(self.backbone(images)[1]).argmax(dim=1)

    def _for_loss(
        self, output: MagnifierOutput
    ) -> MagnifierOutput | list[Tensor] | tuple[list[Tensor], list[Tensor]]:
        if self.loss == "magnifier":
            return output
        if output.mask_logits is not None:
            warn_no_masks_are_learnt()
        logits = [branch.logits for branch in output.branches.values()]
        if self.loss == "softmax":
            return logits
        return logits, [branch.feature for branch in output.branches.values()]


def check_options(loss: str, branches: Sequence[str]) -> None:
    """Refuse a loss or a set of branches that makes no network."""
    if loss not in LOSSES:
        raise ValueError(f"loss: MagnifierNet knows {', '.join(LOSSES)}; got {loss!r}")
    unknown = sorted(set(branches) - set(BRANCHES))
    if unknown or isinstance(branches, str):
        raise ValueError(
            f"magnifier.branches: expected a list of {', '.join(BRANCHES)}; got {branches!r}"
        )
    if not set(branches) & {"G", "SAB", "SFB"}:
        raise ValueError(
            f"magnifier.branches: {list(branches)} leaves no embedding; add G, SAB or SFB"
        )
    for branch in ("SAB", "SFB"):
        if branch in branches and "M" not in branches:
            raise ValueError(
                f"magnifier.branches: {branch} pools body regions, and at inference only the mask "
                "module M can tell where they are; add M"
            )


@functools.cache
def warn_no_masks_are_learnt() -> None:
    """Say once that torchreid's engines leave the segmentation head as it is."""
    warnings.warn(
        "MagnifierNet is trained without its mask loss: torchreid's own engines know no masks, so "
        "SAB and SFB pool with the untrained segmentation head's prediction. Use "
        "torchreid.engine.ImageMagnifierEngine (or this project's scripts/main.py) to learn them.",
        stacklevel=2,
    )


def declared_inputs(branches, loss):
    return (("mask",) if "M" in branches and loss == "magnifier" else ()), ()
