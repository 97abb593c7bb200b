"""Time and memory of a function, in a process of its own, and what the machine is."""

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
    """What a function returned, and the most memory its process held, in GiB."""

    result: Any
    peak: float


class Stopwatch:
    """Seconds of named steps, in their order; waits for the device."""

    def __init__(self, device: str):
        self.device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measures what happens within `with`."""
        self._wait()
        start = time.perf_counter()
        yield
        self._wait()
        self.seconds[name] = time.perf_counter() - start

    def _wait(self) -> None:
        if torch.device(self.device).type == "cuda":
            torch.cuda.synchronize()


def in_own_process(function: Callable, *arguments: Any) -> Run:
    """Calls a module's function in a fresh process, so that its peak of memory is its own.

    Raises:
        RuntimeError: the process was killed or raised; what it raised is on the screen.
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
            f"{function.__name__}: its process ended with {process.exitcode}"
            + (", perhaps for want of memory" if process.exitcode == -9 else "")
        ) from None
    finally:
        process.join()


def _call(sender: Connection, function: Callable, arguments: tuple) -> None:
    result = function(*arguments)
    sender.send(Run(result, _peak() / GIB))


def _peak() -> int:
    """The most memory that this process held, in bytes.

    On Linux from /proc: what getrusage says there is at least what the parent held when this
    process started.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def machine(device: str) -> str:
    """What computed, in a few words, for the line below a table."""
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
