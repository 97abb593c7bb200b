"""TensorBoard events of a run."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)


class EventWriter(SummaryWriter):
    """A SummaryWriter that lets training go on if the disk is full; the log has all numbers."""

    failed = False

    def add_scalar(self, *arguments: Any, **options: Any) -> None:
        """As SummaryWriter's; does nothing after a failure."""
        if self.failed:
            return
        try:
            super().add_scalar(*arguments, **options)
        except OSError as error:
            self._fail(error)

    def close(self) -> None:
        """As SummaryWriter's."""
        try:
            super().close()
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        self.failed = True
        logger.error("%s: no more events for TensorBoard, %s", self.log_dir, error)


def open_writer(writer: SummaryWriter | None, folder: str | Path, step: int) -> SummaryWriter:
    """The writer of a run; an earlier writer is reused if it has the same folder.

    Args:
        writer: the writer of an earlier run of the same engine, or None.
        folder: the folder of the events.
        step: the next step; TensorBoard hides later events of a killed run.
    """
    if writer is not None and writer.log_dir == str(folder):
        return writer
    return EventWriter(log_dir=str(folder), purge_step=step or None)


def write_test(writer: SummaryWriter, results: Mapping[str, Mapping[str, Any]], epoch: int) -> None:
    """Write rank-1 and mAP of each target to TensorBoard.

    Args:
        writer: the TensorBoard writer.
        results: target → metrics.
        epoch: the last trained epoch, counted from 0.
    """
    for name, result in results.items():
        writer.add_scalar(f"Test/{name}/rank1", result["rank-1"], epoch)
        writer.add_scalar(f"Test/{name}/mAP", result["mAP"], epoch)
