"""One seed per sample: the same augmentation in any worker, in any run, after resuming."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import torch


class SampleKey(NamedTuple):
    """A sampler's request to a data set: an image, and what determines its augmentation."""

    image: int
    """The image's index in the data set."""
    seed: int
    """The run's seed."""
    epoch: int
    """The epoch, counted from 0."""
    nth: int = 0
    """Number of earlier occurrences in the epoch: an image of an identity with few images occurs
    several times."""


def mixed_seed(*parts: int) -> int:
    """A seed in 0..2^64 - 1 from whole numbers; similar numbers give unrelated seeds."""
    text = repr([int(part) for part in parts])
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


@contextmanager
def torch_seeded(seed: int) -> Iterator[None]:
    """Seed torch's CPU generator inside the block, and restore its state afterwards.

    torchvision's transforms draw from it. `torch.manual_seed` would also reseed every GPU, whose
    state would not be restored, and takes 25 times as long.
    """
    generator = torch.default_generator
    state = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(state)


@contextmanager
def all_seeded(seed: int) -> Iterator[None]:
    """Seed the generators of Python, numpy and torch (CPU) inside the block, and restore their
    states afterwards; torchreid's samplers draw from all three."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        with torch_seeded(seed):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
