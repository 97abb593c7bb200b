"""Choose the number of torch's threads on a CPU that other programs use too."""

import contextlib
import glob
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch

FIXED_BY = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
SECONDS = 5.0  # between two readings of CPU usage
logger = logging.getLogger(__name__)


class CpuUse(NamedTuple):
    """Times in seconds, each from an arbitrary origin; only differences are meaningful."""

    time: float
    total: float
    """CPU time of all programs on the cores that this process may use."""
    own: float
    """CPU time of this process and of its descendants."""


def read_cpu_use(proc: Path = Path("/proc")) -> CpuUse | None:
    """Read CPU usage on Linux; None if it cannot be read, as on other systems.

    Args:
        proc: the folder of Linux's process information.
    """
    try:
        ticks = os.sysconf("SC_CLK_TCK")
        names = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        lines = (line.split() for line in (proc / "stat").read_text().splitlines())
        # user, nice, system, idle, iowait, irq, softirq, steal
        counts = [[int(word) for word in words[1:9]] for words in lines if words[0] in names]
        total = sum(sum(count) - count[3] - count[4] for count in counts) / ticks
        own = time.process_time() + sum(os.times()[2:4]) + _started_ticks(proc, "self") / ticks
    except (AttributeError, IndexError, OSError, ValueError):
        return None
    return CpuUse(time.monotonic(), total, own) if counts else None


def _started_ticks(proc: Path, pid: str) -> int:
    """CPU time of a process's descendants, in clock ticks.

    Loader workers may be grandchildren, started by a fork server (Python 3.14's default).
    """
    ticks = 0
    for path in glob.glob(f"{proc}/{pid}/task/*/children"):  # noqa: PTH207
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
            for child in Path(path).read_text().split():
                ticks += _ticks(proc, child) + _started_ticks(proc, child)
    return ticks


def _ticks(proc: Path, pid: str) -> int:
    """CPU time of a process and its reaped children, in clock ticks; 0 if it has just ended."""
    try:
        words = (proc / pid / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(map(int, words[11:15]))  # utime, stime, cutime, cstime


class ThreadCount:
    """Keeps torch from using more threads than the CPU has free cores.

    The threads of an operation wait for the slowest one. If another program takes a thread's core
    for some milliseconds at a time, two threads take longer than one.

    The current number of threads is the maximum. It is never changed on a GPU, with
    `torch.use_deterministic_algorithms` (since results depend on the number of threads), or if
    `OMP_NUM_THREADS` or `MKL_NUM_THREADS` is set.

    Args:
        device: the compute device.
        read: reads CPU usage; see `read_cpu_use`.
        seconds: time from one reading to the next.
    """

    def __init__(
        self,
        device: torch.device,
        read: Callable[[], CpuUse | None] = read_cpu_use,
        seconds: float = SECONDS,
    ) -> None:
        self.max_threads = torch.get_num_threads()
        self._read, self._seconds = read, seconds
        is_fixed = (
            self.max_threads == 1
            or device.type != "cpu"
            or torch.are_deterministic_algorithms_enabled()
            or any(name in os.environ for name in FIXED_BY)
        )
        self._before = None if is_fixed else read()

    def adapt(self) -> None:
        """Match the number of threads to the free cores if it is time; call between batches."""
        before = self._before
        if before is None or time.monotonic() < before.time + self._seconds:
            return
        self._before = now = self._read()
        if now is None:
            return
        cores = len(os.sched_getaffinity(0))
        others = (now.total - before.total - now.own + before.own) / (now.time - before.time)
        threads = self._choose(cores - others)
        if threads != torch.get_num_threads():
            torch.set_num_threads(threads)
            logger.info(
                "Other programs use %.1f of %d CPU cores: computing with %d of %d threads; "
                "OMP_NUM_THREADS fixes the number",
                *(max(others, 0), cores, threads, self.max_threads),
            )

    @contextlib.contextmanager
    def restored(self) -> Iterator[None]:
        """Restore torch's number of threads after the block."""
        before = torch.get_num_threads()
        try:
            yield
        finally:
            if torch.get_num_threads() != before:
                torch.set_num_threads(before)

    def _choose(self, free: float) -> int:
        """The number of threads for a number of free cores, with hysteresis."""
        threads = torch.get_num_threads()
        if free >= threads + 0.75:
            threads = int(free + 0.25)
        elif free < threads - 0.5:
            threads = int(free + 0.5)
        return min(max(threads, 1), self.max_threads)
