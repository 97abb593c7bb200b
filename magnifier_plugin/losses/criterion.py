"""Named losses and their weighted sum: one criterion a model."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from magnifier_plugin.losses.functional import (
    batch_hard_triplet,
    segmentation_cross_entropy,
    semantic_diversity,
)
from magnifier_plugin.models.magnifiernet import MagnifierOutput


class SemanticDiversityLoss(nn.Module):
    """Semantic Diversity Loss (MagnifierNet, Eq. 3) as a module; see `semantic_diversity`.

    Args:
        eps: lower bound of the norms' product.
        floor: clamp the loss at 0 from below, as the authors' code does.
    """

    def __init__(self, eps: float = 1e-6, floor: bool = False) -> None:
        super().__init__()
        self.eps, self.floor = eps, floor

    def forward(self, regions: Tensor) -> Tensor:
        """Args: regions: float [B, K, D]. Returns: scalar in [-1, 1], in [0, 1] with the floor."""
        loss = semantic_diversity(regions, self.eps)
        return loss.clamp(min=0) if self.floor else loss


class MagnifierCriterion(nn.Module):
    """MagnifierNet's loss, L = L_cls + L_tri + γ L_SD + λ L_mask (Eq. 4).

    L_cls and L_tri are summed over the branches; each of the 8 regions adds its own label-smoothed
    cross entropy.

    Args:
        weight_x: weight of the branches' cross entropy.
        weight_t: weight of the branches' triplet loss.
        label_smoothing: 0 for none; the paper's is 0.1.
        margin: of the triplet loss.
        region_weight: weight of one region's cross entropy.
        mask_weight: λ.
        class_balanced_mask: see `segmentation_cross_entropy`.
        sd_floor: clamp L_SD at 0 from below (authors' code).
        share_weighted: multiply SAB's losses by sigmoid(share of cells kept) and each region's by
            sigmoid(share of cells it covers), shares of the batch (authors' code).
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
        sd_floor: bool = False,
        share_weighted: bool = False,
    ) -> None:
        super().__init__()
        self.weight_x, self.weight_t = weight_x, weight_t
        self.label_smoothing, self.margin = label_smoothing, margin
        self.region_weight, self.mask_weight = region_weight, mask_weight
        self.class_balanced_mask = class_balanced_mask
        self.share_weighted = share_weighted
        self.diversity = SemanticDiversityLoss(floor=sd_floor)

    def forward(
        self, output: MagnifierOutput, pids: Tensor, masks: Tensor | None = None, gamma: float = 0.0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Weigh what the network says about a batch.

        Args:
            output: of a `MagnifierNet` in training.
            pids: integer [B].
            masks: label maps uint8 [B, H, W]; None where the network has no M.
            gamma: γ of this stage; at 0 L_SD is reported, and trains nothing.
        Returns:
            The scalar to minimise, and the unweighted losses by name: `cls_*`, `tri_*` a branch,
            `cls_regions` (mean of the 8), `sd`, `mask`, and `acc` (%, of the first branch).
        """
        total = pids.new_zeros((), dtype=torch.float32)
        named: dict[str, Tensor] = {}
        for name, branch in output.branches.items():
            cls = identity_loss(branch.logits, pids, self.label_smoothing)
            tri = batch_hard_triplet(branch.feature, pids, self.margin)
            weight = self._share_weight(branch.share) if name == "SAB" else 1.0
            total = total + weight * (self.weight_x * cls + self.weight_t * tri)
            named |= {f"cls_{name}": cls, f"tri_{name}": tri}
        if "SFB" in output.branches:
            total = total + self._regions(output, pids, gamma, named)
        if output.mask_logits is not None and masks is not None:
            named["mask"] = segmentation_cross_entropy(
                output.mask_logits, masks, self.class_balanced_mask
            )
            total = total + self.mask_weight * named["mask"]
        named["acc"] = accuracy(next(iter(output.branches.values())).logits, pids)
        return total, named

    def _regions(
        self, output: MagnifierOutput, pids: Tensor, gamma: float, named: dict[str, Tensor]
    ) -> Tensor:
        branch = output.branches["SFB"]
        losses = torch.stack(
            [
                identity_loss(logits, pids, self.label_smoothing)
                for logits in branch.region_logits.unbind(1)
            ]
        )
        with torch.set_grad_enabled(gamma > 0 and torch.is_grad_enabled()):
            named["sd"] = self.diversity(branch.regions)
        named["cls_regions"] = losses.mean()
        weighted = (self._share_weight(branch.share) * losses).sum()
        return self.region_weight * weighted + gamma * named["sd"]

    def _share_weight(self, share: Tensor) -> Tensor | float:
        return torch.sigmoid(share) if self.share_weighted else 1.0


class ClassificationCriterion(nn.Module):
    """Cross entropy and triplet loss for torchreid's own models, in our engine.

    Args:
        loss: torchreid's "softmax" (the model returns logits) or "triplet" (logits and features);
            lists of either are averaged, as torchreid's `DeepSupervision` does.
        weight_x: weight of the cross entropy.
        weight_t: weight of the triplet loss.
        label_smoothing: 0 for none.
        margin: of the triplet loss.
    """

    def __init__(
        self,
        *,
        loss: str,
        weight_x: float = 1.0,
        weight_t: float = 1.0,
        label_smoothing: float = 0.1,
        margin: float = 0.3,
    ) -> None:
        super().__init__()
        self.loss, self.margin, self.label_smoothing = loss, margin, label_smoothing
        self.weight_x, self.weight_t = (weight_x, weight_t) if loss == "triplet" else (1.0, 0.0)

    def forward(
        self,
        output: Tensor | Sequence[Tensor],
        pids: Tensor,
        masks: Tensor | None = None,
        gamma: float = 0.0,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `MagnifierCriterion.forward`; masks and gamma are not used."""
        logits, features = output if self.loss == "triplet" else (output, ())
        logits, features = _as_list(logits), _as_list(features)
        named = {
            "cls": _mean([identity_loss(x, pids, self.label_smoothing) for x in logits]),
        }
        total = self.weight_x * named["cls"]
        if features:
            named["tri"] = _mean([batch_hard_triplet(x, pids, self.margin) for x in features])
            total = total + self.weight_t * named["tri"]
        named["acc"] = accuracy(logits[0], pids)
        return total, named


def identity_loss(logits: Tensor, pids: Tensor, label_smoothing: float = 0.1) -> Tensor:
    """Cross entropy with label smoothing, in full precision; the numbers are torchreid's."""
    return F.cross_entropy(logits.float(), pids, label_smoothing=label_smoothing)


def accuracy(logits: Tensor, pids: Tensor) -> Tensor:
    """Share of a batch whose largest logit is the right identity's, in %."""
    return (logits.detach().argmax(dim=1) == pids).float().mean() * 100


def _as_list(outputs: Tensor | Sequence[Tensor]) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def _mean(losses: list[Tensor]) -> Tensor:
    return torch.stack(losses).mean()
