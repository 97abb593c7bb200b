"""One call of scripts/reproduce.py: check, prepare, train, report."""

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from magnifier_plugin.wording import many
from reproduction.code import training_code
from reproduction.figures import PAPERS, save_figure
from reproduction.machines import describe
from reproduction.markdown import ONE_SEED, write_table
from reproduction.plan import Run, make_runs
from reproduction.preparation import leave_out_rows, prepare_data
from reproduction.processes import lock_folder, visible_gpus
from reproduction.progress import Progress
from reproduction.record import Record, is_finished, open_records
from reproduction.report import report, write_results
from reproduction.runner import Resources, Runner
from reproduction.settings import Settings


def reproduce(settings: Settings, *, jobs: int | None = None, gpus: Sequence[int] = ()) -> int:
    """Train the unfinished rows, and write `table.md`, `results.json` and the figure.

    Args:
        settings: the arguments of the call.
        jobs: runs at a time; None for one per GPU of `gpus`, or one without `gpus`.
        gpus: numbers of the GPUs to distribute the runs to; empty to let each run choose.
    Returns:
        The exit status: 0, or 1 if a row failed.
    Raises:
        ConfigError, ValueError, FileNotFoundError: the settings, the data or existing results do
            not allow it; nothing was started.
        OSError: a file cannot be written, for example because the disk is full.
    """
    jobs = jobs or max(1, len(gpus))
    names = visible_gpus(gpus)
    settings, note = leave_out_rows(settings)
    if note:
        print(note, flush=True)
    runs = make_runs(settings)
    with ExitStack() as locks:
        lock = _lock(settings.out, locks)
        records = open_records(runs, training_code(), settings.out)
        records = _without_unused_start(records)
        unfinished = [run for run, record in records.items() if not is_finished(run, record)]
        for start in {run.start for run in unfinished if run.start}.intersection(unfinished):
            _lock(start.folder.parent, locks)  # calls with another --out train the same one
        if unfinished:
            seeds = many(len({run.seed for run in unfinished}), "seed")
            print(f"preparing the data of {seeds}", flush=True)
            prepare_data(settings, unfinished)
        jobs = min(jobs, len(runs))  # they divide the CPU threads
        resources = Resources(config_file=settings.config_file, jobs=jobs, gpus=names, lock=lock)
        runner = Runner(records, resources, Progress([*records], sys.stdout), current_code)
        runner.run()
        _write(settings, records, runner.failures)
    for run, reason in runner.failures.items():
        print(f"\n{run.name} {reason}", file=sys.stderr)
    return 1 if runner.failures else 0


def _without_unused_start(records: Mapping[Run, Record]) -> dict[Run, Record]:
    """The records without that of the start, unless a row still needs the start's weights."""
    starts = {run.start for run in records if run.start}
    needed = {run.start for run, record in records.items() if not is_finished(run, record)}
    return {run: record for run, record in records.items() if run not in starts - needed}


def _lock(folder: Path, locks: ExitStack) -> int | None:
    """Lock a folder as `lock_folder` does, until `locks` closes."""
    handle = lock_folder(folder)
    if handle is not None:
        locks.callback(os.close, handle)
    return handle


def current_code() -> str:
    """The digest of the current code; "" while a file is being saved or renamed."""
    try:
        return training_code()
    except (SyntaxError, ValueError, OSError):
        return ""


def _write(settings: Settings, records: Mapping[Run, Record], failures: Mapping[Run, str]) -> None:
    """Write the results and print the table."""
    out, content = settings.out, report(settings, records, failures)
    write_results(out / "results.json", content)
    write_table(out / "table.md", content)
    written = ["results.json", "table.md"]
    if settings.table.figure and any(row["mean"] for row in content["rows"]):
        name = f"{settings.table.name}.png"
        save_figure(settings.table, content, out / name, paper_data_set(next(iter(records)).cfg))
        written.append(name)
    _print(content)
    print("\n".join(str(out / name) for name in written))


def _print(content: Mapping[str, Any]) -> None:
    """Print the rows' metrics; the files have the rest."""
    if len(content["seeds"]) == 1:
        print(ONE_SEED)
    if len(ways := describe(content["rows"])) > 1:
        print("\n".join(ways))
    for row in content["rows"]:
        if mean := row["mean"]:
            print(f"{row['title']}: mAP {mean['mAP']:.1%}, rank-1 {mean['rank-1']:.1%}")


def paper_data_set(cfg: CfgNode) -> str:
    """The papers' name of the data set of a configuration; "" if they do not report on it."""
    if list(cfg.data.sources) != list(cfg.data.targets) or len(cfg.data.sources) > 1:
        return ""
    (name,) = cfg.data.sources
    if name == "cuhk03" and not cfg.cuhk03.labeled_images:
        return ""
    return PAPERS.get(name, "")
