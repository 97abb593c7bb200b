"""The position of a training run within the current epoch."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from magnifier_plugin.data.samplers import order_of_epoch
from magnifier_plugin.engine.random_states import random_states, restore_random_states
from magnifier_plugin.wording import many

logger = logging.getLogger(__name__)

Readings = dict[str, tuple[float, float]]


class LossMeter:
    """Last values and running means of named losses, kept on their device until they are read.

    torchreid's `MetricMeter` reads every loss at every step, which synchronises with the GPU.
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

    def state(self) -> dict[str, Any]:
        """The state that a checkpoint needs to continue the means."""
        return {"count": self._count, "sums": self._sums}

    def load_state(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Restore the result of `state`, with sums on the device of the losses.

        Last values are not saved: until the next batch that is trained, the means replace them.
        """
        self._count = state["count"]
        self._sums = {name: value.to(device) for name, value in state["sums"].items()}
        self._last = {name: value / self._count for name, value in self._sums.items()}

    def read(self) -> Readings:
        """Name → (last value, mean); synchronises with the device."""
        if not self._count:
            return {}
        values = torch.stack([*self._last.values(), *self._sums.values()]).tolist()
        last, sums = values[: len(self._last)], values[len(self._last) :]
        return {
            name: (value, total / self._count)
            for name, value, total in zip(self._last, last, sums, strict=True)
        }


class Position:
    """The number of processed batches of the current epoch, and their losses."""

    def __init__(self) -> None:
        self.batch = 0
        self.losses = LossMeter()
        self._order = ""
        self._random_at_start: Mapping[str, Any] = {}

    def update(self, losses: dict[str, Tensor]) -> None:
        """Count a processed batch; losses: scalars by name, empty if it was skipped."""
        if losses:
            self.losses.update(losses)
        self.batch += 1

    def content(self) -> dict[str, Any]:
        """The state that a checkpoint needs to continue within the epoch; plain types, tensors."""
        inside = {
            "losses": self.losses.state(),
            "order": self._order,
            "random_at_start": self._random_at_start,
        }
        return {"batch": self.batch, "inside": inside if self.batch else None}

    @classmethod
    def load(cls, content: Mapping[str, Any], device: torch.device) -> "Position":
        """The position saved in a checkpoint; the start of an epoch if none was saved.

        Args:
            content: the checkpoint's content.
            device: the device of the losses.
        """
        position = cls()
        inside = content.get("inside")
        if inside is not None:
            position.batch, position._order = content["batch"], inside["order"]
            position.losses.load_state(inside["losses"], device)
            position._random_at_start = inside["random_at_start"]
        return position

    def batches(self, datamanager: Any, epoch: int) -> Iterable[Any]:
        """The batches of an epoch that are left to train.

        A data manager with `set_epoch` can start within an epoch. Others, such as torchreid's, draw
        from the global generators: the epoch is then read from its start, and the batches that were
        already trained are skipped.

        Args:
            datamanager: the run's data manager.
            epoch: the epoch, counted from 0.
        """
        loader: DataLoader[Any] = datamanager.train_loader
        is_seeded = hasattr(datamanager, "set_epoch")
        if is_seeded:
            datamanager.set_epoch(epoch)
        order = order_of_epoch(loader)
        if self.batch and order != self._order:
            logger.warning(
                "Epoch %d was trained for %s with other images or in another order (train."
                "seed, train.batch_size or the data have changed); it starts again",
                *(epoch + 1, many(self.batch, "batch")),
            )
            self.batch, self.losses = 0, LossMeter()
        self._order = order
        if not self.batch:
            self._random_at_start = random_states()
            return loader
        logger.info("Epoch %d continues after batch %d of %d", epoch + 1, self.batch, len(loader))
        if is_seeded:
            datamanager.set_epoch(epoch, first_batch=self.batch)
            return loader
        return self._read_past(loader)

    def _read_past(self, loader: DataLoader[Any]) -> Iterator[Any]:
        """The batches after the trained ones, from a loader that always starts with the first."""
        here = random_states()
        restore_random_states(self._random_at_start)
        batches = iter(loader)
        for _ in range(self.batch):
            next(batches)
        restore_random_states(here)
        return batches
