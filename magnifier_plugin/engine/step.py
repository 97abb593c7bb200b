"""One batch's step of a training: network, losses, gradients, optimiser."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from magnifier_plugin.data.inputs import take_inputs
from magnifier_plugin.engine.precision import Precision
from magnifier_plugin.losses.terms import Criterion


class TrainingStep:
    """Trains a model with one batch.

    Args:
        model: in training mode when it is called.
        criterion: of the model's outputs.
        precision: where and how the model computes.
        inputs: batch keys that the model takes besides the image.
    """

    def __init__(
        self, model: nn.Module, criterion: Criterion, precision: Precision, inputs: Sequence[str]
    ) -> None:
        self.model, self.criterion = model, criterion
        self.precision, self.inputs = precision, inputs

    def __call__(
        self, data: Mapping[str, Any], optimizer: Optimizer, weights: Mapping[str, float]
    ) -> dict[str, Tensor]:
        """One step.

        Args:
            data: a batch of the training loader.
            optimizer: of the model.
            weights: of loss terms by name, in place of the criterion's.
        Returns:
            Scalars by name: the total, "loss", and every term and metric.
        """
        images, pids, targets = self._on_device(data)
        with self.precision.autocast():
            outputs = self.model(images, **targets)
        result = self.criterion(outputs, pids, targets, weights)
        loss = result.total
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        terms = {name: term.loss for name, term in result.terms.items()}
        return {"loss": loss, **terms, **result.metrics}

    def _on_device(self, data: Mapping[str, Any]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Images [B, 3, H, W], pids [B] and the declared inputs."""
        targets = self.precision.targets(take_inputs(data, self.inputs))
        pids = data["pid"].to(self.precision.device, non_blocking=True)
        return self.precision.images(data["img"]), pids, targets
