"""The result of a criterion: named loss terms with their weights, and metrics."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor


class Term(NamedTuple):
    """One loss term of a batch."""

    loss: Tensor
    """Scalar, unweighted."""
    weight: float | Tensor
    """Factor in the total; a tensor if it depends on the batch."""


class CriterionOutput(NamedTuple):
    """The loss terms to minimise, and metrics that are only logged."""

    terms: dict[str, Term]
    """By name; terms with weight 0 are left out."""
    metrics: dict[str, Tensor]
    """Scalars by name, such as "acc", the accuracy on the batch in %."""

    @property
    def total(self) -> Tensor:
        """The scalar to minimise: the sum of weight × loss.

        Raises:
            ValueError: there is no term, since every weight is 0.
        """
        if not self.terms:
            raise ValueError(
                "loss weights: expected a term with a weight other than 0, found none; set one of "
                "the criterion's weights, or of the stage's loss_weights"
            )
        return torch.stack([term.weight * term.loss for term in self.terms.values()]).sum()


class Criterion(Protocol):
    """The interface of a system's criterion, an `nn.Module` or any other object."""

    @property
    def weights(self) -> Mapping[str, float]:
        """Default weights of all terms by name, including those of branches that are not built."""

    def __call__(
        self,
        outputs: Any,
        pids: Tensor,
        targets: Mapping[str, Tensor],
        weights: Mapping[str, float],
    ) -> CriterionOutput:
        """Compute the terms of a batch.

        Args:
            outputs: the outputs of the network in training.
            pids: integer [B].
            targets: the batch's other declared inputs, by key.
            weights: weights by term, which override the defaults.
        """


def override_weights(
    defaults: Mapping[str, float], weights: Mapping[str, float] | None
) -> dict[str, float]:
    """The weights of a criterion's terms: the defaults, overridden by the given weights.

    Args:
        defaults: weights of all terms of the criterion, by name.
        weights: weights of some of them, by name; None for none.
    Raises:
        ValueError: `weights` has an unknown term.
    """
    unknown = sorted(set(weights or {}) - set(defaults))
    if unknown:
        raise ValueError(
            f"loss weights: expected names among {', '.join(defaults)}; got {', '.join(unknown)}"
        )
    return {**defaults, **(weights or {})}
