"""The loop over epochs: when to train, test and save."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from magnifier_plugin.engine.epoch_log import EpochLog
from magnifier_plugin.engine.finite import are_finite
from magnifier_plugin.engine.rotation import Checkpoints
from magnifier_plugin.engine.signals import StopSignals
from magnifier_plugin.engine.state import TrainingState
from magnifier_plugin.engine.step import TrainingStep

logger = logging.getLogger(__name__)

Results = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class SavingOptions:
    """When an engine saves checkpoints, in addition to after each test.

    Raises:
        ValueError: a value is out of its range.
    """

    freq: int = 1
    """Epochs between checkpoints."""
    minutes: float = 10.0
    """Also save at an epoch's end once the last checkpoint is this many minutes old; 0: do not."""
    keep_freq: int = 0
    """Epochs between checkpoints that are never removed; 0: keep only the last and the best."""

    def __post_init__(self) -> None:
        if self.freq < 1:
            raise ValueError(f"freq: expected at least one epoch, got {self.freq}")
        for name in ("minutes", "keep_freq"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: expected at least 0, got {getattr(self, name)}")


def stoppable(log: EpochLog, signals: StopSignals, step: TrainingStep) -> Iterator[Any]:
    """Yield the batches of an epoch; between steps, a signal may end it in all processes together.

    Args:
        log: the epoch's log.
        signals: held while no checkpoint can be saved: during a step, during accumulation, after a
            skipped batch, and after the last batch.
        step: trains each batch.
    """
    for batch in log:
        signals.hold()
        step.processes.wants_to_stop = signals.received is not None
        yield batch
        if not (log.is_complete or step.accumulated or step.skipped_in_a_row):
            signals.release(step.processes.must_stop)


def is_sound(step: TrainingStep) -> bool:
    """Whether the last batch was trained, not skipped, and all weights are finite."""
    return not step.skipped_in_a_row and are_finite(list(step.model.parameters()))


class EpochLoop:
    """Trains, tests and saves epoch by epoch; only the first process saves.

    Args:
        state: the state of the run.
        checkpoints: the checkpoints of the run.
        saving: the options for saving.
        signals: can end the run.
        max_epoch: number of epochs after which the run ends.
        eval_freq: epochs between tests; if it is not positive, only the last epoch is tested.
        start_eval: no test during training before this many epochs.
    """

    def __init__(
        self,
        state: TrainingState,
        checkpoints: Checkpoints,
        saving: SavingOptions,
        signals: StopSignals,
        *,
        max_epoch: int,
        eval_freq: int = -1,
        start_eval: int = 0,
    ) -> None:
        self.state, self.checkpoints, self.saving = state, checkpoints, saving
        self.signals, self.max_epoch = signals, max_epoch
        self.processes = state.step.processes
        self.eval_freq, self.start_eval = eval_freq, start_eval
        self._failure: OSError | None = None  # of the last attempt to save
        self._is_postponed = False  # the last checkpoint was due, but not saved
        self._saved_at = time.monotonic()
        self._saved = self._progress()

    def begin(self, start_epoch: int) -> None:
        """Continue after the last trained batch, or start anew; see `TrainingState.begin`.

        Args:
            start_epoch: the first epoch, counted from 0.
        """
        self.checkpoints.begin(anew=self.state.begin(start_epoch))
        self._saved = self._progress()

    def run(
        self,
        train: Callable[[], None],
        test: Callable[..., Results],
        draw: Callable[[], None],
    ) -> None:
        """Train up to the last epoch.

        A signal ends the run after the current step, with a checkpoint of that step.

        Args:
            train: trains the rest of an epoch; signals are still held when it returns.
            test: tests, with the argument `last` for the last test of the run; returns target →
                results.
            draw: draws the pictures of the test.
        Raises:
            OSError: the last checkpoint could not be saved.
        """
        start = time.monotonic()
        logger.info("=> Start training")
        with self.signals:
            try:
                if self.state.test_due and not self.state.position.batch:
                    logger.info("The test after epoch %d was not finished", self.state.epoch)
                    self._test(test, draw)
                while self.state.epoch < self.max_epoch:
                    train()
                    self._finish()
                    if self.state.test_due:
                        self._test(test, draw)
            except (KeyboardInterrupt, SystemExit):
                if self.signals.is_between_steps and self._progress() != self._saved:
                    self.signals.hold()
                    self._save()
                logger.info("Stopped; model.resume auto continues from the last checkpoint")
                raise
        logger.info("Elapsed %s", timedelta(seconds=round(time.monotonic() - start)))
        if self._failure is not None:
            raise self._failure

    @property
    def is_last(self) -> bool:
        """Whether the last epoch is trained."""
        return self.state.epoch >= self.max_epoch

    @property
    def has_test(self) -> bool:
        """Whether the last trained epoch is followed by a test."""
        is_due = self._is_multiple(self.eval_freq) and self.state.epoch >= self.start_eval
        return self.is_last or is_due

    def _is_multiple(self, freq: float) -> bool:
        return freq > 0 and self.state.epoch % freq == 0

    def _finish(self) -> None:
        """Save at the end of an epoch if a checkpoint is due."""
        # If the following test is killed or fails, the checkpoint says that it is still due.
        self.state.test_due = self.has_test
        is_due = (
            self.is_last
            or self._is_multiple(self.saving.freq)
            or self._is_multiple(self.saving.keep_freq)
            or 0 < 60 * self.saving.minutes <= time.monotonic() - self._saved_at
            or self._failure is not None
            or self._is_postponed
        )
        if self.processes.from_first(is_due):  # time and failures differ between processes
            self._save()
        self.signals.release(self.processes.must_stop)

    def _test(self, test: Callable[..., Results], draw: Callable[[], None]) -> None:
        logger.info("=> %s test", "Final" if self.is_last else "Intermediate")
        results = test(last=self.is_last)
        self.signals.hold()
        self._save(self.state.add_test(results))
        self.signals.release()
        draw()

    def _progress(self) -> tuple[int, int, bool]:
        """The run's progress; if it equals `_saved`, there is nothing new to save."""
        return self.state.epoch, self.state.position.batch, self.state.test_due

    def _save(self, mAP: float | None = None) -> None:
        """Save a checkpoint, unless the weights may be unusable: it would replace the last one."""
        works = self.is_last and mAP is not None  # the last weights have been tested
        self._is_postponed = not self.processes.from_first(works or is_sound(self.state.step))
        if self._is_postponed:
            logger.warning(
                "No checkpoint saved, because the last batch was skipped or weights are not "
                "finite; the last good one is %s",
                self.checkpoints.latest or "none",
            )
            return
        content = self.state.content()
        try:
            if self.processes.is_first:
                self.checkpoints.save(content, mAP)
        except OSError as error:
            self._failure = error
            logger.error(
                "%s; the last good checkpoint is %s; training goes on, and saving is tried again "
                "after the next epoch",
                *(error.strerror or error, self.checkpoints.latest or "none"),
            )
        else:
            self._failure = None
            self._saved, self._saved_at = self._progress(), time.monotonic()
