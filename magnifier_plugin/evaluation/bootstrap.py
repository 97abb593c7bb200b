"""Intervals of the difference of two trainings' metrics, by the bootstrap.

What varies is the training (its seed) and who is tested (the identities), so both are resampled:
seeds first, then test identities, whose queries stay together (Efron and Tibshirani, An
Introduction to the Bootstrap, 1993; percentile intervals).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Results(NamedTuple):
    """The queries of one training."""

    pids: np.ndarray
    """int [Q], identity of each query."""
    metrics: np.ndarray
    """float64 [Q, M], the value of each query in M metrics; NaN for a query that does not count."""


class Difference(NamedTuple):
    """Second minus first, of M metrics."""

    mean: np.ndarray
    """float64 [M], mean over the seeds of the difference of the means over queries."""
    low: np.ndarray
    """float64 [M], lower end of the interval."""
    high: np.ndarray
    """float64 [M], upper end."""


class _Identities(NamedTuple):
    """One seed's queries, summed by identity: n of them."""

    pids: np.ndarray
    """int [n], ascending."""
    difference: np.ndarray
    """float64 [n, M], sum of the queries' differences."""
    queries: np.ndarray
    """float64 [n], number of queries."""


def mean_difference(first: Sequence[Results], second: Sequence[Results]) -> np.ndarray:
    """The mean over seeds of the difference, second minus first, float64 [M].

    Args:
        first, second: as in `difference_interval`, from one seed on.
    Raises:
        ValueError: the queries of a seed differ between the two, or none counts.
    """
    return _mean(_paired(first, second))


def difference_interval(
    first: Sequence[Results],
    second: Sequence[Results],
    *,
    same_identities: bool,
    level: float = 0.95,
    repeats: int = 2000,
    seed: int = 0,
) -> Difference:
    """The difference of two rows of a table, and its percentile interval.

    Each of the repeats draws as many seeds as there are, with replacement, and in each as many of
    its test identities as it has, with replacement. Both rows have the same seeds and queries, so
    the differences are paired.

    Args:
        first, second: one entry per seed, in the same order; the same queries in the same order.
        same_identities: whether all seeds test the same people (a data set from a camera), who are
            then drawn once in a repeat; otherwise (people rendered for each seed) each drawn seed
            draws its own.
        level: share of the repeats inside the interval, in (0, 1).
        repeats: of the bootstrap.
        seed: of its draws.
    Raises:
        ValueError: fewer than two seeds, the queries of a seed differ between the two, none of a
            seed's queries counts, or with same_identities the seeds' identities differ.
    """
    if len(first) < 2:
        raise ValueError(f"expected the results of at least two seeds, got {len(first)}")
    seeds = _paired(first, second)
    if same_identities and not all(np.array_equal(one.pids, seeds[0].pids) for one in seeds):
        raise ValueError("same_identities: expected the same people in all seeds, got others")
    rng = np.random.default_rng(seed)
    draws = (_shared_draws if same_identities else _own_draws)(seeds, repeats, rng)
    tail = (1 - level) / 2
    low, high = np.quantile(draws, (tail, 1 - tail), axis=0)
    return Difference(_mean(seeds), low, high)


def _paired(first: Sequence[Results], second: Sequence[Results]) -> list[_Identities]:
    if len(first) != len(second) or not first:
        raise ValueError(f"expected the same seeds twice, got {len(first)} and {len(second)}")
    seeds = []
    for one, other in zip(first, second, strict=True):
        counts = np.isfinite(one.metrics).all(axis=1)
        same = np.array_equal(one.pids, other.pids) and one.metrics.shape == other.metrics.shape
        if not same or not np.array_equal(counts, np.isfinite(other.metrics).all(axis=1)):
            raise ValueError(
                f"expected two results of the same queries, got {len(one.pids)} and "
                f"{len(other.pids)} queries of other identities or matches"
            )
        if not counts.any():
            raise ValueError("expected at least one query with a match, got none")
        difference = (other.metrics - one.metrics)[counts]
        pids, identity = np.unique(one.pids[counts], return_inverse=True)
        sums = np.zeros((len(pids), difference.shape[1]))
        np.add.at(sums, identity, difference)
        seeds.append(_Identities(pids, sums, np.bincount(identity).astype(float)))
    return seeds


def _mean(seeds: Sequence[_Identities]) -> np.ndarray:
    means = [one.difference.sum(axis=0) / one.queries.sum() for one in seeds]
    return np.asarray(np.mean(means, axis=0))


def _own_draws(seeds: Sequence[_Identities], repeats: int, rng: np.random.Generator) -> np.ndarray:
    """float64 [R, M]: each drawn seed draws identities of its own."""
    chosen = rng.integers(len(seeds), size=(repeats, len(seeds)))
    means = np.empty((*chosen.shape, seeds[0].difference.shape[1]))
    for number, one in enumerate(seeds):
        where = chosen == number
        means[where] = _weighted(one, _times_drawn(one, int(where.sum()), rng))
    return np.asarray(means.mean(axis=1))


def _shared_draws(
    seeds: Sequence[_Identities], repeats: int, rng: np.random.Generator
) -> np.ndarray:
    """float64 [R, M]: one draw of identities for all seeds of a repeat."""
    chosen = rng.integers(len(seeds), size=(repeats, len(seeds)))
    times = _times_drawn(seeds[0], repeats, rng)
    by_seed = np.stack([_weighted(one, times) for one in seeds], axis=1)
    drawn = np.take_along_axis(by_seed, chosen[..., None], axis=1)
    return np.asarray(drawn.mean(axis=1))


def _times_drawn(one: _Identities, repeats: int, rng: np.random.Generator) -> np.ndarray:
    """int64 [R, n], how often each identity is drawn."""
    count = len(one.queries)
    return rng.multinomial(count, np.full(count, 1 / count), size=repeats)


def _weighted(one: _Identities, times: np.ndarray) -> np.ndarray:
    """float64 [R, M], the difference of the drawn identities' queries."""
    return np.asarray(times @ one.difference / (times @ one.queries)[:, None])
