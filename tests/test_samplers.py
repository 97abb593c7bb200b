"""Seeded samplers: exact, repeatable, shared by several processes."""

import random
from collections import Counter

import numpy as np
import pytest
import torch
import torchreid

from magnifier_plugin.data.samplers import SeededSampler, build_sampler

RECORDS = [
    (f"{pid}_{n}.jpg", pid, n % 3, pid % 2) for pid in range(8) for n in range(3 + 2 * (pid % 5))
]
SAMPLERS = torchreid.data.sampler.AVAI_SAMPLERS


def sampler(name: str, **options):
    arguments = {"seed": 1, "batch_size": 12, "num_instances": 2, "num_cams": 3, "num_datasets": 2}
    return build_sampler(RECORDS, name, **{**arguments, **options})


def random_states() -> tuple:
    return torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())


def scramble(seed: int) -> tuple:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return random_states()


@pytest.mark.parametrize("name", SAMPLERS)
def test_sampler_is_exact_repeatable_and_leaves_no_trace(name: str) -> None:
    assert len(RECORDS) % 12
    # Some identities have only 3 images: the identity sampler repeats some, with numpy's generator.
    drawn = sampler(name, num_instances=4)
    for epoch in range(5):
        states = scramble(epoch)
        drawn.set_epoch(epoch)
        announced, keys = len(drawn), list(drawn)
        assert len(keys) == announced and announced % 12 == 0 and announced > 0
        assert {key.epoch for key in keys} == {epoch} and len(set(keys)) == len(keys)
        assert random_states() == states
        scramble(99)
        again = sampler(name, num_instances=4)
        again.set_epoch(epoch)
        assert list(again) == keys


def test_an_image_drawn_twice_has_two_keys() -> None:
    drawn = list(sampler("RandomIdentitySampler", num_instances=6))
    counts = Counter(key.image for key in drawn)
    assert max(counts.values()) > 1
    assert all(
        sorted(key.nth for key in drawn if key.image == index) == list(range(count))
        for index, count in counts.items()
    )


@pytest.mark.parametrize("name", SAMPLERS)
def test_ranks_share_each_batch(name: str) -> None:
    whole = list(sampler(name))
    shares = [list(sampler(name, num_replicas=3, rank=rank)) for rank in range(3)]
    assert len({len(share) for share in shares}) == 1
    for start in range(0, len(whole) // 3, 4):
        together = [key for share in shares for key in share[start : start + 4]]
        assert together == whole[start * 3 : start * 3 + 12]
    if name == "RandomIdentitySampler":
        for share in shares:
            pids = [RECORDS[key.image][1] for key in share]
            assert pids[0::2] == pids[1::2]
    assert list(SeededSampler(sampler(name).base, 1, batch_size=12)) == whole
    with pytest.raises(ValueError, match="rank"):
        sampler("RandomSampler", num_replicas=5)


@pytest.mark.parametrize("name", ["batch_size", "num_instances"])
@pytest.mark.parametrize("kind", ["RandomSampler", "RandomIdentitySampler"])
def test_counts_below_1(kind, name):
    with pytest.raises(ValueError, match=f"{name}: expected at least 1, got 0"):
        sampler(kind, **{name: 0})
