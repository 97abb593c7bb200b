"""Network and criterion as one module, which DistributedDataParallel can wrap."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from magnifier_plugin.engine.precision import Precision
from magnifier_plugin.losses.terms import Criterion


class Objective(nn.Module):
    """Network and criterion as one module, whose outputs depend only on parameters with gradients.

    This lets DistributedDataParallel find parameters without gradients, such as those of a branch
    whose loss weight is 0.

    Args:
        network: the model, in training mode when called; possibly compiled.
        criterion: computes the losses of its outputs.
        precision: device and precision of the network.
    """

    def __init__(self, network: Any, criterion: Criterion, precision: Precision) -> None:
        super().__init__()
        self.network, self.criterion, self.precision = network, criterion, precision
        # DistributedDataParallel warns if it searches for unused parameters and there are none.
        self.unused = nn.Parameter(torch.zeros((), device=precision.device))

    def forward(
        self,
        images: Tensor,
        pids: Tensor,
        targets: dict[str, Tensor],
        weights: Mapping[str, float],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the total loss, and terms and metrics by name.

        Args:
            images: float [B, 3, H, W], normalised.
            pids: integer [B].
            targets: other inputs of the network and the criterion, by batch key.
            weights: weights by loss term, which override the criterion's.
        """
        with self.precision.autocast():
            outputs = self.network(images, **targets)
        result = self.criterion(outputs, pids, targets, weights)
        terms = {name: term.loss for name, term in result.terms.items()}
        return result.total, {**terms, **result.metrics}
