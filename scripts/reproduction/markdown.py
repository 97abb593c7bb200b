"""`table.md`: the rows with the paper's values, the differences, and the conditions, in %."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from magnifier_plugin.files import write_atomically
from reproduction.machines import describe
from reproduction.report import labels_of

ONE_SEED = (
    "One seed: no standard deviations and no intervals; use several seeds to see how much is "
    "chance, such as `--seeds 1 2 3`."
)
FEW_SEEDS = 5  # with fewer, intervals are too narrow, see evaluation/bootstrap.py
_METRICS = ("mAP", "rank-1")
_NOTHING = "–"


def write_table(path: Path, content: Mapping[str, Any]) -> None:
    """Write `table.md`, atomically.

    Args:
        path: the file.
        content: as `report.report` returns it.
    """
    text = "\n".join([*_head(content), *_rows(content), *_differences(content), *_groups(content)])
    with write_atomically(path) as part:
        part.write_text(text.rstrip() + "\n", encoding="utf-8")


def _head(content: Mapping[str, Any]) -> list[str]:
    seeds = ", ".join(map(str, content["seeds"]))
    several = len(content["seeds"]) > 1
    people = ", each with its own people" if content["people_of_each_seed"] and several else ""
    lines = [f"# {content['title']}", ""]
    lines.append(
        f"`{' '.join([content['config_file'], *content['pairs']])}`, data set "
        f"{content['data_set']}, "
        f"seed{'s' * several} {seeds}{people}; code {content['code']}. In %."
    )
    if content["start"] is not None:
        lines += [
            "",
            "Every row's backbone starts from a plain network that was trained on the people of "
            f"seed {content['start']}.",
        ]
    if content["quick"]:
        lines += ["", "A quick run with at most two epochs per stage: it only shows that rows run."]
    if not several:
        lines += ["", ONE_SEED]
    if ways := describe(content["rows"]):
        lines += ["", *ways]
    for name, reason in content["failures"].items():
        lines += ["", f"Missing: {name} {reason.partition(chr(10))[0]}"]
    return [*lines, ""]


def _rows(content: Mapping[str, Any]) -> list[str]:
    """Mean ± standard deviation of each row, and the paper's values for it."""
    printed = list(dict.fromkeys(name for row in content["rows"] for name in row["paper"]))
    header = ["", *_METRICS, *(f"paper, {name}: mAP / rank-1" for name in printed), "minutes"]
    lines = []
    for row in content["rows"]:
        deviation = row["standard_deviation"]
        ours = [_spread(row["mean"].get(metric), deviation[metric]) for metric in _METRICS]
        paper = [_printed(row["paper"].get(name)) for name in printed]
        lines.append([_title(row, content), *ours, *paper, _minutes(row["seconds"].values())])
    notes = [
        f"{row['title']} continues from the first stage of {row['shares_first_stage_of']}, which "
        "has the same settings; its minutes are those of the later stages."
        for row in content["rows"]
        if row["shares_first_stage_of"]
    ]
    return ["## Rows", "", *_table(header, lines), "", *notes, ""]


def _title(row: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    missing = len(content["seeds"]) - len(row["seeds"])
    return f"{row['title']} ({missing} of the seeds missing)" if missing else row["title"]


def _differences(content: Mapping[str, Any]) -> list[str]:
    """The differences of pairs of rows, with intervals if there are several seeds."""
    if not content["differences"]:
        return []
    lines = [
        [_pair(one, content), *(_interval(one[metric]) for metric in _METRICS)]
        for one in content["differences"]
    ]
    note = (
        "Mean over the seeds; in brackets the 95 % bootstrap interval over seeds and test "
        "identities. A difference whose interval excludes 0 is significant."
    )
    if len(content["seeds"]) < FEW_SEEDS:
        note += (
            f" With fewer than {FEW_SEEDS} seeds, intervals are somewhat too narrow if seeds "
            "differ more than identities do."
        )
    several = content["interval"] is not None
    return [
        "## Differences",
        "",
        *([note, ""] if several else []),
        *_table(["", *_METRICS], lines),
        "",
    ]


def _groups(content: Mapping[str, Any]) -> list[str]:
    """mAP / rank-1 by condition of the query, and how often the first hit is the near-twin."""
    names = labels_of(found for row in content["rows"] for found in row["seeds"].values())
    if not names:
        return []
    lines = [
        "## Conditions of the query",
        "",
        "mAP / rank-1, mean over the seeds; below each table, the differences in mAP.",
    ]
    for name, labels in names.items():
        cells = [
            [row["title"], *(_mean_of_group(row, name, label) for label in labels)]
            for row in content["rows"]
            if row["seeds"]
        ]
        lines += ["", *_table([name, *labels], cells)]
        if content["differences"]:
            lines += ["", *_table(["difference in mAP", *labels], _of_group(content, name, labels))]
    hits = [
        [row["title"], _percent(_mean(one["first_hit_is_twin"]["share"] for one in seeds))]
        for row in content["rows"]
        if (seeds := [s for s in row["seeds"].values() if "first_hit_is_twin" in s])
    ]
    if hits:
        lines += ["", *_table(["queries with a twin", "first hit is the twin"], hits)]
    return lines


def _pair(difference: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    """The titles of the two rows of a difference."""
    titles = {row["name"]: row["title"] for row in content["rows"]}
    return f"{titles[difference['first']]} → {titles[difference['second']]}"


def _of_group(content: Mapping[str, Any], name: str, labels: Sequence[str]) -> list[list[str]]:
    """The differences in mAP on the queries of each label of a condition, a line per pair."""
    return [
        [
            _pair(one, content),
            *(_interval(found[label]["mAP"]) if label in found else _NOTHING for label in labels),
        ]
        for one in content["differences"]
        for found in [one["conditions"].get(name, {})]
    ]


def _mean_of_group(row: Mapping[str, Any], name: str, label: str) -> str:
    groups = [found.get("conditions", {}).get(name, {}) for found in row["seeds"].values()]
    found = [group[label] for group in groups if label in group]
    return " / ".join(_percent(_mean(one[metric] for one in found)) for metric in _METRICS)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _percent(value: float | None) -> str:
    return _NOTHING if value is None else f"{100 * value:.1f}"


def _spread(mean: float | None, deviation: float | None) -> str:
    spread = "" if deviation is None else f" ± {_percent(deviation)}"
    return f"{_percent(mean)}{spread}"


def _interval(found: Mapping[str, Any]) -> str:
    text = f"{100 * found['difference']:+.1f}"
    if found["low"] is None:
        return text
    return f"{text} [{100 * found['low']:+.1f}, {100 * found['high']:+.1f}]"


def _printed(values: Sequence[float | None] | None) -> str:
    if values is None:
        return _NOTHING
    return " / ".join(_NOTHING if value is None else f"{value:.1f}" for value in values)


def _minutes(seconds: Iterable[float]) -> str:
    mean = _mean(seconds)
    return _NOTHING if mean is None else f"{mean / 60:.1f}"


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    rule = ["---"] * len(header)
    return [f"| {' | '.join(line)} |" for line in (header, rule, *lines)]
