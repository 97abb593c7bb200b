"""Many small tasks on all cores, in order, with memory that does not grow with their number."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from signal import SIG_IGN, SIGINT, signal
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

# Tasks a worker gets at once, enough that handing them over costs nothing; batches that wait for
# each worker, so that none is idle and few lie in memory.
_BATCH = 32
_WAITING = 4


def cores() -> int:
    """Cores this process may use, where the system tells; a container often gives only some."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def on_all_cores(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int | None = None
) -> Iterator[Result]:
    """`map(function, tasks)` in several processes; in this one, where there is little to do.

    Args:
        function: a module's function; what it raises is raised here and ends the work.
        tasks: what can be pickled.
        workers: processes; None: one for each core.
    Raises:
        ValueError: workers is below 1.
        RuntimeError: a worker process was killed.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers: expected at least 1, got {workers}")
    batches = [tasks[start : start + _BATCH] for start in range(0, len(tasks), _BATCH)]
    workers = min(workers or cores(), len(batches))
    if workers < 2:
        yield from map(function, tasks)
        return
    # Ctrl-C reaches every process of a terminal; the parent alone answers it and ends the others.
    executor = ProcessPoolExecutor(workers, initializer=signal, initargs=(SIGINT, SIG_IGN))
    waiting = deque()
    try:
        for batch in batches:
            waiting.append(executor.submit(_do_batch, function, batch))
            if len(waiting) > workers * _WAITING:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    except BrokenProcessPool as error:
        raise RuntimeError(
            "a worker process was killed, perhaps for want of memory; what is finished is kept, "
            "start it again with fewer workers"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def _do_batch(function: Callable[[Task], Result], batch: Sequence[Task]) -> list[Result]:
    return [function(task) for task in batch]
