"""The half of the engine that saves and goes on: checkpoints after epochs and tests."""

import logging
from pathlib import Path
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from magnifier_plugin.engine import checkpoint
from magnifier_plugin.engine.testing import EvaluatingEngine

logger = logging.getLogger(__name__)


class SavingEngine(EvaluatingEngine):
    """Keeps the last and the best checkpoint of a training, and resumes from one."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.stage = 0  # counted from 1; 0 before the first, and with the caller's own optimizer
        self.latest: Path | None = None
        self.best_mAP = -1.0
        self._rank1 = 0.0
        self._resumed: dict[str, Any] | None = None

    def use_optimizer(self, optimizer: Optimizer | None, scheduler: LRScheduler | None) -> None:
        """Make these the model's, for torchreid's hooks too."""
        self.optimizer, self.scheduler = optimizer, scheduler
        self.register_model("model", self.model, optimizer, scheduler)

    def save_model(self, epoch: int, rank1: float, save_dir: str, is_best: bool = False) -> None:
        """torchreid's hook after each test: save, and keep the best by the first target's mAP."""
        mAP = next(iter(self.results.values()))["mAP"]
        self.history[-1]["mAP"] = mAP
        self._rank1 = float(rank1)
        better = mAP > self.best_mAP
        self.best_mAP = max(mAP, self.best_mAP)
        path = self.save_checkpoint()
        logger.info('Checkpoint saved to "%s"', path)
        if better:
            checkpoint.keep_as_best(path)

    def save_checkpoint(self) -> Path:
        """Write a checkpoint of this epoch, and remove the one before it."""
        path = checkpoint.checkpoint_path(self.save_dir / "model", self.epoch + 1)
        checkpoint.write_checkpoint(
            {
                "state_dict": self.model.state_dict(),
                "epoch": self.epoch + 1,
                "rank1": self._rank1,
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict() if self.scheduler else None,
                "stage": self.stage,
                "best_mAP": self.best_mAP,
                "history": self.history,
                "random": checkpoint.random_states(),
                "record": self.record,
            },
            path,
        )
        # Never a file elsewhere: that one is somebody's starting point.
        if self.latest and self.latest != path and self.latest.parent == path.parent:
            self.latest.unlink(missing_ok=True)
        self.latest = path
        return path

    def resume(self, path: str | Path) -> int:
        """Go on from a checkpoint of this engine, in whichever stage it was saved.

        Returns:
            The start epoch for `run`.
        Raises:
            FileNotFoundError: there is no such file.
            ValueError: no checkpoint, or one of another model, another number of identities, or
                another toolbox.
        """
        path = Path(path).expanduser()
        saved = checkpoint.read_checkpoint(path)
        missing = {"epoch", "optimizer", "scheduler", "stage", "random", "history"} - set(saved)
        if missing:
            raise ValueError(
                f"{path}: expected a checkpoint of this engine to resume from; it lacks "
                f"{', '.join(sorted(missing))}. model.load_weights takes the weights alone"
            )
        checkpoint.load_state(self.model, saved["state_dict"], str(path))
        self.history, self.best_mAP = list(saved["history"]), saved["best_mAP"]
        self._rank1 = saved["rank1"]
        if path.name != checkpoint.BEST:
            self.latest = path
        self._resumed = saved
        logger.info("=> Resumed from %s: epoch %d, stage %d", path, saved["epoch"], saved["stage"])
        return saved["epoch"]

    def restore_state(self) -> None:
        """After `resume`, once the stage stands: its optimiser, schedule and random states."""
        if self._resumed is None:
            return
        saved, self._resumed = self._resumed, None
        if saved["stage"] == self.stage:
            self.optimizer.load_state_dict(saved["optimizer"])
            if self.scheduler is not None and saved["scheduler"] is not None:
                self.scheduler.load_state_dict(saved["scheduler"])
        checkpoint.restore_random_states(saved["random"])
