"""What every criterion returns: named loss terms with their weights, and metrics."""

from typing import NamedTuple

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
            raise ValueError("expected a loss term with a weight other than 0, found none")
        return torch.stack([term.weight * term.loss for term in self.terms.values()]).sum()
