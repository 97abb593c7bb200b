"""The file of a test's results, `results.json`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from magnifier_plugin.files import write_atomically

RESULTS = "results.json"


def write_results(folder: Path, content: Mapping[str, Any]) -> None:
    """Write `results.json` into a folder; its entry "results" maps targets to metrics."""
    with write_atomically(folder / RESULTS) as path:
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_results(folder: str | Path) -> dict[str, Any] | None:
    """Target → metrics from a folder's `results.json`; None if it is missing or damaged.

    Args:
        folder: the folder of a test's results.
    """
    try:
        content = json.loads((Path(folder) / RESULTS).read_text(encoding="utf-8"))
        return dict(content["results"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
