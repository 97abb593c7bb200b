"""Running means of named losses, and torchreid's log line."""

import datetime

import torch
from torch import Tensor


class LossMeter:
    """Last values and running means of named losses, kept on their device until they are read.

    torchreid's `MetricMeter` asks the device for every loss at every step, and a GPU waits.
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

    def read(self) -> dict[str, tuple[float, float]]:
        """Last value and mean of each loss; the one moment a GPU is waited for."""
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
    losses: dict[str, tuple[float, float]],
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
