"""Pictures of the tables that are figures in the paper: curves over K̂, and bars."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from magnifier_plugin.files import write_atomically
from reproduction.table import CUHK03_L, DUKE, MARKET, Row, Table

METRICS = ("mAP", "rank-1")
_APART = 0.08  # distance of two curves on the horizontal axis
# torchreid's name of a data set → the papers' name (CUHK03: with labelled boxes).
PAPERS = {"cuhk03": CUHK03_L, "dukemtmcreid": DUKE, "market1501": MARKET}


def save_figure(table: Table, content: Mapping[str, Any], path: Path, data_set: str) -> None:
    """Draw a table that is a figure.

    Args:
        table: a table with `figure`.
        content: as `report.report` returns it.
        path: file of the picture.
        data_set: the papers' name of the data set, whose printed values are drawn; "" for none.
    """
    rows = {row["name"]: row for row in content["rows"]}
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, metric in zip(figure.subplots(1, 2), METRICS, strict=True):
        (_curves if table.figure == "curves" else _bars)(axes, table, rows, metric)
        if table.figure == "curves":
            _draw_printed(axes, table, METRICS.index(metric), data_set)
        axes.set_ylabel(f"{metric}, %")
        axes.grid(alpha=0.25, axis="y")
        axes.set_axisbelow(True)
    axes = figure.axes[0]
    if table.figure == "curves":
        axes.legend(frameon=False, fontsize=8)
    seeds = content["seeds"]
    spread = "mean ± standard deviation over" if len(seeds) > 1 else "one run,"
    names = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
    figure.suptitle(f"{table.title}\n{content['data_set']}, {spread} {names}", fontsize=10)
    with write_atomically(path) as part:
        figure.savefig(part, dpi=130)


def _curves(axes: Axes, table: Table, rows: Mapping[str, Mapping[str, Any]], metric: str) -> None:
    places = sorted({_x(row) for row in table.rows})
    names = list(dict.fromkeys(row.series for row in table.rows))
    for place, series in enumerate(names):
        points = [row for row in table.rows if row.series == series]
        points = sorted((row for row in points if rows[row.name]["mean"]), key=_x)
        if not points:
            continue
        means, deviations = _values([rows[row.name] for row in points], metric)
        shift = _APART * (place - (len(names) - 1) / 2)  # so that error bars do not overlap
        x = [_x(row) + shift for row in points]
        axes.errorbar(x, means, deviations, fmt="o-", capsize=3, label=series)
    axes.set_xticks(places)
    axes.set_xlim(places[0] - 0.5, places[-1] + 0.5)
    axes.set_xlabel(table.axis)


def _draw_printed(axes: Axes, table: Table, place: int, data_set: str) -> None:
    """Draw the paper's values for this data set as crosses."""
    printed = [(_x(row), row.printed.get(data_set)) for row in table.rows]
    points = [(x, values[place]) for x, values in printed if values and values[place] is not None]
    if points:
        axes.plot(*zip(*points, strict=True), "kx", label=f"paper, {data_set}")


def _x(row: Row) -> float:
    """A row's place on the horizontal axis of a table whose figure is curves."""
    if row.x is None:
        raise ValueError(f"{row.name}: expected a place on the horizontal axis, got none")
    return row.x


def _bars(axes: Axes, table: Table, rows: Mapping[str, Mapping[str, Any]], metric: str) -> None:
    found = [row for row in table.rows if rows[row.name]["mean"]]
    means, deviations = _values([rows[row.name] for row in found], metric)
    titles = [row.title for row in found]
    colours = [f"C{place}" for place in range(len(found))]
    bars = axes.bar(titles, means, 0.55, yerr=deviations, capsize=4, color=colours, alpha=0.85)
    axes.bar_label(bars, fmt="%.1f", padding=3)
    axes.margins(y=0.12)


def _values(
    rows: Sequence[Mapping[str, Any]], metric: str
) -> tuple[list[float], list[float] | None]:
    """Means and standard deviations in %; None for these with one seed."""
    means = [100 * row["mean"][metric] for row in rows]
    deviations = [row["standard_deviation"][metric] for row in rows]
    if any(deviation is None for deviation in deviations):
        return means, None
    return means, [100 * deviation for deviation in deviations]
