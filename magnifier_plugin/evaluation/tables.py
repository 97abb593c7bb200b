"""Results of a run as a Markdown table."""

from collections.abc import Mapping
from typing import Any

Results = Mapping[str, Mapping[str, Any]]


def results_table(results: Results, untrained: Results | None = None, row: str = "trained") -> str:
    """Results of every target, in %, as Markdown; "–" for a number that a target or row lacks.

    Args:
        results: the results of an engine, by target.
        untrained: the results before training; if given, notes say how much of the gap between
            their mAP and 100 % is closed.
        row: the name of the row of results.
    """
    columns = [name for name in next(iter(results.values())) if name.startswith(("mAP", "rank-"))]
    lines = [f"| data set | | {' | '.join(columns)} |", "|---" * (len(columns) + 2) + "|"]
    notes = []
    for target, result in results.items():
        rows = {"untrained": (untrained or {}).get(target), row: result}
        rows[f"{row}, re-ranked"] = result.get("reranked")
        for name, numbers in rows.items():
            if numbers:
                cells = " | ".join(_cell(numbers.get(column)) for column in columns)
                lines.append(f"| {target} | {name} | {cells} |")
        start, end = ((numbers or {}).get("mAP") for numbers in (rows["untrained"], result))
        if start is not None and end is not None:
            share = (end - start) / (1 - start) if start < 1 else 0
            closed = f": {share:.0%} of the way to 100 %" if share > 0 else ""
            notes.append(f"{target}: mAP from {start:.1%} (untrained) to {end:.1%}{closed}.")
    return "\n".join([*lines, "", *notes]).rstrip()


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"
