"""Run the rows of a table: several processes at a time, finished rows kept, killed ones resumed."""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magnifier_plugin.engine.results_file import RESULTS
from magnifier_plugin.resuming import AUTO
from magnifier_plugin.text_files import read_json
from reproduction.interrupts import terminated_as_interrupted, uninterrupted
from reproduction.plan import Run
from reproduction.processes import (
    Training,
    end_all,
    environment,
    last_epoch,
    read_tail,
    training_command,
)
from reproduction.progress import FAILED, FINISHED, KEPT, RUNNING, SKIPPED, Progress
from reproduction.record import Record, is_finished

_POLL = 0.2  # seconds between two checks of the processes
_DRAW = 1.0  # seconds between two updates of the live table
_END_LINES = 12  # lines of a failed run's log that are shown
NO_SPACE = "No space left on device"
_FEW_BYTES = 2**24  # a disk with less free space counts as full


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What runs may use."""

    config_file: Path
    jobs: int
    """Runs at a time."""
    gpus: Sequence[str] = ()
    """As CUDA_VISIBLE_DEVICES names them; each run gets the GPU with the fewest runs."""
    lock: int | None = None
    """As `processes.lock_folder` returns it."""


class Runner:
    """Starts runs until each has finished or failed, or cannot be started.

    Args:
        records: all runs, in the order to start them, with their records.
        resources: what runs may use.
        progress: shows the state of each run.
        code: returns the digest of the current code; once it differs from the records', no further
            run is started.
    """

    def __init__(
        self,
        records: Mapping[Run, Record],
        resources: Resources,
        progress: Progress,
        code: Callable[[], str],
    ) -> None:
        self._records, self._resources, self._progress = records, resources, progress
        self._code = code
        self._running: dict[Run, tuple[Training, str | None]] = {}
        self._stopped = ""  # why no further run is started
        self.failures: dict[Run, str] = {}
        """Why runs failed or were not started."""

    def run(self) -> None:
        """Execute all runs; if interrupted, as by Ctrl-C, end their processes.

        Raises:
            OSError: a file of this script cannot be written, for example on a full disk.
        """
        waiting = self._unfinished()
        drawn = 0.0
        try:
            with terminated_as_interrupted():
                while waiting or self._running:
                    waiting = self._start(waiting)
                    self._check_processes()
                    if time.monotonic() - drawn >= _DRAW:
                        drawn = time.monotonic()
                        self._draw()
                    if self._running:
                        time.sleep(_POLL)
                self._draw()
        finally:
            with uninterrupted():
                end_all([training for training, _ in self._running.values()])
                for run in [*self._running]:
                    self._close(run, finished=False)

    def _unfinished(self) -> list[Run]:
        waiting = []
        for run, record in self._records.items():
            if is_finished(run, record):
                self._progress.set(run, KEPT, headline(run.folder))
            else:
                waiting.append(run)
        return waiting

    def _start(self, waiting: Sequence[Run]) -> list[Run]:
        """Start the runs that can start now; return those that still wait."""
        left: list[Run] = []
        if not waiting or len(self._running) >= self._resources.jobs:
            return list(waiting)
        for run in waiting:
            if obstacle := self._stopped or self._missing_weights(run):
                self._fail(run, SKIPPED, obstacle)
            elif len(self._running) >= self._resources.jobs or self._waits(run):
                left.append(run)
            elif self._code() != self._records[run].code:
                self._stopped = (
                    "the package's code has changed since this call began; run the command again"
                )
                self._fail(run, SKIPPED, self._stopped)
            else:
                self._launch(run)
        return left

    def _missing_weights(self, run: Run) -> str:
        """Why a run cannot get the weights it needs; "" if they exist or may still be trained."""
        for other in run.needed:
            if other in self.failures:
                return f"{other.name}, whose weights it needs, failed"
            weights = other.last_checkpoint
            if is_finished(other, self._records[other]) and not weights.is_file():
                return f"{weights} is missing; delete {other.folder}, so that it is trained again"
        return ""

    def _waits(self, run: Run) -> bool:
        """Whether a run must wait for another one.

        If the run that trains a shared first stage has failed, this run trains that stage itself.
        """
        others, shared = run.needed, run.shares
        if shared and shared not in self.failures and not shared.first_stage.is_file():
            others.append(shared)
        return not all(is_finished(other, self._records[other]) for other in others)

    def _launch(self, run: Run) -> None:
        given, gpu, record = self._resources, self._free_gpu(), self._records[run]
        record.write(run.folder)  # before the process writes: a folder needs a record to be reused
        command = training_command(given.config_file, run)
        training = Training(command, run.folder, environment(given.jobs, gpu), given.lock)
        self._running[run] = training, gpu
        record.processes = [training.number]
        where = f" on GPU {gpu}" if gpu is not None else ""
        resumed = ""
        if command[-1] == AUTO:
            resumed = " from its checkpoint"
        elif run.shares and command[-1] == str(run.shares.first_stage):
            resumed = f" from stage 1 of {run.shares.name}"
            record.first_stage_of = run.shares.row.title
        record.write(run.folder)
        self._progress.set(run, RUNNING, f"{resumed}{where}".strip())

    def _free_gpu(self) -> str | None:
        used = [gpu for _, gpu in self._running.values()]
        return min(self._resources.gpus, key=used.count, default=None)

    def _check_processes(self) -> None:
        """Record the runs whose process has ended."""
        for run, (training, _) in list(self._running.items()):
            status = training.status()
            if status is None:
                continue
            self._close(run, finished=status == 0)
            if status == 0:
                self._progress.set(run, FINISHED, headline(run.folder))
                continue
            reason = f"exit status {status}; the end of {training.log}:\n" + _end(training.log)
            if _is_full(run.folder, read_tail(training.log)):
                self._stopped = "the disk is full"
                reason = f"{self._stopped}; {reason}"
            self._fail(run, FAILED, reason)

    def _close(self, run: Run, *, finished: bool) -> None:
        training, _ = self._running.pop(run)
        record = self._records[run]
        record.finished, record.processes = finished, []
        record.seconds = round(record.seconds + training.seconds, 1)
        record.write(run.folder)

    def _fail(self, run: Run, state: str, reason: str) -> None:
        self.failures[run] = f"{state}: {reason}"
        self._progress.set(run, state, reason.partition("\n")[0])

    def _draw(self) -> None:
        for run, (training, _) in self._running.items():
            if epoch := last_epoch(training.log):
                self._progress.detail(run, f"epoch {epoch}")
        self._progress.draw()


def headline(folder: Path) -> str:
    """mAP and rank-1 of a finished row on its first target, in %."""
    result = first_result(folder)
    return f"mAP {result['mAP']:.1%}, rank-1 {result['rank-1']:.1%}"


def first_result(folder: Path) -> dict[str, Any]:
    """The numbers of a finished row on its first target."""
    content = read_json(folder / RESULTS)
    return next(iter(content["results"].values()))


def _end(log: Path) -> str:
    lines = [line for line in read_tail(log).splitlines() if line.strip()]
    return "\n".join(f"  {line}" for line in lines[-_END_LINES:])


def _is_full(folder: Path, log: str) -> bool:
    return NO_SPACE in log or shutil.disk_usage(folder).free < _FEW_BYTES
