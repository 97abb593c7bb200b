"""`row.json` in a run's folder: the configuration and the code that its results come from."""

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
from reproduction.identity import WITHOUT_EFFECT, identity
from reproduction.plan import Run

RECORD = "row.json"
LOG = "output.log"  # output of the run's process
_LISTED = 3  # number of differing keys that a message names


@dataclass
class Record:
    """The content of `row.json`, written when a run starts and when it ends."""

    configuration: Mapping[str, Any]
    """As `identity.identity` returns it."""
    code: str
    """As `code.training_code` returns it."""
    finished: bool = False
    """Whether training and the final test are done."""
    seconds: float = 0.0
    """Running time of all of its processes together."""
    processes: list[int] = field(default_factory=list)
    """Process id, if a process is running."""
    first_stage_of: str = ""
    """Title of the row whose first stage it continued from; "" if it trained all stages."""

    def write(self, folder: Path) -> None:
        """Write `row.json` into a run's folder, which is created if necessary."""
        with write_atomically(folder / RECORD) as part:
            part.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def read_record(folder: Path) -> Record | None:
    """Read the record in a run's folder; None if there is none.

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
    """The record of each run: the existing one, or a new one.

    Args:
        runs: the runs of the table.
        code: digest of the current code.
        out: the folder of all rows.
    Raises:
        ConfigError: some folders have results of other code or of another configuration; the
            message names all of them, and what differs.
    """
    records, foreign = {}, []
    for run in runs:
        new = Record(_configuration(run, out), code)
        old = read_record(run.folder)
        if old is None and run.folder.is_dir() and any(run.folder.iterdir()):
            foreign.append(f"  {run.name}: has no {RECORD}, so the origin of its files is unknown")
        elif old is not None and (differences := _differences(old, new)):
            foreign.append(f"  {run.name}: {differences}")
        records[run] = old or new
    if foreign:
        raise ConfigError(
            f"{out}: has results of other code or another configuration, which are not mixed with "
            "new ones:\n"
            + "\n".join(foreign)
            + "\nChoose another --out, remove these folders, or run the code and the configuration "
            "that made them"
        )
    return records


def _configuration(run: Run, out: Path) -> dict[str, Any]:
    values = identity(run.cfg, out)
    if run.start:  # named after its configuration and code; it is moved with the data sets
        values["model.backbone_weights"] = run.start.folder.name
    return values


def is_finished(run: Run, record: Record) -> bool:
    """Whether a run has finished and its results exist."""
    files = run.folder / RESULTS, run.folder / QUERIES
    return record.finished and all(file.is_file() for file in files)


def _differences(old: Record, new: Record) -> str:
    """A description of the differences; "" if there are none."""
    found = [] if old.code == new.code else [f"code {old.code}, now {new.code}"]
    before, now = old.configuration, json.loads(json.dumps(new.configuration))
    compared = [key for key in {**before, **now} if key not in WITHOUT_EFFECT]
    keys = [key for key in compared if before.get(key) != now.get(key)]
    found += [f"{key} {before.get(key)}, now {now.get(key)}" for key in keys[:_LISTED]]
    if len(keys) > _LISTED:
        found.append(f"and {len(keys) - _LISTED} more keys")
    return "; ".join(found)
