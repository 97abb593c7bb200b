"""A digest of the code that a training run executes."""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import magnifier_plugin

MAIN = Path(__file__).parents[1] / "main.py"
PACKAGE = Path(magnifier_plugin.__file__).parent
# Folders that only draw, and so change no number.
LEFT_OUT = (PACKAGE / "visualize",)


def training_code(main: Path = MAIN, package: Path = PACKAGE) -> str:
    """A digest (12 hexadecimal digits) of the code that a training run executes.

    It covers `scripts/main.py` and every file of the package that it imports, directly or through
    other files, also inside functions, but not `visualize/`, which only draws. Comments, docstrings
    and formatting do not change it: it is computed from the code that `ast` parses and unparses.

    Args:
        main: the training script.
        package: the folder of the package.
    """
    digest = hashlib.blake2b(digest_size=6)
    for file in sorted(imported_files(main, package)):
        name = file.relative_to(package).as_posix() if file.is_relative_to(package) else file.name
        digest.update(f"{name}\n{_without_docstrings(file)}\n".encode())
    return digest.hexdigest()


def imported_files(main: Path, package: Path) -> set[Path]:
    """`main` and the files of the package that it imports, as `training_code` defines them."""
    left_out = {package / path.relative_to(PACKAGE) for path in LEFT_OUT}
    found, waiting = set(), [main]
    while waiting:
        file = waiting.pop()
        if file in found or any(file.is_relative_to(folder) for folder in left_out):
            continue
        found.add(file)
        waiting += _files(_imported_names(file), package)
    return found


def _imported_names(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            # A name that is imported from a package may be one of its modules.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _files(names: Iterable[str], package: Path) -> Iterator[Path]:
    """The package's files of imported names: modules, and the `__init__` of all their packages."""
    for name in names:
        top, *parts = name.split(".")
        if top != package.name:
            continue
        candidates = [package / "__init__.py"]
        for depth in range(1, len(parts) + 1):
            place = package.joinpath(*parts[:depth])
            candidates += [place.with_suffix(".py"), place / "__init__.py"]
        yield from (file for file in candidates if file.is_file())


def _without_docstrings(file: Path) -> str:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            body[:] = [statement for statement in body if not _is_text(statement)]
    return ast.unparse(tree)


def _is_text(statement: ast.stmt) -> bool:
    """Whether a statement is a docstring, also of a field."""
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Constant):
        return False
    return isinstance(statement.value.value, str)
