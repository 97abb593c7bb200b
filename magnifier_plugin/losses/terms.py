"""The result of a criterion: named loss terms with their weights, and metrics."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor


class Term(NamedTuple):
    """One loss of a batch."""

    loss: Tensor
    """Scalar, unweighted."""
    weight: float | Tensor
    """Factor in the total; a tensor where it follows from the batch."""


class CriterionOutput(NamedTuple):
    """The loss terms that are trained, and the metrics that are only logged."""

    terms: dict[str, Term]
    """By name; terms of weight 0 are left out."""
    metrics: dict[str, Tensor]
    """By name, scalars such as "acc", the accuracy on the batch in %."""

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
    """What a system is trained with; an `nn.Module` or any other object."""

    @property
    def weights(self) -> Mapping[str, float]:
        """Default weights of all terms that it knows, by name, whatever branches are built."""

    def __call__(
        self,
        outputs: Any,
        pids: Tensor,
        targets: Mapping[str, Tensor],
        weights: Mapping[str, float],
    ) -> CriterionOutput:
        """The terms of a batch.

        Args:
            outputs: of the network in training.
            pids: integer [B].
            targets: the declared inputs.
            weights: weights by name, in place of the defaults.
        """


def override_weights(
    defaults: Mapping[str, float], weights: Mapping[str, float] | None
) -> dict[str, float]:
    """The weights of a criterion's terms, where those given replace the defaults.

    Args:
        defaults: by name, of all terms that the criterion knows.
        weights: by name, of some of them.
    Raises:
        ValueError: a name that the criterion does not know.
    """
    unknown = sorted(set(weights or {}) - set(defaults))
    if unknown:
        raise ValueError(
            f"loss weights: expected names among {', '.join(defaults)}; got {', '.join(unknown)}"
        )
    return {**defaults, **(weights or {})}
