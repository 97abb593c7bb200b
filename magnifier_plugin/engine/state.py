"""A training run's state: stage, optimiser, schedule, loss weights, position, random states."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from magnifier_plugin.engine.checkpoint import read_checkpoint
from magnifier_plugin.engine.position import Position
from magnifier_plugin.engine.random_states import random_states, restore_random_states
from magnifier_plugin.engine.stages import Stage, check_stages, find_stage, optimizer_stage
from magnifier_plugin.engine.step import TrainingStep
from magnifier_plugin.engine.weights import load_optimizer, load_state

logger = logging.getLogger(__name__)

_NEEDED = {"epoch", "optimizer", "scheduler", "stage", "random", "history", "rank1", "best_mAP"}


class Saved(NamedTuple):
    """A checkpoint that has been read."""

    path: Path
    epoch: int
    """Number of trained epochs."""
    content: dict[str, Any]
    """As `read_checkpoint` returns it."""


class TrainingState:
    """Progress, optimiser and schedule of a training run, through all its stages.

    Args:
        step: trains the model; its averages and counters are part of the state.
        stages: the stages of the run; None with the caller's own optimizer.
        optimizer: the caller's own, or None.
        scheduler: the optimizer's scheduler.
        loss_weights: weights of loss terms, used with the caller's own optimizer.
    Raises:
        ValueError: both or neither of optimizer and stages are given, or a stage is invalid.
    """

    def __init__(
        self,
        step: TrainingStep,
        stages: Sequence[Stage] | None,
        optimizer: Optimizer | None = None,
        scheduler: LRScheduler | None = None,
        loss_weights: Mapping[str, float] | None = None,
    ) -> None:
        if (optimizer is None) == (stages is None):
            raise ValueError(
                "expected stages, which build their own optimisers, or an optimizer; got "
                + ("neither" if optimizer is None else "both")
            )
        if stages is not None:
            check_stages(stages, step.objective.criterion.weights, step.model)
        self.step, self.model = step, step.model
        self.stages = tuple(stages or ())
        self.optimizer, self.scheduler = optimizer, scheduler
        self.loss_weights: Mapping[str, float] = dict(loss_weights or {})
        self.stage = 0
        """Number of the stage, from 1; 0 before the first, and with the caller's optimizer."""
        self.history: list[dict[str, Any]] = []
        """One entry per trained epoch: epoch, stage, lr, each loss term and metric, mAP."""
        self.epoch = 0
        """Number of trained epochs."""
        self.position = Position()
        """Position within the next epoch."""
        self.test_due = False
        """Whether the test after the last trained epoch is still due."""
        self.rank1 = 0.0
        """Rank-1 of the last test on the first target."""
        self._resumed: Saved | None = None

    @property
    def is_resumed(self) -> bool:
        """Whether a checkpoint was read from which the next run can continue."""
        return self._resumed is not None

    def check_epochs(self, max_epoch: int | None) -> int:
        """The number of epochs to train; for None all epochs of the stages.

        Raises:
            ValueError: max_epoch is None without stages, below 1, or more than the stages have.
        """
        if max_epoch is None:
            if not self.stages:
                raise ValueError("max_epoch: expected a number with an optimizer of your own")
            return sum(stage.max_epoch for stage in self.stages)
        if max_epoch < 1:
            raise ValueError(f"max_epoch: expected at least 1, got {max_epoch}")
        if self.stages:
            find_stage(self.stages, max_epoch - 1)
        return max_epoch

    def begin(self, start_epoch: int) -> bool:
        """Continue the run after its last trained batch, or start a new one.

        Args:
            start_epoch: the first epoch to train, counted from 0.
        Returns:
            Whether a new run starts, without history and with fresh optimisers.
        Raises:
            ValueError: a new run would use a scheduler that has already been stepped.
        """
        trained = self.epoch if self.history or self._resumed else 0
        resumed, self._resumed = self._resumed, None
        if start_epoch == trained and (self.history or resumed):
            if resumed is not None:
                self._restore(resumed.content)
            return False
        if trained and self.scheduler is not None and not self.stages:
            raise ValueError(
                f"start_epoch: expected {trained}, got {start_epoch}; the given scheduler has been "
                f"stepped {trained} times already. Continue with start_epoch={trained} and a "
                "larger max_epoch, or build a new optimizer, scheduler and engine"
            )
        self.history.clear()
        self.stage, self.rank1, self.epoch = 0, 0.0, start_epoch
        self.position, self.test_due = Position(), False
        self.step.reset()
        return True

    def enter(self, epoch: int) -> bool:
        """Enter the stage of an epoch, counted from 0: its optimiser, schedule and loss weights.

        Returns:
            Whether the optimiser has changed.
        """
        if not self.stages:
            return False
        index, first = find_stage(self.stages, epoch)
        return index + 1 != self.stage and self._enter_stage(index, first, epoch)

    def finish_epoch(self, entry: Mapping[str, Any]) -> None:
        """Finish an epoch after its last batch; `entry` is added to the history."""
        self.epoch += 1
        self.history.append({"epoch": self.epoch, "stage": self.stage, **entry})
        self.position = Position()

    def _enter_stage(self, index: int, first: int, epoch: int) -> bool:
        stage, owner = self.stages[index], optimizer_stage(self.stages, index)
        previous, self.stage = self.stage - 1, index + 1
        self.loss_weights = stage.loss_weights
        weights = "".join(f", {name} × {weight:g}" for name, weight in stage.loss_weights.items())
        keeps = previous >= 0 and optimizer_stage(self.stages, previous) == owner
        if not keeps:
            self.optimizer, self.scheduler = self.stages[owner].build_optimizer(
                self.model, epoch - self._first_epoch(owner)
            )
        logger.info(
            "=> Stage %d of %d: epochs %d to %d, lr %g%s%s",
            *(index + 1, len(self.stages), first + 1, first + stage.max_epoch),
            self._optimizer().param_groups[-1]["lr"] if owner < index else stage.lr,
            " (optimiser kept)" if owner < index else "",
            weights,
        )
        return not keeps

    def read(self, path: str | Path) -> Saved:
        """Read a checkpoint to resume from; `begin` restores its optimiser and random states.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not a checkpoint of this engine, or belongs to another model or
                another number of identities.
        """
        path = Path(path).expanduser()
        content = read_checkpoint(path)
        missing = _NEEDED - set(content)
        if missing:
            raise ValueError(
                f"{path}: expected a checkpoint of this engine to resume from; it lacks "
                f"{', '.join(sorted(missing))}. model.load_weights loads only the weights"
            )
        load_state(self.model, content["state_dict"], str(path))
        self.step.restore(content, str(path))
        self.history, self.rank1 = list(content["history"]), content["rank1"]
        self.epoch, self.test_due = content["epoch"], content.get("test_due", False)
        self.position = Position.load(content, next(self.model.parameters()).device)
        self._resumed = Saved(path, content["epoch"], content)
        return self._resumed

    def add_test(self, results: Mapping[str, Mapping[str, Any]]) -> float:
        """Record the results of a test after the last epoch; return the first target's mAP."""
        first = next(iter(results.values()))
        mAP: float = first["mAP"]
        self.history[-1]["mAP"], self.rank1, self.test_due = mAP, first["rank-1"], False
        return mAP

    def content(self) -> dict[str, Any]:
        """The content of a checkpoint that continues after the last trained batch."""
        return {
            "state_dict": self.model.state_dict(),
            "epoch": self.epoch,
            **self.position.content(),
            "test_due": self.test_due,
            "rank1": self.rank1,
            "history": self.history,
            "optimizer": self._optimizer().state_dict(),
            "scheduler": self.scheduler.state_dict() if self.scheduler else None,
            "stage": self.stage,
            "random": self.step.processes.collect(random_states()),
            **self.step.content(),
        }

    def _restore(self, saved: Mapping[str, Any]) -> None:
        """Restore a checkpoint's optimiser, schedule and random states."""
        if not self.stages:
            self._optimizer().load_state_dict(saved["optimizer"])
            if self.scheduler is not None and saved["scheduler"] is not None:
                self.scheduler.load_state_dict(saved["scheduler"])
            restore_random_states(saved["random"], self.step.processes.rank)
            return
        self.stage = 0
        if self._fits(saved):
            index = saved["stage"] - 1
            self._enter_stage(index, self._first_epoch(index), saved["epoch"])
            if not load_optimizer(self._optimizer(), saved["optimizer"]):
                self.stage = 0
        restore_random_states(saved["random"], self.step.processes.rank)

    def _fits(self, saved: Mapping[str, Any]) -> bool:
        """Whether a checkpoint's stage and schedule fit the current stages."""
        # Within an epoch, the saved stage is that of the current epoch, otherwise of the last one.
        index, _ = find_stage(self.stages, saved["epoch"] - (0 if saved.get("batch") else 1))
        owner = optimizer_stage(self.stages, index)
        expected = index + 1, saved["epoch"] - self._first_epoch(owner)
        found = saved["stage"], (saved["scheduler"] or {}).get("last_epoch")
        if found != expected:
            logger.warning(
                "After epoch %d: expected a checkpoint in stage %s, epoch %s of its schedule, "
                "found stage %s, epoch %s: the lengths of the stages have changed, so the "
                "optimiser starts afresh",
                *(saved["epoch"], *expected, *found),
            )
        return found == expected

    def _optimizer(self) -> Optimizer:
        """The optimiser of the current stage."""
        return cast(Optimizer, self.optimizer)

    def _first_epoch(self, index: int) -> int:
        """The first epoch of a stage, counted from 0."""
        return sum(stage.max_epoch for stage in self.stages[:index])
