"""What computed a row: precision, device and threads, from its folder's `run-<time>.json`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from magnifier_plugin.text_files import read_json
from magnifier_plugin.wording import many


def computed(folder: Path) -> list[dict[str, Any]]:
    """How a row was computed: one entry for each different way, oldest first.

    A resumed row may have several. A folder without these files has none.

    Args:
        folder: the row's folder.
    Returns:
        "precision", such as "bf16, channels_last"; "device", names of the GPUs or of the CPU;
        "threads", the number of CPU threads.
    """
    found = []
    for path in sorted(folder.glob("run-*.json")):
        try:
            facts = read_json(path)
            way = {
                "precision": facts["precision"],
                "device": ", ".join(facts["gpus"]) or facts["processor"],
                "threads": facts["threads"],
            }
        except (OSError, ValueError, TypeError, KeyError):
            continue  # an interrupted or older run
        if way not in found:
            found.append(way)
    return found


def describe(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines for people: how the rows were computed; a list if they were not all computed alike.

    Args:
        rows: "name", and "computed": seed → as `computed` returns it.
    """
    ways: dict[str, list[str]] = {}
    for row in rows:
        for seed, entries in row["computed"].items():
            for way in entries:
                text = f"{way['precision']}; {way['device']}, {many(way['threads'], 'thread')}"
                ways.setdefault(text, []).append(f"{row['name']}/seed-{seed}")
    if len(ways) < 2:
        return [f"Computed in {text}." for text in ways]
    return [
        "Rows were computed in different ways, which may add to their differences:",
        "",
        *(f"- {text}: {', '.join(dict.fromkeys(names))}" for text, names in ways.items()),
    ]
