"""The states of the random generators that training draws from."""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def random_states() -> dict[str, Any]:
    """The states of Python's, numpy's and torch's global generators, as plain types."""
    version, numbers, gauss = random.getstate()
    state: Any = np.random.get_state()
    name, keys, position, has_gauss, cached = state
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [name, keys.tolist(), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_states(
    states: Mapping[str, Any] | Sequence[Mapping[str, Any]], rank: int = 0
) -> None:
    """Restore the result of `random_states`; GPU states only if the number of GPUs is the same.

    Args:
        states: the states of one process, or a checkpoint's list with those of each process.
        rank: number of this process; if the list is too short, the first process's are used.
    """
    if isinstance(states, Sequence):
        states = states[rank if rank < len(states) else 0]
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])


@contextmanager
def unchanged_random_states() -> Iterator[None]:
    """A block after which all generators continue as if it had not run."""
    states = random_states()
    try:
        yield
    finally:
        restore_random_states(states)
