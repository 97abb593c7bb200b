"""What a row's folder holds: `row.json` says which configuration and code its results are of."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from magnifier_plugin.config import ConfigError
from magnifier_plugin.engine.results_file import RESULTS
from magnifier_plugin.evaluation.query_file import QUERIES
from magnifier_plugin.files import write_atomically
from magnifier_plugin.text_files import read_json
from reproduction.plan import Run, identity

RECORD = "row.json"
LOG = "output.log"  # of the training's process
_LISTED = 3  # differing keys that a message names


@dataclass
class Record:
    """`row.json`: written when a row starts, and when it ends."""

    configuration: Mapping[str, Any]
    """As `plan.identity` gives it."""
    code: str
    """As `code.training_code` gives it."""
    finished: bool = False
    """Whether the training and its last test ended."""
    seconds: float = 0.0
    """In which its processes worked, all of them together."""
    processes: list[int] = field(default_factory=list)
    """Number of the process that works, if one does."""
    first_stage_of: str = ""
    """Title of the row from whose first stage it continued; "" if it trained all stages."""

    def write(self, folder: Path) -> None:
        """Writes it into a row's folder, which is made if missing."""
        with write_atomically(folder / RECORD) as part:
            part.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def read_record(folder: Path) -> Record | None:
    """The record of a row's folder; None if there is none.

    Raises:
        ConfigError: the file is damaged.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        return Record(**read_json(path))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path}: damaged ({error}); remove {folder}") from error


def open_records(runs: Sequence[Run], code: str, out: Path) -> dict[Run, Record]:
    """The record of each run: what is there already, or a new one.

    Args:
        runs: of the table.
        code: that trainings run now.
        out: the folder of all rows.
    Raises:
        ConfigError: some folders have results of other code or another configuration; all of them
            are named, and what differs.
    """
    records, foreign = {}, []
    for run in runs:
        new = Record(identity(run.cfg, out), code)
        old = read_record(run.folder)
        if old is None and run.folder.is_dir() and any(run.folder.iterdir()):
            foreign.append(f"  {run.name}: has no {RECORD}, so it is unknown what made it")
        elif old is not None and (differences := _differences(old, new)):
            foreign.append(f"  {run.name}: {differences}")
        records[run] = old or new
    if foreign:
        raise ConfigError(
            f"{out}: results of other code or another configuration are not mixed with these:\n"
            + "\n".join(foreign)
            + "\nChoose another --out, remove these folders, or run the code and the configuration "
            "that made them"
        )
    return records


def is_finished(run: Run, record: Record) -> bool:
    """Whether a run's results are there."""
    files = run.folder / RESULTS, run.folder / QUERIES
    return record.finished and all(file.is_file() for file in files)


def _differences(old: Record, new: Record) -> str:
    """What differs, in words; "" if nothing does."""
    found = [] if old.code == new.code else [f"code {old.code}, now {new.code}"]
    before, now = old.configuration, json.loads(json.dumps(new.configuration))
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    found += [f"{key} {before.get(key)}, now {now.get(key)}" for key in keys[:_LISTED]]
    if len(keys) > _LISTED:
        found.append(f"and {len(keys) - _LISTED} more keys")
    return "; ".join(found)
