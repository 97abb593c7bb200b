"""The log of one epoch in torchreid's format: times, losses and learning rate."""

import datetime
import logging
import time
from collections.abc import Iterable, Iterator
from typing import Any

import torchreid
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from magnifier_plugin.engine.position import Position, Readings

AverageMeter = torchreid.utils.AverageMeter
logger = logging.getLogger(__name__)


def log_line(
    epoch: int,
    max_epoch: int,
    batch: int,
    num_batches: int,
    *,
    seconds: tuple[float, float],
    data_seconds: tuple[float, float],
    losses: Readings,
    lr: float,
) -> str:
    """A log line in the format of torchreid's engine: last value and, in brackets, epoch mean.

    Args:
        epoch, batch: numbers, counted from 1.
        max_epoch, num_batches: number of epochs, and of batches per epoch.
        seconds: time per batch: (last, mean).
        data_seconds: time spent waiting for the loader: (last, mean).
        losses: name → (last, mean).
        lr: learning rate.
    """
    left = num_batches - batch + (max_epoch - epoch) * num_batches
    eta = datetime.timedelta(seconds=int(seconds[1] * left))
    named = "\t".join(f"{name} {last:.4f} ({mean:.4f})" for name, (last, mean) in losses.items())
    return (
        f"epoch: [{epoch}/{max_epoch}][{batch}/{num_batches}]\t"
        f"time {seconds[0]:.3f} ({seconds[1]:.3f})\t"
        f"data {data_seconds[0]:.3f} ({data_seconds[1]:.3f})\t"
        f"eta {eta}\t{named}\tlr {lr:.6f}"
    )


class EpochLog:
    """Iterates over an epoch's batches and reports them as torchreid's engine does.

    Args:
        batches: the batches left to train.
        num_batches: batches of the whole epoch; torchreid's identity sampler may yield fewer.
        epoch: the epoch, counted from 1.
        max_epoch: number of epochs.
        print_freq: batches between log lines.
        writer: the TensorBoard writer, or None.
        position: progress within the epoch; updated with each batch.
    Raises:
        ValueError: the epoch has no batches.
    """

    def __init__(
        self,
        batches: Iterable[Any],
        num_batches: int,
        *,
        epoch: int,
        max_epoch: int,
        print_freq: int,
        writer: SummaryWriter | None,
        position: Position,
    ) -> None:
        self.num_batches, self.position = num_batches, position
        if not self.num_batches:
            raise ValueError("the training set is smaller than one batch; lower train.batch_size")
        self.epoch, self.max_epoch = epoch, max_epoch
        self._batches, self._print_freq, self._writer = batches, print_freq, writer
        self._seconds, self._waiting = AverageMeter(), AverageMeter()
        self._bar: tqdm | None = None
        self._reported = position.batch

    def __iter__(self) -> Iterator[Any]:
        title = f"epoch {self.epoch}/{self.max_epoch}"
        self._bar = tqdm(
            self._batches,
            title,
            total=self.num_batches,
            initial=self.position.batch,
            disable=None,
            leave=False,
            dynamic_ncols=True,
        )
        end = time.perf_counter()
        for batch in self._bar:
            self._waiting.update(time.perf_counter() - end)
            yield batch
            self._seconds.update(time.perf_counter() - end)
            end = time.perf_counter()
        self._bar = None

    def update(self, losses: dict[str, Tensor], lr: float) -> None:
        """Record a batch's losses; log after every print_freq batches and after the last.

        Args:
            losses: scalars by name, "loss" being the total; empty for a skipped batch.
            lr: learning rate of the step.
        """
        self.position.update(losses)
        if self.position.batch % self._print_freq and self.position.batch != self.num_batches:
            return
        self._report(self.position.losses.read(), lr)

    def finish(self, lr: float) -> None:
        """Log the last batch of an epoch if it came earlier than `num_batches` says."""
        if self.position.batch != self._reported:
            self._report(self.position.losses.read(), lr)

    @property
    def is_complete(self) -> bool:
        """Whether `num_batches` are trained."""
        return self.position.batch >= self.num_batches

    def means(self) -> dict[str, float]:
        """Mean of each loss over the epoch."""
        return {name: mean for name, (_, mean) in self.position.losses.read().items()}

    def _report(self, readings: Readings, lr: float) -> None:
        self._reported = self.position.batch
        logger.info(
            log_line(
                *(self.epoch, self.max_epoch, self.position.batch, self.num_batches),
                seconds=(self._seconds.val, self._seconds.avg),
                data_seconds=(self._waiting.val, self._waiting.avg),
                losses=readings,
                lr=lr,
            )
        )
        if self._bar is not None and readings:
            self._bar.set_postfix(loss=f"{readings['loss'][0]:.3f}")
        if self._writer is None:
            return
        step = (self.epoch - 1) * self.num_batches + self.position.batch - 1
        scalars = {"time": self._seconds.avg, "data": self._waiting.avg, "lr": lr}
        scalars |= {name: mean for name, (_, mean) in readings.items()}
        for name, value in scalars.items():
            self._writer.add_scalar(f"Train/{name}", value, step)
