"""The file of a test's results, `results.json`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from magnifier_plugin.files import write_atomically

RESULTS = "results.json"
TEST_PREFIX = "test-"


def write_results(folder: Path, content: Mapping[str, Any]) -> str:
    """Write `results.json` into a folder.

    Args:
        folder: created if it is missing.
        content: its entry "results" maps targets to metrics; "epoch" is the number of trained
            epochs, None for a test without training. Such a test does not replace the file of a
            training run: it is written to `test-results.json`.
    Returns:
        The prefix of the file's name, "" or "test-".
    """
    trained = content["epoch"] is None and _read(folder).get("epoch") is not None
    prefix = TEST_PREFIX if trained else ""
    with write_atomically(folder / f"{prefix}{RESULTS}") as path:
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return prefix


def read_results(folder: str | Path) -> dict[str, Any] | None:
    """Target → metrics from a folder's `results.json`; None if it is missing or damaged.

    Args:
        folder: the folder of a test's results.
    """
    try:
        return dict(_read(folder)["results"])
    except (ValueError, KeyError, TypeError):
        return None


def _read(folder: str | Path) -> dict[str, Any]:
    """The content of `results.json`; empty if it is missing or damaged."""
    try:
        return dict(json.loads((Path(folder) / RESULTS).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
