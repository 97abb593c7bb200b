"""Run many small tasks on all cores, in order, in memory that does not grow with their number."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

# Tasks sent to a worker at once, enough to make the overhead negligible.
BATCH = 32
# Batches queued per worker, so that no worker is idle and few batches are in memory.
_WAITING = 4


def cores() -> int:
    """Number of cores that this process may use; in a container often not all of the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_workers(workers: int | None) -> None:
    """Raise a ValueError unless workers is None or at least 1."""
    if workers is not None and workers < 1:
        raise ValueError(f"workers: expected at least 1, got {workers}")


def on_all_cores(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    workers: int | None = None,
    batch: int = BATCH,
) -> Iterator[Result]:
    """`map(function, tasks)` in several processes, or in this one if there is only one batch.

    Args:
        function: defined at module level; its exceptions end the work and are raised here.
        tasks: arguments of the function; they can be pickled.
        workers: number of processes; None for one per core.
        batch: tasks sent to a worker at once.
    Raises:
        ValueError: workers is below 1.
        RuntimeError: a worker process was killed.
    """
    check_workers(workers)
    batches = [tasks[start : start + batch] for start in range(0, len(tasks), batch)]
    workers = min(workers or cores(), len(batches))
    if workers < 2:
        yield from map(function, tasks)
        return
    executor = ProcessPoolExecutor(workers, initializer=_prepare_worker)
    waiting: deque[Future[list[Result]]] = deque()
    try:
        for one in batches:
            waiting.append(executor.submit(_do_batch, function, one))
            if len(waiting) > workers * _WAITING:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    except BrokenProcessPool as error:
        raise RuntimeError(
            "a worker process was killed, often by the system because memory ran out; start again "
            "with fewer workers"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def leave_signals_to_parent(worker: int = 0) -> None:
    """Let only the parent end a data loader's worker, so that training can finish its step.

    Terminals send Ctrl-C to all processes, and launchers (torchrun) and schedulers (Slurm) SIGTERM.
    Where the system does not tell who sent a signal, as on macOS, SIGTERM still ends the worker.

    Args:
        worker: number of the worker, which torch passes to `worker_init_fn`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_exit_for_parent, daemon=True).start()


def _exit_for_parent() -> None:
    """Wait for a SIGTERM of the parent, and exit with the status that torch expects of workers."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def _do_batch(function: Callable[[Task], Result], batch: Sequence[Task]) -> list[Result]:
    return [function(task) for task in batch]


def _prepare_worker() -> None:
    """Leave Ctrl-C to the parent process, and exit if the parent is killed.

    A terminal sends Ctrl-C to every process; the parent ends its workers. If the parent is killed,
    a worker would wait for work for ever, and a forked one would keep the parent's file locks.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
