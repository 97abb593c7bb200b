"""One call of scripts/mutants.py: draw, run, report."""

import os
import queue
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

from mutation.choice import mutated_files, read_equivalent, read_tests, reason_of
from mutation.drawing import Mutant, draw
from mutation.records import append_outcome, read_outcomes
from mutation.report import survivors, table
from mutation.running import SURVIVED, Copy, Outcome

Run = Callable[..., Outcome]


class Settings(NamedTuple):
    """The values of the command line of scripts/mutants.py."""

    root: Path
    """Folder of the project, a git checkout."""
    seed: int
    number: int
    """Number of mutants to draw."""
    jobs: int
    """Mutants that are tested at a time."""
    seconds: float
    """CPU time for a mutant's tests."""
    out: Path
    """File of outcomes."""
    again: bool
    """Whether survivors are run again."""
    only: Sequence[str]
    """Files and folders to draw from, relative to `root`; empty for all."""


def mutate(settings: Settings) -> int:
    """Draw mutants, run those without an outcome, and print table and survivors; return 0.

    Raises:
        ValueError: `only` matches no file that is mutated.
        RuntimeError: the project is not a git checkout, or a test fails on the unchanged project.
        OSError: the file of outcomes cannot be written.
    """
    files = _files(settings)
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    settings.out.open("a").close()  # now, not after the first tests
    equivalent = read_equivalent(settings.root)
    mutants = draw(files, settings.root, settings.seed, settings.number)
    outcomes = read_outcomes(settings.out)
    pending = [
        mutant
        for mutant in mutants
        if not reason_of(mutant, equivalent) and _is_pending(outcomes.get(mutant.key), settings)
    ]
    print(f"{len(mutants)} mutants of {len(files)} files, {len(pending)} to run", flush=True)
    if pending:
        outcomes |= _run(pending, settings)
    print()
    print(table(mutants, outcomes, equivalent))
    print()
    print(survivors(mutants, outcomes, equivalent))
    return 0


def _files(settings: Settings) -> list[Path]:
    found = mutated_files(settings.root)
    wanted = [os.path.normpath(settings.root / name) for name in settings.only]
    if wanted:
        found = [path for path in found if any(path.is_relative_to(name) for name in wanted)]
    if not found:
        raise ValueError(
            f"--only {' '.join(settings.only)}: expected files or folders that are mutated, see "
            "scripts/mutation/choice.py"
        )
    return found


def _is_pending(outcome: Outcome | None, settings: Settings) -> bool:
    return outcome is None or (settings.again and outcome.name == SURVIVED)


def _run(pending: Sequence[Mutant], settings: Settings) -> dict[str, Outcome]:
    """Run mutants, append each outcome to the file as soon as it is known, and return all."""
    # Hides a warning of torchreid's import: that it has no compiled evaluation.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:Cython evaluation:UserWarning")
    tests = read_tests(settings.root)
    outcomes: dict[str, Outcome] = {}
    with (
        tempfile.TemporaryDirectory(prefix="mutants-") as folder,
        ThreadPoolExecutor(settings.jobs) as pool,
    ):
        run = _runner(settings, Path(folder).resolve())
        try:
            _check_project(pool, run, [name for m in pending for name in tests[m.path]])
            running = {pool.submit(run, tests[m.path], m): m for m in pending}
            for future in as_completed(running):
                mutant, outcome = running[future], future.result()
                outcomes[mutant.key] = outcome
                append_outcome(settings.out, mutant, outcome)
                test = outcome.test if outcome.name != SURVIVED else ""
                _print_line(
                    f"{len(outcomes)}/{len(pending)} {outcome.name:8} {outcome.seconds:5.1f} s "
                    f"{mutant.path}:{mutant.line} {test}"
                )
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return outcomes


def _runner(settings: Settings, folder: Path) -> Run:
    """A function that runs tests in a copy of the project that no other thread uses."""
    copies: queue.SimpleQueue[Copy] = queue.SimpleQueue()
    for number in range(settings.jobs):
        copies.put(Copy(settings.root, folder / str(number)))

    def run(names: Sequence[str], mutant: Mutant | None = None) -> Outcome:
        copy = copies.get()
        try:
            return copy.run(names, settings.seconds, mutant)
        finally:
            copies.put(copy)

    return run


def _check_project(pool: ThreadPoolExecutor, run: Run, tests: Sequence[str]) -> None:
    """Run the tests on the unchanged project: a test that fails there says nothing about mutants.

    Raises:
        RuntimeError: a test fails.
    """
    files: dict[str, dict[str, None]] = {}
    for name in tests:
        files.setdefault(name.partition("::")[0], {})[name] = None
    running = {pool.submit(run, tuple(names)): file for file, names in files.items()}
    for future in as_completed(running):
        file, outcome = running[future], future.result()
        if outcome.name != SURVIVED:
            raise RuntimeError(
                f"tests/{file} fails on the unchanged project ({outcome.name}, {outcome.test}); "
                "fix it, or list other tests in scripts/mutation/tests.yaml"
            )
        _print_line(f"unchanged  {outcome.seconds:5.1f} s {file}")


def _print_line(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, flush=True)
