"""MagnifierNet's criterion (Eq. 4): named loss terms, their weights, and metrics."""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from magnifier_plugin.losses.classification import accuracy, identity_loss
from magnifier_plugin.losses.functional import (
    batch_hard_triplet,
    segmentation_cross_entropy,
    semantic_diversity,
)
from magnifier_plugin.losses.gathering import Gathering
from magnifier_plugin.losses.terms import CriterionOutput, Term, override_weights
from magnifier_plugin.models.branches import BranchOutput
from magnifier_plugin.models.magnifiernet import MagnifierOutput

_BRANCHES = ("G", "SAB", "SFB")
# Branch → the loss terms that are computed only if the network has it.
TERMS_OF_BRANCH = {
    "G": ("cls_G", "tri_G"),
    "M": ("mask",),
    "SAB": ("cls_SAB", "tri_SAB"),
    "SFB": ("cls_SFB", "tri_SFB", "cls_regions", "sd"),
}


class SemanticDiversityLoss(nn.Module):
    """Semantic Diversity Loss (MagnifierNet, Eq. 3) as a module; see `semantic_diversity`.

    Args:
        eps: lower bound of the product of norms.
        floor: clamp the loss to at least 0, as the authors' code does.
    """

    def __init__(self, eps: float = 1e-6, floor: bool = False) -> None:
        super().__init__()
        self.eps, self.floor = eps, floor

    def forward(self, regions: Tensor) -> Tensor:
        """Args: regions: float [B, K, D]. Returns: scalar in [-1, 1], or [0, 1] with floor."""
        loss = semantic_diversity(regions, self.eps)
        return loss.clamp(min=0) if self.floor else loss


class MagnifierCriterion(nn.Module):
    """MagnifierNet's loss, L = L_cls + L_tri + γ L_SD + λ L_mask (Eq. 4).

    Terms: `cls_*` and `tri_*` for each branch G, SAB, SFB; `cls_regions`, the sum of the 8 regions'
    label-smoothed cross entropies; `sd`; `mask`. `weights` holds their default weights; γ, the
    weight of `sd`, is 0 there, because the paper uses this loss only in the second stage.

    Args:
        weight_x: weight of the branches' cross entropy.
        weight_t: weight of the branches' triplet loss.
        label_smoothing: 0 for none; the paper's is 0.1.
        margin: margin of the triplet loss.
        region_weight: weight of one region's cross entropy.
        mask_weight: λ.
        class_balanced_mask: see `segmentation_cross_entropy`.
        sab_triplet: train SAB with the triplet loss (paper: every branch; authors' code: False).
        sd_floor: clamp L_SD to at least 0 (authors' code).
        share_weighted: multiply SAB's losses by sigmoid(share of cells kept) and each region's
            cross entropy by sigmoid(share of cells that it covers), with shares over the batch
            (authors' code).
        gathering: access to the batch of all processes; None for one process.
    """

    def __init__(
        self,
        *,
        weight_x: float = 1.0,
        weight_t: float = 1.0,
        label_smoothing: float = 0.1,
        margin: float = 0.3,
        region_weight: float = 0.0125,
        mask_weight: float = 2.0,
        class_balanced_mask: bool = True,
        sab_triplet: bool = True,
        sd_floor: bool = False,
        share_weighted: bool = False,
        gathering: Gathering | None = None,
    ) -> None:
        super().__init__()
        self.weights = {
            **{f"cls_{name}": weight_x for name in _BRANCHES},
            **{f"tri_{name}": weight_t for name in _BRANCHES},
            "cls_regions": region_weight,
            "sd": 0.0,
            "mask": mask_weight,
        }
        if not sab_triplet:
            self.weights["tri_SAB"] = 0.0
        self.label_smoothing, self.margin = label_smoothing, margin
        self.class_balanced_mask = class_balanced_mask
        self.share_weighted = share_weighted
        self.gathering = gathering or Gathering()
        self.diversity = SemanticDiversityLoss(floor=sd_floor)

    def forward(
        self,
        outputs: MagnifierOutput,
        pids: Tensor,
        targets: Mapping[str, Tensor] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> CriterionOutput:
        """Compute the batch's terms, and the metric `acc`.

        Args:
            outputs: the outputs of a `MagnifierNet` in training.
            pids: integer [B].
            targets: "mask": label maps uint8 [B, H, W]; without it there is no term `mask`.
            weights: weights by term, which override the defaults; 0 leaves a term out.
        Returns:
            The terms of the branches that the network has, and `acc`: the accuracy in % of the
            first branch.
        Raises:
            ValueError: `weights` has an unknown term.
        """
        weights = override_weights(self.weights, weights)
        terms: dict[str, Term] = {}
        rows, total = self.gathering.rows, self.gathering.total
        for name, branch in outputs.branches.items():
            share = self._share_weight(branch.share) if name == "SAB" else 1.0
            if weight := weights[f"cls_{name}"]:
                loss = identity_loss(branch.logits, pids, self.label_smoothing)
                terms[f"cls_{name}"] = Term(loss, weight * share)
            if weight := weights[f"tri_{name}"]:
                loss = batch_hard_triplet(rows(branch.feature), rows(pids), self.margin)
                terms[f"tri_{name}"] = Term(loss, weight * share)
        if "SFB" in outputs.branches:
            terms |= self._region_terms(outputs.branches["SFB"], pids, weights)
        labels = (targets or {}).get("mask")
        if outputs.mask_logits is not None and labels is not None and weights["mask"]:
            logits, balanced = outputs.mask_logits, self.class_balanced_mask
            loss = segmentation_cross_entropy(logits, labels, balanced, total)
            terms["mask"] = Term(loss, weights["mask"])
        first = next(iter(outputs.branches.values()))
        return CriterionOutput(terms, {"acc": accuracy(first.logits, pids)})

    def _region_terms(
        self, branch: BranchOutput, pids: Tensor, weights: Mapping[str, float]
    ) -> dict[str, Term]:
        """SFB's terms `cls_regions` and `sd`."""
        terms = {}
        if weights["cls_regions"]:
            losses = [
                identity_loss(logits, pids, self.label_smoothing)
                for logits in cast(Tensor, branch.region_logits).unbind(1)
            ]
            loss = (self._share_weight(branch.share) * torch.stack(losses)).sum()
            terms["cls_regions"] = Term(loss, weights["cls_regions"])
        if weights["sd"]:
            terms["sd"] = Term(self.diversity(cast(Tensor, branch.regions)), weights["sd"])
        return terms

    def _share_weight(self, share: Tensor | None) -> Tensor | float:
        if not self.share_weighted:
            return 1.0
        return torch.sigmoid(self.gathering.mean(cast(Tensor, share)))
