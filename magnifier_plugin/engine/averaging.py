"""The moving average of a model's weights over the training steps."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

logger = logging.getLogger(__name__)


class WeightAverage:
    """Exponential moving average of a model's weights and running statistics.

    Step n sets it to d × average + (1 − d) × weights, with d = min(decay, (1 + n) / (10 + n)) as in
    TensorFlow's `ExponentialMovingAverage`, so that initial weights fade in short runs too.

    Args:
        model: its floating-point weights and buffers are averaged; integer ones are not.
        decay: above 0 and below 1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.steps = 0
        """Number of averaged steps."""
        self._average = [tensor.clone() for tensor in self._averaged().values()]
        self._versions = self._current_versions()  # of the parameters when last averaged

    def restart(self) -> None:
        """Reset the average to the model's current weights."""
        self.load(self.model.state_dict(), 0)

    def load(self, state: Mapping[str, Tensor], steps: int) -> None:
        """Restore a saved average.

        Args:
            state: as returned by `state_dict`.
            steps: number of averaged steps.
        """
        self.steps = steps
        for average, name in zip(self._average, self._averaged(), strict=True):
            average.copy_(state[name])
        self._versions = self._current_versions()

    def update(self) -> None:
        """Update the average with the model's current weights."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        update: Any = get_ema_multi_avg_fn
        update(decay)(self._average, list(self._averaged().values()), self.steps)
        self._versions = self._current_versions()

    def state_dict(self) -> dict[str, Tensor]:
        """The model's state dict, with averages in place of the averaged tensors."""
        averages = dict(zip(self._averaged(), self._average, strict=True))
        return {**self.model.state_dict(), **averages}

    @contextmanager
    def in_model(self) -> Iterator[None]:
        """Give the model the averages inside the block, and its own weights back afterwards.

        A model that has loaded other weights since the last step keeps them, with a warning.
        """
        if self._versions != self._current_versions():
            logger.warning(
                "The model's weights were replaced after its last training step: the new weights "
                "are tested, not the moving average (train.ema)"
            )
            yield
            return
        own = [tensor.clone() for tensor in self._averaged().values()]
        try:
            self._copy_to_model(self._average)
            yield
        finally:
            self._copy_to_model(own)
            self._versions = self._current_versions()

    def _current_versions(self) -> list[int]:
        """Counters of changes in place, by parameter."""
        return [parameter._version for parameter in self.model.parameters()]

    def _averaged(self) -> dict[str, Tensor]:
        state = self.model.state_dict()
        return {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}

    def _copy_to_model(self, source: list[Tensor]) -> None:
        for tensor, new in zip(self._averaged().values(), source, strict=True):
            tensor.copy_(new)
