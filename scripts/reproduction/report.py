"""The results of all rows: the content of `results.json` and `table.md`."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from magnifier_plugin.engine.provenance import versions
from magnifier_plugin.evaluation.bins import sort_labels
from magnifier_plugin.evaluation.bootstrap import (
    Results,
    difference_interval,
    mean_difference,
)
from magnifier_plugin.evaluation.query_file import QUERIES, QueryScores, read_queries
from magnifier_plugin.files import write_atomically
from reproduction.machines import computed
from reproduction.plan import Run
from reproduction.record import Record, is_finished
from reproduction.runner import first_result
from reproduction.settings import Settings, is_rendered
from reproduction.table import Row

METRICS = ("mAP", "rank-1")
LEVEL = 0.95


@dataclass(frozen=True)
class RowResult:
    """The results of a row's finished seeds."""

    row: Row
    results: Mapping[int, Mapping[str, Any]]
    """Seed → metrics on the first target, as in the run's `results.json`."""
    queries: Mapping[int, QueryScores]
    """Seed → scores of the queries of the first target."""
    seconds: Mapping[int, float]
    """Seed → running time of the run's processes, seconds."""
    computed: Mapping[int, Sequence[Mapping[str, Any]]]
    """Seed → how it was computed, as `machines.computed` returns it."""
    shares: str
    """Title of the row whose first stage it continued from, with at least one seed; "" if none."""

    def values(self, metric: str) -> np.ndarray:
        """The metric for each seed, float64 [S], 0..1."""
        return np.array([result[metric] for result in self.results.values()])


def collect(settings: Settings, records: Mapping[Run, Record]) -> list[RowResult]:
    """The results of each row, in the table's order; a row may have no finished seed."""
    found = []
    for row in settings.table.rows:
        runs = {run.seed: run for run in records if run.row is row}
        done = {seed: run for seed, run in runs.items() if is_finished(run, records[run])}
        shared = next(
            (title for run in done.values() if (title := records[run].first_stage_of)), ""
        )
        found.append(
            RowResult(
                row,
                {seed: first_result(run.folder) for seed, run in done.items()},
                {seed: _first_queries(run.folder) for seed, run in done.items()},
                {seed: records[run].seconds for seed, run in done.items()},
                {seed: computed(run.folder) for seed, run in done.items()},
                shared,
            )
        )
    return found


def _first_queries(folder: Path) -> QueryScores:
    return next(iter(read_queries(folder / QUERIES).values()))


def compare(
    first: RowResult, second: RowResult, chosen: Callable[[QueryScores], Any], rendered: bool
) -> dict[str, Any] | None:
    """The difference of two rows over the seeds that both have finished.

    Args:
        first, second: the rows; the difference is second minus first.
        chosen: queries → bool [Q] or a slice that selects the queries to compare.
        rendered: whether each seed tests on its own people.
    Returns:
        Metric → {"difference", "low", "high"}, in -1..1, where low and high are None with one
        seed; also "seeds". None if no seed is finished in both, or a seed has no query that counts.
    Raises:
        ValueError: the test images have changed between two of the runs.
    """
    seeds = [seed for seed in first.queries if seed in second.queries]
    sides = []
    for side in (first, second):
        queries = [side.queries[seed] for seed in seeds]
        picked = [(found, chosen(found)) for found in queries]
        sides.append([Results(found.pids[one], found.metrics[one]) for found, one in picked])
    if not seeds or not all(np.isfinite(one.metrics).any() for one in sides[0]):
        return None
    try:
        if len(seeds) == 1:
            mean, low, high = mean_difference(*sides), None, None
        else:
            mean, low, high = difference_interval(*sides, same_identities=not rendered, level=LEVEL)
    except ValueError as error:
        raise ValueError(
            f"rows {first.row.title!r} and {second.row.title!r}: {error}; the test images have "
            "changed between these runs: remove the folders of the older ones, and run the command "
            "again"
        ) from error
    return {
        metric: {
            "difference": float(mean[place]),
            "low": None if low is None else float(low[place]),
            "high": None if high is None else float(high[place]),
        }
        for place, metric in enumerate(METRICS)
    } | {"seeds": seeds}


def differences(
    settings: Settings, rows: Sequence[RowResult], rendered: bool
) -> list[dict[str, Any]]:
    """Compare all pairs of rows of the table: on all queries, and on those of each condition."""
    by_name = {result.row.name: result for result in rows}
    found = []
    for one, other in settings.table.pairs():
        first, second = by_name[one.name], by_name[other.name]
        total = compare(first, second, lambda _: slice(None), rendered)
        if total is None:
            continue
        groups = {
            name: {
                label: difference
                for label in labels
                if (difference := compare(first, second, _sharing(name, label), rendered))
            }
            for name, labels in conditions(rows).items()
        }
        entry = {"first": one.name, "second": other.name, **total, "conditions": groups}
        found.append(entry)
    return found


def _sharing(name: str, label: str) -> Callable[[QueryScores], np.ndarray]:
    """A function that selects the queries with a label; none if they have no such condition."""

    def pick(found: QueryScores) -> np.ndarray:
        return found.labels.get(name, np.full(len(found.pids), "")) == label

    return pick


def conditions(rows: Sequence[RowResult]) -> dict[str, list[str]]:
    """Condition → its sorted labels, in the results of any row."""
    return labels_of(result for row in rows for result in row.results.values())


def labels_of(results: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Condition → its sorted labels, in the results of several tests."""
    found: dict[str, set[str]] = {}
    for result in results:
        for name, groups in result.get("conditions", {}).items():
            found.setdefault(name, set()).update(groups)
    return {name: sort_labels(labels) for name, labels in found.items()}


def report(
    settings: Settings, records: Mapping[Run, Record], failures: Mapping[Run, str]
) -> dict[str, Any]:
    """The content of `results.json`, of plain types; metrics in 0..1."""
    rows = collect(settings, records)
    rendered = is_rendered(next(iter(records)).cfg)
    table = settings.table
    return {
        "table": table.name,
        "title": table.title,
        "config_file": str(settings.config_file),
        "pairs": list(settings.pairs),
        "seeds": list(settings.seeds),
        "quick": settings.quick,
        "start": settings.start,
        "data_set": next(iter(records)).cfg.data.targets[0],
        "people_of_each_seed": rendered,
        "code": next(iter(records.values())).code,
        "versions": versions(),
        "interval": LEVEL if len(settings.seeds) > 1 else None,
        "rows": [_row(result) for result in rows],
        "differences": differences(settings, rows, rendered),
        "failures": {run.name: reason for run, reason in failures.items()},
    }


def _row(result: RowResult) -> dict[str, Any]:
    several = len(result.results) > 1
    return {
        "name": result.row.name,
        "title": result.row.title,
        "overrides": list(result.row.overrides),
        "paper": {name: list(printed) for name, printed in result.row.printed.items()},
        "mean": {m: float(result.values(m).mean()) for m in METRICS if result.results},
        "standard_deviation": {
            m: float(result.values(m).std(ddof=1)) if several else None for m in METRICS
        },
        "seconds": {str(seed): seconds for seed, seconds in result.seconds.items()},
        "computed": {str(seed): list(ways) for seed, ways in result.computed.items()},
        "shares_first_stage_of": result.shares,
        "seeds": {str(seed): found for seed, found in result.results.items()},
    }


def write_results(path: Path, content: Mapping[str, Any]) -> None:
    """Write `results.json`, atomically."""
    with write_atomically(path) as part:
        part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
