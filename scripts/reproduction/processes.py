"""The process of one training: its command, environment, log and end."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from magnifier_plugin.config import ConfigError
from magnifier_plugin.engine.rotation import NUMBERED
from magnifier_plugin.resuming import AUTO
from magnifier_plugin.workers import cores
from reproduction.code import MAIN
from reproduction.plan import Run
from reproduction.record import LOG

try:
    import fcntl
except ImportError:  # Windows: two calls in one folder are not kept apart
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
VISIBLE = "CUDA_VISIBLE_DEVICES"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_TAIL_BYTES = 2**14
_EPOCH = re.compile(r"epoch: \[(\d+)/(\d+)\]")
# Seconds that a process has to end by itself: it removes the file that it is writing.
_PATIENCE = 10.0


class Training:
    """A running process in a session of its own, so that Ctrl-C reaches it through this script.

    Args:
        command: of the run, see `training_command`.
        folder: of the row; what the process prints is appended to its `output.log`.
        environment: of the process.
        lock: a file that stays locked while the process lives, see `hold`; None for none.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        environment: dict[str, str],
        lock: int | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / LOG
        self.started = time.monotonic()
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                pass_fds=() if lock is None else (lock,),
            )
        self.number = self._process.pid

    @property
    def seconds(self) -> float:
        """Since it started."""
        return time.monotonic() - self.started

    def status(self) -> int | None:
        """The exit status; None while it works."""
        return self._process.poll()

    def signal(self, number: int) -> None:
        """Sends a signal to the process and its workers."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.number, number)

    def wait(self, seconds: float) -> bool:
        """Whether it ended within so many seconds."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True


def end_all(trainings: Sequence[Training], patience: float = _PATIENCE) -> None:
    """Ends processes: asks them first, so that none leaves half a file, then kills them."""
    for training in trainings:
        training.signal(signal.SIGINT)
    deadline = time.monotonic() + patience
    for training in trainings:
        training.wait(max(0.0, deadline - time.monotonic()))
        training.signal(signal.SIGKILL)  # workers that outlived it, too
        training.wait(patience)


def training_command(config_file: Path, run: Run) -> list[str]:
    """What trains a run: scripts/main.py, from the last saved checkpoint in its folder, if any.

    Without one it continues from the first stage that it shares with another run, if any.
    """
    command = [sys.executable, str(MAIN), "--config-file", str(config_file), *run.pairs]
    if not run.needs and any((run.folder / "model").glob(f"{NUMBERED}*")):
        return [*command, "model.resume", AUTO]
    if run.shares and run.shares.first_stage.is_file():
        return [*command, "model.resume", str(run.shares.first_stage)]
    return command


def environment(jobs: int, gpu: str | None) -> dict[str, str]:
    """The environment of one of so many processes: its share of the threads, and its GPU."""
    share = max(1, cores() // jobs)
    threads = {
        name: str(
            min(share, int(given)) if (given := os.environ.get(name, "")).isdecimal() else share
        )
        for name in THREADS
    }
    return {**os.environ, **threads, **({} if gpu is None else {VISIBLE: gpu})}


def visible_gpus(
    numbers: Sequence[int], count: Callable[[], int] = torch.cuda.device_count
) -> list[str]:
    """The GPUs of these numbers, as CUDA_VISIBLE_DEVICES names them.

    Args:
        numbers: from 0, among those that this process sees.
        count: how many it sees.
    Raises:
        ConfigError: a GPU is not there.
    """
    there = count() if numbers else 0
    missing = [number for number in numbers if number >= there]
    if missing:
        found = f"0..{there - 1}" if there else "none; leave --gpus out to train on the CPU"
        raise ConfigError(f"--gpus {missing[0]}: no such GPU, found {found}")
    named = [name for name in os.environ.get(VISIBLE, "").split(",") if name]
    return [named[number] if named else str(number) for number in numbers]


def hold(out: Path) -> int | None:
    """Locks a folder for this process and the trainings that inherit the file; None if it cannot.

    Raises:
        ConfigError: another process holds it, also a training that outlived its script.
    """
    if fcntl is None:
        return None
    out.mkdir(parents=True, exist_ok=True)
    handle = os.open(out / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise ConfigError(
            f"{out}: another call of this script, or a training that it left, works there "
            f'("processes" in the rows\' row.json); wait for it or end it'
        ) from None
    except OSError:  # a network file system that locks no files
        os.close(handle)
        return None
    return handle


def read_tail(log: Path) -> str:
    """The end of a log."""
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        return file.read().decode("utf-8", errors="replace")


def last_epoch(log: Path) -> str:
    """Where a training is, such as "3/30"; "" before its first epoch."""
    found = _EPOCH.findall(read_tail(log))
    return "/".join(found[-1]) if found else ""
