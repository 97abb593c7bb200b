"""The file of outcomes: one JSON object per line, appended when it is known."""

import json
from pathlib import Path

from mutation.drawing import Mutant
from mutation.running import Outcome


def read_outcomes(path: Path) -> dict[str, Outcome]:
    """Key of a mutant → its last outcome.

    A line that a killed run left incomplete is ignored, so that the mutant is run again.
    """
    outcomes = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
            outcomes[record["key"]] = Outcome(record["outcome"], record["seconds"], record["test"])
        except (ValueError, KeyError, TypeError):
            continue
    return outcomes


def append_outcome(path: Path, mutant: Mutant, outcome: Outcome) -> None:
    """Append one line: the mutant's key, place and diff, and the result of the tests."""
    record = {
        "key": mutant.key,
        "path": mutant.path,
        "line": mutant.line,
        "function": mutant.function,
        "outcome": outcome.name,
        "seconds": outcome.seconds,
        "test": outcome.test,
        "diff": mutant.diff,
    }
    # Starts with a line break if the previous line is incomplete.
    cut = path.read_bytes()[-1:] not in (b"", b"\n")
    with path.open("a", encoding="utf-8") as file:
        file.write("\n" * cut + json.dumps(record, ensure_ascii=False) + "\n")
