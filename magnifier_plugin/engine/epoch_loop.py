"""The epochs of a run: which of them end with a test or a checkpoint."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from magnifier_plugin.engine.checkpoint import Checkpoints
from magnifier_plugin.engine.state import TrainingState

logger = logging.getLogger(__name__)

Results = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class SavingOptions:
    """When an engine saves checkpoints, besides after each test.

    Raises:
        ValueError: a value is out of its range.
    """

    freq: int = 1
    """Epochs between two checkpoints."""

    def __post_init__(self) -> None:
        if self.freq < 1:
            raise ValueError(f"freq: expected at least one epoch, got {self.freq}")


class EpochLoop:
    """Trains, tests and saves epoch by epoch.

    Args:
        state: of the training.
        checkpoints: of this run.
        max_epoch: the epoch to end after.
        saving: when it saves.
        eval_freq: epochs between two tests; without a positive number the last epoch alone has one.
        start_eval: the first epoch that may have a test.
    """

    def __init__(
        self,
        state: TrainingState,
        checkpoints: Checkpoints,
        saving: SavingOptions,
        *,
        max_epoch: int,
        eval_freq: int = -1,
        start_eval: int = 0,
    ) -> None:
        self.state, self.checkpoints, self.saving = state, checkpoints, saving
        self.max_epoch = max_epoch
        self.eval_freq, self.start_eval = eval_freq, start_eval

    def run(
        self,
        start_epoch: int,
        train: Callable[[int], None],
        test: Callable[[bool], Results],
    ) -> None:
        """Train from an epoch, counted from 0, to the last.

        Args:
            start_epoch: the first epoch.
            train: trains an epoch, counted from 0.
            test: tests, as the last test of the training or not; returns target → numbers.
        """
        start = time.monotonic()
        logger.info("=> Start training")
        for epoch in range(start_epoch, self.max_epoch):
            train(epoch)
            # After the last epoch too: if the test that follows fails, the training is kept.
            if self.is_last(epoch) or (epoch + 1) % self.saving.freq == 0:
                self.checkpoints.save(self.state.content())
            if self.has_test(epoch):
                last = self.is_last(epoch)
                logger.info("=> %s test", "Final" if last else "Intermediate")
                mAP = self.state.add_test(test(last))
                path = self.checkpoints.save(self.state.content(), mAP)
                logger.info('Checkpoint saved to "%s"', path)
        logger.info("Elapsed %s", timedelta(seconds=round(time.monotonic() - start)))

    def is_last(self, epoch: int) -> bool:
        """Whether the run ends after an epoch, counted from 0."""
        return epoch + 1 == self.max_epoch

    def has_test(self, epoch: int) -> bool:
        """Whether a test follows an epoch, counted from 0."""
        is_due = self.eval_freq > 0 and (epoch + 1) % self.eval_freq == 0
        return self.is_last(epoch) or (is_due and epoch + 1 >= self.start_eval)
