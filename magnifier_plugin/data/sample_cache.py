"""A cache of resized images and maps in memory that a loader's workers share."""

import mmap
import multiprocessing
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

GIB = 2**30


class SampleCache:
    """Fixed slots for the first samples of a data set, each filled by the process that needs it.

    In an epoch all images are equally likely, so caching the first ones is as good as any other
    choice, and nothing is replaced. Forked workers (Linux, up to Python 3.13) share the memory: a
    sample decoded by one of them is available to all. The memory is not a file in /dev/shm, whose
    size containers limit. Any other worker gets a pickled copy, which is empty and has its share of
    the limit. The system allocates the memory when slots are filled.

    Args:
        shapes: shapes of a sample's arrays, all uint8.
        samples: number of samples in the data set.
        max_bytes: the most memory that all processes use together.
        workers: number of processes that read samples, at least 1.
    Raises:
        ValueError: the system refuses that much memory.
    """

    def __init__(
        self, shapes: Sequence[tuple[int, ...]], samples: int, max_bytes: int, workers: int = 1
    ) -> None:
        self._spawned = shapes, samples, max_bytes // workers
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes]).tolist()
        size = ends[-1] + 1  # the last byte says whether the slot is filled
        self._parts = list(zip([0, *ends[:-1]], ends, shapes, strict=True))
        self.slots = min(samples, max_bytes // size)
        """Number of samples that have a slot."""
        self.nbytes = self.slots * size
        """Bytes in use once all slots are filled."""
        self._slots = _shared_memory(self.nbytes).reshape(self.slots, size)
        # A memory barrier: other processes see a sample before the byte that says it is filled.
        self._order: AbstractContextManager[Any] = multiprocessing.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return SampleCache, self._spawned

    def read(self, sample: int) -> list[np.ndarray] | None:
        """Copies of a sample's arrays; None if they are not cached.

        Args:
            sample: index in the data set.
        """
        if not 0 <= sample < self.slots:
            return None
        slot = self._slots[sample]
        with self._order:
            if not slot[-1]:
                return None
        return [slot[start:end].reshape(shape).copy() for start, end, shape in self._parts]

    def write(self, sample: int, arrays: Sequence[np.ndarray | None]) -> None:
        """Cache a sample if it has a slot; two processes may write the same sample at once.

        Args:
            sample: index in the data set.
            arrays: uint8, of the constructor's shapes; None for a map that the sample lacks.
        """
        if not 0 <= sample < self.slots:
            return
        slot = self._slots[sample]
        for (start, end, shape), array in zip(self._parts, arrays, strict=True):
            if array is not None:
                slot[start:end].reshape(shape)[...] = array
        with self._order:
            slot[-1] = 1


def _shared_memory(size: int) -> np.ndarray:
    """uint8 [size], zeros, shared with forked processes."""
    if not size:
        return np.empty(0, np.uint8)
    try:
        return np.frombuffer(mmap.mmap(-1, size), np.uint8)
    except OSError as error:
        raise ValueError(
            f"data.cache_gb: the system refused {size / GIB:.1f} GiB of memory for images "
            f"({error.strerror}); lower it, or set 0 for no cache"
        ) from error
