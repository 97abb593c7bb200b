"""Intervals of the difference of two rows, against plain loops and against known variances."""

import numpy as np
import pytest

from magnifier_plugin.evaluation.bootstrap import Results, difference_interval, mean_difference


def results(values, pids=None):
    """One seed: a value for each query; by default each query has its own identity."""
    values = np.asarray(values, float)
    pids = np.arange(len(values)) if pids is None else np.asarray(pids)
    return Results(pids, values.reshape(len(values), -1))


def random_rows(seeds, queries=400, identities=100, seed=0):
    """Rows whose queries differ by 0.1 on average, plus a difference shared within an identity."""
    rng = np.random.default_rng(seed)
    first, second = [], []
    for _ in range(seeds):
        pids = rng.integers(0, identities, queries)
        base = rng.random(queries)
        first.append(results(base, pids))
        second.append(results(base + 0.1 + 0.2 * rng.standard_normal(identities)[pids], pids))
    return first, second


def loop(first, second, repeats, same_identities, seed):
    """The bootstrap, implemented literally, one draw after another."""
    rng = np.random.default_rng(seed)
    draws = []
    pairs = list(zip(first, second, strict=True))
    plain = [(two.metrics - one.metrics).mean() for one, two in pairs]
    scale = np.sqrt(len(first) / (len(first) - 1))
    for _ in range(repeats):
        chosen = rng.integers(0, len(first), len(first))
        shared = None
        means = []
        for number in chosen:
            pids = np.unique(first[number].pids)
            drawn = rng.choice(pids, len(pids))
            if same_identities:
                drawn = shared = drawn if shared is None else shared
            rows = np.concatenate([np.flatnonzero(first[number].pids == pid) for pid in drawn])
            means.append((second[number].metrics - first[number].metrics)[rows].mean())
        seeds = np.mean([plain[number] for number in chosen])
        identities = np.mean(means) - seeds
        draws.append(np.mean(plain) + scale * (seeds - np.mean(plain)) + identities)
    return np.quantile(draws, (0.025, 0.975))


@pytest.mark.parametrize("same_identities", [False, True])
def test_equals_a_loop_of_draws(same_identities):
    first, second = random_rows(3, queries=60, identities=12)
    if same_identities:
        first = [one._replace(pids=first[0].pids) for one in first]
        second = [one._replace(pids=first[0].pids) for one in second]
    got = difference_interval(first, second, same_identities=same_identities, repeats=4000)
    low, high = loop(first, second, 2000, same_identities, seed=1)
    width = high - low
    assert got.low[0] == pytest.approx(low, abs=0.1 * width)
    assert got.high[0] == pytest.approx(high, abs=0.1 * width)
    differences = [(b.metrics - a.metrics).mean() for a, b in zip(first, second, strict=True)]
    assert got.mean[0] == pytest.approx(np.mean(differences))


def test_queries_of_an_identity_stay_together():
    """40 copies of each identity's query carry no more information than one."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal(30)
    widths = []
    for copies in (1, 40):
        pids = np.repeat(np.arange(30), copies)
        second = [results(np.repeat(values, copies), pids)] * 2
        first = [results(np.zeros(30 * copies), pids)] * 2
        got = difference_interval(first, second, same_identities=True)
        widths.append(got.high[0] - got.low[0])
    assert widths[0] == pytest.approx(widths[1], rel=0.02)
    assert widths[0] == pytest.approx(2 * 1.96 * values.std() / np.sqrt(30), rel=0.1)


def test_people_who_are_the_same_in_all_seeds_are_drawn_once():
    """Different people in each seed average out over the seeds; the same people do not."""
    first, second = random_rows(1)
    first, second = first * 4, second * 4
    same = difference_interval(first, second, same_identities=True)
    other = difference_interval(first, second, same_identities=False)
    ratio = (same.high - same.low) / (other.high - other.low)
    assert ratio[0] == pytest.approx(2, rel=0.1)


def test_seeds_are_resampled():
    """If people do not differ, the interval comes only from the seeds, as from new ones."""
    first = [results(np.zeros(10))] * 3
    second = [results(np.full(10, value)) for value in (0.0, 0.3, 0.6)]
    got = difference_interval(first, second, same_identities=True)
    assert got.mean[0] == pytest.approx(0.3)
    half = 0.3 * np.sqrt(3 / 2)  # the largest of three means, and three seeds' variance
    assert (got.low[0], got.high[0]) == (pytest.approx(0.3 - half), pytest.approx(0.3 + half))


def test_several_metrics_and_queries_without_a_match():
    first = [results([[0.1, 0], [np.nan, np.nan], [0.5, 1]])] * 2
    second = [results([[0.4, 1], [np.nan, np.nan], [0.6, 1]])] * 2
    np.testing.assert_allclose(mean_difference(first, second), [0.2, 0.5])
    got = difference_interval(first, second, same_identities=True)
    np.testing.assert_allclose(got.mean, [0.2, 0.5])
    np.testing.assert_allclose(got.low, [0.1, 0.0])
    np.testing.assert_allclose(got.high, [0.3, 1.0])


def test_the_same_seed_gives_the_same_interval():
    rows = random_rows(2)
    one, again, other = (
        difference_interval(*rows, same_identities=False, seed=seed) for seed in (0, 0, 1)
    )
    assert (one.low, one.high) == (again.low, again.high)
    assert one.low != other.low


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([results([1])], [results([1])], "at least two seeds, got 1"),
        ([results([1])] * 2, [results([1])], "same seeds in both rows, got 2 and 1"),
        ([results([1, 2])] * 2, [results([1])] * 2, "got 2 and 1 queries"),
        ([results([1], [1])] * 2, [results([1], [2])] * 2, "same queries"),
        ([results([1, 2])] * 2, [results([1, np.nan])] * 2, "whose identities or matches differ"),
        ([results([np.nan])] * 2, [results([np.nan])] * 2, "at least one query with a match"),
        (
            [results([1], [1]), results([1], [2])],
            [results([1], [1]), results([1], [2])],
            "same identities in all seeds",
        ),
    ],
)
def test_mistakes(first, second, message):
    with pytest.raises(ValueError, match=message):
        difference_interval(first, second, same_identities=True)
