"""From a batch to its losses: what several processes, and torch.compile, wrap."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from magnifier_plugin.engine.precision import Precision
from magnifier_plugin.losses.terms import Criterion


class Objective(nn.Module):
    """Network and criterion as one module, whose outputs depend on what is trained alone.

    DistributedDataParallel so finds the weights without gradient, such as those of a branch whose
    loss has the weight 0.

    Args:
        network: in training mode when it is called.
        criterion: of its outputs.
        precision: where and how the network computes.
    """

    def __init__(self, network: Any, criterion: Criterion, precision: Precision) -> None:
        super().__init__()
        self.network, self.criterion, self.precision = network, criterion, precision
        # DistributedDataParallel warns of the search for weights without gradient if it finds none.
        self.unused = nn.Parameter(torch.zeros((), device=precision.device))

    def forward(
        self,
        images: Tensor,
        pids: Tensor,
        targets: dict[str, Tensor],
        weights: Mapping[str, float],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The total loss, and terms and metrics by name.

        Args:
            images: float [B, 3, H, W].
            pids: integer [B].
            targets: further inputs of the network and the criterion.
            weights: of loss terms by name, in place of the criterion's.
        """
        with self.precision.autocast():
            outputs = self.network(images, **targets)
        result = self.criterion(outputs, pids, targets, weights)
        terms = {name: term.loss for name, term in result.terms.items()}
        return result.total, {**terms, **result.metrics}
