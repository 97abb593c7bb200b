"""The process of one run: its command, environment, log and end."""

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
from magnifier_plugin.files import make_folder
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
# Seconds for a process to end by itself, so that it can remove a file that it is writing.
_PATIENCE = 10.0


class Training:
    """A running process in its own session, so that Ctrl-C reaches it only through this script.

    Args:
        command: the command, see `training_command`.
        folder: folder of the run; the process's output is appended to its `output.log`.
        environment: environment variables of the process.
        lock: a file descriptor that stays locked while the process runs (`lock_folder`), or None.
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
        """Seconds since the process started."""
        return time.monotonic() - self.started

    def status(self) -> int | None:
        """The exit status; None while the process runs."""
        return self._process.poll()

    def signal(self, number: int) -> None:
        """Send a signal to the process and its workers."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.number, number)

    def wait(self, seconds: float) -> bool:
        """Wait for the process, at most `seconds`; return whether it has ended."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True


def end_all(processes: Sequence[Training], patience: float = _PATIENCE) -> None:
    """Interrupt processes, so that they remove unfinished files, and kill them after `patience`.

    Args:
        processes: the processes to end.
        patience: seconds that they have to end by themselves.
    """
    for process in processes:
        process.signal(signal.SIGINT)
    deadline = time.monotonic() + patience
    for process in processes:
        process.wait(max(0.0, deadline - time.monotonic()))
        process.signal(signal.SIGKILL)  # also for workers that outlived the process
        process.wait(patience)


def training_command(config_file: Path, run: Run) -> list[str]:
    """The command of a run: scripts/main.py, which resumes from a checkpoint if there is one.

    This is the last checkpoint in the run's own folder, or else that of the first stage of
    `run.shares`.
    """
    command = [sys.executable, str(MAIN), "--config-file", str(config_file), *run.pairs]
    if not run.needs and any((run.folder / "model").glob(f"{NUMBERED}*")):
        return [*command, "model.resume", AUTO]
    if run.shares and run.shares.first_stage.is_file():
        return [*command, "model.resume", str(run.shares.first_stage)]
    return command


def environment(jobs: int, gpu: str | None) -> dict[str, str]:
    """The environment variables of one of `jobs` processes: its share of the threads, and its GPU.

    OMP_NUM_THREADS and MKL_NUM_THREADS, where they are set, limit the share.

    Args:
        jobs: number of processes at a time.
        gpu: a GPU as CUDA_VISIBLE_DEVICES names it; None leaves the choice to the process.
    """
    values = (os.environ.get(name, "") for name in THREADS)
    given = [int(value) for value in values if value.isdecimal() and int(value)]
    # Both variables: torch uses MKL's number, even if OMP_NUM_THREADS alone is set to another.
    threads = dict.fromkeys(THREADS, str(min([max(1, cores() // jobs), *given])))
    return {**os.environ, **threads, **({} if gpu is None else {VISIBLE: gpu})}


def visible_gpus(
    numbers: Sequence[int], count: Callable[[], int] = torch.cuda.device_count
) -> list[str]:
    """The names of GPUs in CUDA_VISIBLE_DEVICES.

    Args:
        numbers: numbers from 0, among the GPUs that this process sees.
        count: returns how many it sees.
    Raises:
        ConfigError: there is no GPU of that number.
    """
    there = count() if numbers else 0
    missing = [number for number in numbers if number >= there]
    if missing:
        found = f"0..{there - 1}" if there else "none; leave out --gpus to train on the CPU"
        raise ConfigError(f"--gpus {missing[0]}: no such GPU, found {found}")
    named = [name for name in os.environ.get(VISIBLE, "").split(",") if name]
    return [named[number] if named else str(number) for number in numbers]


def lock_folder(out: Path) -> int | None:
    """Lock a folder for this process and the runs that inherit the descriptor.

    Returns:
        The descriptor of the lock file; None if the system or the file system has no locks.
    Raises:
        ConfigError: another process has the lock, possibly a run that outlived its script.
    """
    if fcntl is None:
        return None
    make_folder(out)
    handle = os.open(out / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise ConfigError(
            f"{out}: is in use by another call of this script, or by a run that it left behind "
            f'(see "processes" in the rows\' row.json); wait for it or end it'
        ) from None
    except OSError:  # a network file system without locks
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
    """The epoch that a run is in, such as "3/30"; "" before the first."""
    found = _EPOCH.findall(read_tail(log))
    return "/".join(found[-1]) if found else ""
