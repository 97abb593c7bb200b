"""Time and memory of a function, in a process of its own; a description of the machine."""

import contextlib
import multiprocessing
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch

from magnifier_plugin.workers import cores

GIB = 2**30


class Run(NamedTuple):
    """Result and peak memory of a function that ran in its own process."""

    result: Any
    peak: float
    """GiB of the whole process."""


class Stopwatch:
    """Wall time in seconds of named steps, in their order; waits for the device."""

    def __init__(self, device: str):
        self.device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure the block of a `with` statement."""
        self._wait()
        start = time.perf_counter()
        yield
        self._wait()
        self.seconds[name] = time.perf_counter() - start

    def _wait(self) -> None:
        if torch.device(self.device).type == "cuda":
            torch.cuda.synchronize(self.device)


def in_own_process(function: Callable, *arguments: Any) -> Run:
    """Call a module-level function in a new process, so that its peak memory can be measured.

    Raises:
        RuntimeError: the process was killed or raised an error, whose traceback it has printed.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        process.join()
        raise RuntimeError(
            f"{function.__name__}: its process ended with exit code {process.exitcode}"
            + (", perhaps because the memory was full" if process.exitcode == -9 else "")
        ) from None
    finally:
        process.join()


def _call(sender: Connection, function: Callable, arguments: tuple) -> None:
    result = function(*arguments)
    sender.send(Run(result, _peak() / GIB))


def _peak() -> int:
    """Peak memory of this process in bytes.

    On Linux it is read from /proc, because getrusage returns at least the memory that the parent
    had when it started this process.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def machine(device: str) -> str:
    """A short description of the hardware and software, for the line below a table."""
    if torch.device(device).type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        threads = torch.get_num_threads()
        plural = "s" if threads > 1 else ""
        name = f"{threads} thread{plural} on {cores()} cores of {_processor()}"
    return f"{name}, Python {platform.python_version()}, torch {torch.__version__}"


def _processor() -> str:
    if hasattr(torch.cpu, "get_capabilities"):
        return torch.cpu.get_capabilities().get("cpu_name", platform.machine())
    return platform.processor() or platform.machine()


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, its first column aligned left."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
