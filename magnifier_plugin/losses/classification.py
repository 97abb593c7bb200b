"""Cross entropy and triplet loss: the criterion of torchreid's own models, and shared losses."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from magnifier_plugin.losses.functional import batch_hard_triplet
from magnifier_plugin.losses.gathering import Gathering
from magnifier_plugin.losses.terms import CriterionOutput, Term, override_weights
from magnifier_plugin.models.precision import at_least_float32

LOSSES = ("softmax", "triplet")


def identity_loss(logits: Tensor, pids: Tensor, label_smoothing: float = 0.1) -> Tensor:
    """Cross entropy with label smoothing, in at least float32; the same values as torchreid's.

    Args:
        logits: float [B, N].
        pids: integer [B], 0..N-1.
        label_smoothing: fraction in 0..1; 0 for none.
    Returns:
        Scalar, the mean over the batch.
    """
    return F.cross_entropy(at_least_float32(logits), pids, label_smoothing=label_smoothing)


def accuracy(logits: Tensor, pids: Tensor) -> Tensor:
    """Percentage of a batch whose largest logit is that of the true identity.

    Args:
        logits: float [B, N].
        pids: integer [B].
    Returns:
        Scalar in 0..100, without gradient.
    """
    return (logits.detach().argmax(dim=1) == pids).float().mean() * 100


class ClassificationCriterion(nn.Module):
    """Cross entropy and triplet loss for torchreid's models in this package's engine.

    Terms: `cls`, and with loss="triplet" also `tri`. If the model returns lists, each term is the
    mean over the list, as in torchreid's `DeepSupervision`.

    Args:
        loss: torchreid's "softmax" (the model returns logits) or "triplet" (logits and features).
        weight_x: default weight of `cls` with loss="triplet"; with loss="softmax" it is 1.
        weight_t: default weight of `tri`.
        label_smoothing: 0 for none.
        margin: margin of the triplet loss.
        gathering: access to the batch of all processes; None for one process.
    Raises:
        ValueError: loss is unknown.
    """

    def __init__(
        self,
        *,
        loss: str,
        weight_x: float = 1.0,
        weight_t: float = 1.0,
        label_smoothing: float = 0.1,
        margin: float = 0.3,
        gathering: Gathering | None = None,
    ) -> None:
        super().__init__()
        if loss not in LOSSES:
            raise ValueError(f"loss.name: expected {' or '.join(LOSSES)}, got {loss!r}")
        self.loss, self.margin, self.label_smoothing = loss, margin, label_smoothing
        self.gathering = gathering or Gathering()
        self.weights = {"cls": 1.0} if loss == "softmax" else {"cls": weight_x, "tri": weight_t}

    def forward(
        self,
        outputs: Tensor | Sequence[Tensor] | tuple[Sequence[Tensor], Sequence[Tensor]],
        pids: Tensor,
        targets: Mapping[str, Tensor] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> CriterionOutput:
        """Compute the batch's terms, and the metric `acc` (%, of the first logits).

        Args:
            outputs: logits [B, N] or a list of them; with loss="triplet" a pair: logits as before,
                and features [B, D] or a list of them.
            pids: integer [B].
            targets: not used.
            weights: weights by term, which override the defaults.
        Raises:
            ValueError: `weights` has an unknown term.
        """
        weights = override_weights(self.weights, weights)
        given: Any = outputs if self.loss == "triplet" else (outputs, ())
        logits, features = map(_as_list, given)
        terms = {}
        if weights["cls"]:
            losses = [identity_loss(x, pids, self.label_smoothing) for x in logits]
            terms["cls"] = Term(torch.stack(losses).mean(), weights["cls"])
        if weights.get("tri"):
            rows = self.gathering.rows
            losses = [batch_hard_triplet(rows(x), rows(pids), self.margin) for x in features]
            terms["tri"] = Term(torch.stack(losses).mean(), weights["tri"])
        return CriterionOutput(terms, {"acc": accuracy(logits[0], pids)})


def _as_list(outputs: Tensor | Sequence[Tensor]) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)
