"""The epochs of a run: which of them end with a test or a checkpoint."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from magnifier_plugin.engine.epoch_log import EpochLog
from magnifier_plugin.engine.rotation import Checkpoints
from magnifier_plugin.engine.signals import StopSignals
from magnifier_plugin.engine.state import TrainingState
from magnifier_plugin.engine.step import TrainingStep

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
    minutes: float = 10.0
    """At an epoch's end one is saved too if the last one is so many minutes old; 0 for never."""
    keep_freq: int = 0
    """Epochs between two checkpoints that are kept, besides the last and the best; 0 for none."""

    def __post_init__(self) -> None:
        if self.freq < 1:
            raise ValueError(f"freq: expected at least one epoch, got {self.freq}")
        for name in ("minutes", "keep_freq"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: expected at least 0, got {getattr(self, name)}")


def stoppable(log: EpochLog, signals: StopSignals, step: TrainingStep) -> Iterator[Any]:
    """The batches of an epoch; between two steps a signal may end it, in all processes together.

    Args:
        log: of the epoch.
        signals: held while a batch is trained, when the last one is, and inside an accumulation,
            of which a checkpoint has nothing.
        step: that trains each batch.
    """
    for batch in log:
        signals.hold()
        step.processes.wants_to_stop = signals.received is not None
        yield batch
        if not log.is_complete and not step.accumulated:
            signals.release(step.processes.must_stop)


class EpochLoop:
    """Trains, tests and saves epoch by epoch; of several processes the first one saves.

    Args:
        state: of the training.
        checkpoints: of this run.
        saving: when it saves.
        signals: that end the run.
        max_epoch: the epoch to end after.
        eval_freq: epochs between two tests; without a positive number the last epoch alone has one.
        start_eval: the first epoch that may have a test.
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
        self._failure: OSError | None = None  # of the last saving
        self._saved_at = time.monotonic()
        self._saved = self._place()

    def begin(self, start_epoch: int) -> None:
        """Continue after the last trained batch, or start anew; see `TrainingState.begin`.

        Args:
            start_epoch: the first epoch, counted from 0.
        """
        self.checkpoints.begin(anew=self.state.begin(start_epoch))
        self._saved = self._place()

    def run(
        self,
        train: Callable[[], None],
        test: Callable[..., Results],
        draw: Callable[[], None],
    ) -> None:
        """Train to the last epoch.

        A signal ends it after the running step, with a checkpoint of that step.

        Args:
            train: trains the rest of an epoch, and leaves signals held.
            test: tests, `last` as the last test of the training; returns target → numbers.
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
                if self.signals.is_between_steps and self._place() != self._saved:
                    self.signals.hold()
                    self._save()
                logger.info("Stopped; model.resume auto continues with what is saved")
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
        """Whether a test follows the last trained epoch."""
        is_due = self._is_multiple(self.eval_freq) and self.state.epoch >= self.start_eval
        return self.is_last or is_due

    def _is_multiple(self, freq: float) -> bool:
        return freq > 0 and self.state.epoch % freq == 0

    def _finish(self) -> None:
        """Save at an epoch's end if that is due."""
        # If the test that follows is killed or fails, the checkpoint says that it is due.
        self.state.test_due = self.has_test
        is_due = (
            self.is_last
            or self._is_multiple(self.saving.freq)
            or self._is_multiple(self.saving.keep_freq)
            or 0 < 60 * self.saving.minutes <= time.monotonic() - self._saved_at
            or self._failure is not None
        )
        if self.processes.from_first(is_due):  # time and failures are of one process
            self._save()
        self.signals.release(self.processes.must_stop)

    def _test(self, test: Callable[..., Results], draw: Callable[[], None]) -> None:
        logger.info("=> %s test", "Final" if self.is_last else "Intermediate")
        results = test(last=self.is_last)
        self.signals.hold()
        self._save(self.state.add_test(results))
        self.signals.release()
        draw()

    def _place(self) -> tuple[int, int, bool]:
        """What tells two states of one training apart."""
        return self.state.epoch, self.state.position.batch, self.state.test_due

    def _save(self, mAP: float | None = None) -> None:
        content = self.state.content()
        try:
            if self.processes.is_first:
                self.checkpoints.save(content, mAP)
        except OSError as error:
            self._failure = error
            logger.error(
                "%s; the last good checkpoint is %s; the training goes on and tries again after "
                "the next epoch",
                *(error.strerror or error, self.checkpoints.latest or "none"),
            )
        else:
            self._failure = None
            self._saved, self._saved_at = self._place(), time.monotonic()
