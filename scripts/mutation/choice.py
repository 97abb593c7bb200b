"""Which files are mutated, which tests cover each file, and which mutants no test can notice."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from mutation.drawing import Mutant
from mutation.running import PACKAGE

FOLDERS = ("data", "models", "losses", "engine", "evaluation", "masks", "annotators")
FILES = ("effects.py", "systems.py", "option_checks.py", "builders.py", "recipe.py")
# Relative to the project.
TESTS = "scripts/mutation/tests.yaml"
EQUIVALENT = "scripts/mutation/equivalent.yaml"


class Equivalent(NamedTuple):
    """A mutant that behaves as the original does; an entry of equivalent.yaml."""

    path: str
    function: str
    change: tuple[str, ...]
    """As `Mutant.change`."""
    reason: str


def mutated_files(root: Path) -> list[Path]:
    """The files of the packages in FOLDERS, without `__init__.py`, and those in FILES."""
    package = root / PACKAGE
    inside = (path for folder in FOLDERS for path in sorted((package / folder).rglob("*.py")))
    return [
        *(path for path in inside if path.name != "__init__.py"),
        *(path for path in map(package.joinpath, FILES) if path.exists()),
    ]


def package_of(path: str) -> str:
    """A file's row in the report: its package, or its own name if it is in none."""
    return Path(path).parts[1]


def read_tests(root: Path) -> dict[str, Sequence[str]]:
    """File of the package → its tests, as pytest arguments relative to the folder `tests`."""
    content = yaml.safe_load((root / TESTS).read_text(encoding="utf-8"))
    return {f"{PACKAGE}/{name}": tests for name, tests in content.items()}


def read_equivalent(root: Path) -> list[Equivalent]:
    """The list of equivalent mutants.

    Raises:
        ValueError: the keys of an entry are not path, function, change and reason.
    """
    found = []
    path = root / EQUIVALENT
    for entry in yaml.safe_load(path.read_text(encoding="utf-8")) or ():
        if not isinstance(entry, Mapping) or set(entry) != set(Equivalent._fields):
            raise ValueError(f"{path}: expected the keys {Equivalent._fields}, found {entry}")
        change = tuple(line.strip() for line in entry["change"].splitlines())
        file = f"{PACKAGE}/{entry['path']}"
        found.append(Equivalent(file, entry["function"], change, entry["reason"]))
    return found


def reason_of(mutant: Mutant, equivalent: Sequence[Equivalent]) -> str | None:
    """The reason why a mutant is on the list; None if it is not on it."""
    wanted = (mutant.path, mutant.function, mutant.change)
    return next((entry.reason for entry in equivalent if entry[:3] == wanted), None)
