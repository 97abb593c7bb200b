"""Resized images and maps of a data set, kept in memory that its loader's workers share."""

import mmap
import multiprocessing
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

GIB = 2**30


class SampleCache:
    """Fixed places for the first samples of a data set, each filled by the process that needs it.

    In an epoch every image is as likely as any other, so no choice of images is better than the
    first ones, and nothing is replaced. Workers that are forked, as on Linux, share one piece of
    memory: what one of them decodes serves all. It is no file of /dev/shm, whose size containers
    limit. A spawned worker receives a pickled copy, which is empty and has its share of the bound.
    The machine gives the memory as places are filled.

    Args:
        shapes: of the arrays of a sample, uint8 each.
        samples: how many there are.
        bound: bytes, the most that all processes together take.
        workers: processes that read samples, at least 1.
    Raises:
        ValueError: the machine refuses that much memory.
    """

    def __init__(
        self, shapes: Sequence[tuple[int, ...]], samples: int, bound: int, workers: int = 1
    ) -> None:
        self._spawned = shapes, samples, bound // workers
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes]).tolist()
        size = ends[-1] + 1  # the last byte says whether the place is filled
        self._parts = list(zip([0, *ends[:-1]], ends, shapes, strict=True))
        self.places = min(samples, bound // size)
        """How many samples have a place."""
        self.nbytes = self.places * size
        """Bytes that they take once all are filled."""
        self._places = _shared_memory(self.nbytes).reshape(self.places, size)
        # Keeps a sample and the byte that says that it is there in order, on any processor.
        self._order: AbstractContextManager[Any] = multiprocessing.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return SampleCache, self._spawned

    def read(self, sample: int) -> list[np.ndarray] | None:
        """Copies of a sample's arrays; None if they are not there.

        Args:
            sample: its place in the data set, from 0.
        """
        if not 0 <= sample < self.places:
            return None
        place = self._places[sample]
        with self._order:
            if not place[-1]:
                return None
        return [place[start:end].reshape(shape).copy() for start, end, shape in self._parts]

    def write(self, sample: int, arrays: Sequence[np.ndarray | None]) -> None:
        """Keep a sample if it has a place; two processes may do so at once, with the same arrays.

        Args:
            sample: its place in the data set, from 0.
            arrays: uint8, of the shapes; None for a map that the sample does not have.
        """
        if not 0 <= sample < self.places:
            return
        place = self._places[sample]
        for (start, end, shape), array in zip(self._parts, arrays, strict=True):
            if array is not None:
                place[start:end].reshape(shape)[...] = array
        with self._order:
            place[-1] = 1


def _shared_memory(size: int) -> np.ndarray:
    """uint8 [size], zeros, that forked processes share."""
    if not size:
        return np.empty(0, np.uint8)
    try:
        return np.frombuffer(mmap.mmap(-1, size), np.uint8)
    except OSError as error:
        raise ValueError(
            f"data.cache_gb: the machine has no {size / GIB:.1f} GiB of memory for images "
            f"({error.strerror}); lower it, 0 keeps none"
        ) from error
