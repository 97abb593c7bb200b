"""Training in stages: torchreid's engine with MagnifierNet's losses, and nights that survive."""

import inspect
import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torchreid
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm

from magnifier_plugin.engine.console import show_log
from magnifier_plugin.engine.meters import LossMeter, log_line
from magnifier_plugin.engine.saving import SavingEngine
from magnifier_plugin.engine.stages import Stage, find_stage, paper_stages
from magnifier_plugin.losses.magnifier import MagnifierCriterion

AverageMeter = torchreid.utils.AverageMeter
logger = logging.getLogger(__name__)


class ImageMagnifierEngine(SavingEngine):
    """Trains MagnifierNet (or any torchreid model) stage by stage; tests as torchreid does.

    Args:
        datamanager: ours, or torchreid's with `_masked` sources.
        model: built with the loss that the criterion expects.
        optimizer: None, or one of your own, with your scheduler: then there is one stage, yours.
        scheduler: stepped once an epoch.
        stages: of the training; default the paper's two (`paper_stages`).
        criterion: default `MagnifierCriterion()`.
        gamma: γ of the Semantic Diversity loss, with an optimizer of your own.
        checkpoint_freq: epochs between two checkpoints.
        options: `use_gpu`, `amp`, `channels_last` and `record` of `EvaluatingEngine`.
    Raises:
        ValueError: both an optimizer and stages.

    Example:
        >>> engine = torchreid.engine.ImageMagnifierEngine(datamanager, model)
        >>> engine.run(save_dir="log/magnifiernet")
    """

    def __init__(
        self,
        datamanager: Any,
        model: nn.Module,
        optimizer: Optimizer | None = None,
        scheduler: LRScheduler | None = None,
        *,
        stages: Sequence[Stage] | None = None,
        criterion: nn.Module | None = None,
        gamma: float = 0.0,
        checkpoint_freq: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(datamanager, model, **options)
        if optimizer is not None and stages is not None:
            raise ValueError(
                "expected stages, which build their optimisers, or an optimizer; got both"
            )
        self.stages = tuple(stages or paper_stages()) if optimizer is None else ()
        self.criterion = criterion or MagnifierCriterion()
        self.checkpoint_freq = checkpoint_freq
        self.gamma = gamma
        self._takes_masks = "masks" in inspect.signature(model.forward).parameters
        self.use_optimizer(optimizer, scheduler)

    def run(
        self,
        save_dir: str = "log",
        max_epoch: int | None = None,
        start_epoch: int = 0,
        **options: Any,
    ) -> None:
        """torchreid's `run`, with its arguments.

        Args:
            save_dir: for checkpoints, TensorBoard and `results.json`.
            max_epoch: default all epochs of the stages.
            start_epoch: where to go on; `resume` returns it.
            options: as torchreid's `run`; `rerank` also counts in the last test of a training.
        Raises:
            ValueError: more epochs than the stages have.
            FloatingPointError: the loss is not finite any more.
        """
        show_log()
        self.save_dir = Path(save_dir)
        self.rerank = options.pop("rerank", False)
        if max_epoch is None:
            max_epoch = sum(stage.max_epoch for stage in self.stages)
        test_only = options.pop("test_only", False)
        if not test_only and start_epoch >= max_epoch > 0:
            logger.info("All %d epochs are trained already; testing only", max_epoch)
            test_only = True
        if self.stages and not test_only:
            find_stage(self.stages, max_epoch - 1)
        super().run(
            save_dir=save_dir,
            max_epoch=max_epoch,
            start_epoch=start_epoch,
            test_only=test_only,
            rerank=self.rerank,
            **options,
        )

    def train(
        self, print_freq: int = 10, fixbase_epoch: int = 0, open_layers: Sequence[str] | None = None
    ) -> None:
        """torchreid's hook: one epoch."""
        self._enter_stage()
        self.set_model_mode("train")
        self.two_stepped_transfer_learning(self.epoch, fixbase_epoch, open_layers)
        if hasattr(self.datamanager, "set_epoch"):
            self.datamanager.set_epoch(self.epoch)
        self.num_batches = len(self.train_loader)
        if not self.num_batches:
            raise ValueError("the training set is smaller than one batch; lower train.batch_size")
        losses, seconds, waiting = LossMeter(), AverageMeter(), AverageMeter()
        progress = self._progress()
        end = time.perf_counter()
        for self.batch_idx, batch in enumerate(progress):
            waiting.update(time.perf_counter() - end)
            losses.update(self.forward_backward(batch))
            seconds.update(time.perf_counter() - end)
            if (self.batch_idx + 1) % print_freq == 0 or self.batch_idx + 1 == self.num_batches:
                self._report(losses.read(), seconds, waiting)
            end = time.perf_counter()
        self._end_epoch(losses.read())

    def forward_backward(self, data: Mapping[str, Any]) -> dict[str, Tensor]:
        """torchreid's hook: one step. Returns the losses by name, not yet read from the device."""
        images, pids, masks = self.parse_data_for_train(data)
        with self.autocast():
            output = self.model(images, masks) if self._takes_masks else self.model(images)
        targets = {} if masks is None else {"mask": masks}
        result = self.criterion(output, pids, targets, {"sd": self.gamma})
        loss, named = result.total, {name: term.loss for name, term in result.terms.items()}
        named |= result.metrics
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss, **named}

    def parse_data_for_train(self, data: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor | None]:
        """torchreid's hook: images [B, 3, H, W], pids [B], label maps uint8 [B, H, W] or None."""
        masks = data.get("mask")
        if masks is not None:
            masks = masks.to(self.device, non_blocking=True)
        return self.to_device(data["img"]), data["pid"].to(self.device, non_blocking=True), masks

    def _enter_stage(self) -> None:
        """Give a stage that begins a fresh optimiser and schedule, or those of a checkpoint."""
        if self.stages:
            index, first = find_stage(self.stages, self.epoch)
            if index + 1 != self.stage:
                stage = self.stages[index]
                self.stage, self.gamma = index + 1, stage.gamma
                optimizer = stage.build_optimizer(self.model)
                self.use_optimizer(optimizer, stage.build_scheduler(optimizer))
                logger.info(
                    "=> Stage %d of %d: epochs %d to %d, lr %g, SD loss × %g",
                    *(index + 1, len(self.stages), first + 1, first + stage.max_epoch),
                    *(stage.lr, stage.gamma),
                )
        self.restore_state()

    def _progress(self) -> tqdm:
        self._bar = tqdm(
            self.train_loader,
            desc=f"epoch {self.epoch + 1}/{self.max_epoch}",
            disable=None,
            leave=False,
            dynamic_ncols=True,
        )
        return self._bar

    def _report(
        self, losses: dict[str, tuple[float, float]], seconds: AverageMeter, waiting: AverageMeter
    ) -> None:
        """Print a line, write TensorBoard, and stop when the loss is not finite any more."""
        lr = self.get_current_lr()
        line = log_line(
            *(self.epoch + 1, self.max_epoch, self.batch_idx + 1, self.num_batches),
            seconds=(seconds.val, seconds.avg),
            data_seconds=(waiting.val, waiting.avg),
            losses=losses,
            lr=lr,
        )
        logger.info(line)
        self._bar.set_postfix(loss=f"{losses['loss'][0]:.3f}")
        if self.writer is not None:
            step = self.epoch * self.num_batches + self.batch_idx
            scalars = {"time": seconds.avg, "data": waiting.avg, "lr": lr}
            for name, value in (
                scalars | {name: mean for name, (_, mean) in losses.items()}
            ).items():
                self.writer.add_scalar(f"Train/{name}", value, step)
        if not all(math.isfinite(last) for last, _ in losses.values()):
            raise FloatingPointError(
                f"epoch {self.epoch + 1}, batch {self.batch_idx + 1}: expected finite losses, got "
                f"{', '.join(f'{name} {last}' for name, (last, _) in losses.items())}. The last "
                f"checkpoint is {self.latest or 'not written yet'}; lower train.lr or set amp off."
            )

    def _end_epoch(self, losses: dict[str, tuple[float, float]]) -> None:
        entry = {"epoch": self.epoch + 1, "stage": self.stage, "lr": self.get_current_lr()}
        self.history.append(entry | {name: mean for name, (_, mean) in losses.items()})
        self.update_lr()
        # The last one too: whatever happens in the test that follows, the training is kept.
        if (self.epoch + 1) % self.checkpoint_freq == 0 or self.epoch + 1 == self.max_epoch:
            self.save_checkpoint()
