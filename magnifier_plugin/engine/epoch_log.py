"""Times, losses and learning rate of one epoch, in torchreid's format."""

import datetime
import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torchreid
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

AverageMeter = torchreid.utils.AverageMeter
logger = logging.getLogger(__name__)

Readings = dict[str, tuple[float, float]]


class LossMeter:
    """Last values and running means of named losses, kept on their device until they are read.

    torchreid's `MetricMeter` reads every loss at every step, which makes a GPU wait.
    """

    def __init__(self) -> None:
        self._last: dict[str, Tensor] = {}
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def update(self, losses: dict[str, Tensor]) -> None:
        """Args: losses: scalars, the same names each time."""
        self._last = {name: loss.detach() for name, loss in losses.items()}
        for name, loss in self._last.items():
            self._sums[name] = self._sums[name] + loss if name in self._sums else loss
        self._count += 1

    def read(self) -> Readings:
        """Last value and mean of each; waits for the device."""
        if not self._count:
            return {}
        values = torch.stack([*self._last.values(), *self._sums.values()]).tolist()
        last, sums = values[: len(self._last)], values[len(self._last) :]
        return {
            name: (value, total / self._count)
            for name, value, total in zip(self._last, last, sums, strict=True)
        }


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
    """A line as torchreid's engine prints it: last value and, in brackets, the epoch's mean.

    Args:
        epoch, batch: counted from 1.
        seconds: of a batch. data_seconds: of them, waiting for the loader.
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
        loader: of the batches.
        epoch, max_epoch: counted from 1.
        print_freq: batches between two lines.
        writer: of TensorBoard, or None.
    Raises:
        ValueError: there is no batch.
    """

    def __init__(
        self,
        loader: DataLoader[Any],
        *,
        epoch: int,
        max_epoch: int,
        print_freq: int,
        writer: SummaryWriter | None,
    ) -> None:
        self.num_batches = len(loader)
        if not self.num_batches:
            raise ValueError("the training set is smaller than one batch; lower train.batch_size")
        self.epoch, self.max_epoch = epoch, max_epoch
        self._loader, self._print_freq, self._writer = loader, print_freq, writer
        self._losses, self._seconds, self._waiting = LossMeter(), AverageMeter(), AverageMeter()
        self._batch = 0
        self._bar: tqdm | None = None

    def __iter__(self) -> Iterator[Any]:
        title = f"epoch {self.epoch}/{self.max_epoch}"
        self._bar = tqdm(self._loader, title, disable=None, leave=False, dynamic_ncols=True)
        end = time.perf_counter()
        for batch in self._bar:
            self._waiting.update(time.perf_counter() - end)
            self._batch += 1
            yield batch
            self._seconds.update(time.perf_counter() - end)
            end = time.perf_counter()

    def update(self, losses: dict[str, Tensor], lr: float) -> None:
        """Take a step's losses; report after every print_freq batches and the last.

        Args:
            losses: scalars by name, "loss" their total; none of a batch that was skipped.
            lr: learning rate of the step.
        """
        if losses:
            self._losses.update(losses)
        if self._batch % self._print_freq and self._batch != self.num_batches:
            return
        self._report(self._losses.read(), lr)

    def means(self) -> dict[str, float]:
        """The epoch's mean of each loss."""
        return {name: mean for name, (_, mean) in self._losses.read().items()}

    def _report(self, readings: Readings, lr: float) -> None:
        logger.info(
            log_line(
                *(self.epoch, self.max_epoch, self._batch, self.num_batches),
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
        step = (self.epoch - 1) * self.num_batches + self._batch - 1
        scalars = {"time": self._seconds.avg, "data": self._waiting.avg, "lr": lr}
        scalars |= {name: mean for name, (_, mean) in readings.items()}
        for name, value in scalars.items():
            self._writer.add_scalar(f"Train/{name}", value, step)


def write_test(writer: SummaryWriter, results: Mapping[str, Mapping[str, Any]], epoch: int) -> None:
    """Write rank-1 and mAP of each target to TensorBoard.

    Args:
        writer: of TensorBoard.
        results: target → numbers.
        epoch: that the model was trained for, counted from 0.
    """
    for name, result in results.items():
        writer.add_scalar(f"Test/{name}/rank1", result["rank-1"], epoch)
        writer.add_scalar(f"Test/{name}/mAP", result["mAP"], epoch)
