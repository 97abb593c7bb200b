"""All mutants of the package's files, and a random sample of them."""

import difflib
import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import libcst as cst
from libcst.metadata import CodeRange, MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators, operator_string

# Calls that are not mutated: `len(None)` and `isinstance(None)` only raise, and mutants of `cast`
# and of a logger's name change nothing that a program can see.
LEFT_OUT = ("len", "isinstance", "cast", "getLogger")


class Candidate(NamedTuple):
    """One possible change of one file, not yet applied."""

    path: str
    """The file's path, relative to the project, with forward slashes."""
    line: int
    """Line number of the changed node, from 1."""
    function: str
    """Qualified name of the enclosing function or class; empty at the top level of the file."""
    text: str
    """That line, without indentation."""
    before: str
    """Code of the node."""
    after: str
    """Code of the changed node."""
    module: cst.Module
    node: cst.CSTNode
    mutated: cst.CSTNode


class Mutant(NamedTuple):
    """A changed file."""

    key: str
    """Hash of path, function, text of the line and change; independent of line numbers."""
    path: str
    line: int
    function: str
    source: str
    """Text of the whole changed file."""
    diff: str
    """Unified diff with two lines of context."""

    @property
    def change(self) -> tuple[str, ...]:
        """The removed (-) and added (+) lines of the diff, without indentation."""
        lines = self.diff.splitlines()[2:]
        return tuple(f"{line[0]} {line[1:].strip()}" for line in lines if line[0] in "+-")


def candidates(path: Path, root: Path) -> list[Candidate]:
    """Every change that mutmut's operators make to a file.

    Annotations, decorators, imports, docstrings, the calls in LEFT_OUT, and strings that contain a
    space (messages) are not changed.
    """
    module = MetadataWrapper(cst.parse_module(path.read_text(encoding="utf-8")))
    visitor = _Visitor(path.relative_to(root).as_posix(), module.module)
    module.visit(visitor)
    return visitor.found


def draw(paths: Iterable[Path], root: Path, seed: int, number: int) -> list[Mutant]:
    """Draw a random sample of lines, and one mutant of each.

    Lines and mutants are ordered by a hash of the seed and their text, so that a change elsewhere
    in the package hardly changes the sample.

    Args:
        paths: the files to mutate.
        root: folder of the project.
        seed: seed of the random sample.
        number: number of mutants; fewer are returned if the files have fewer lines.
    Returns:
        The mutants, sorted by path and line.
    """
    lines: dict[tuple[str, ...], list[tuple[str, Candidate]]] = {}
    for path in paths:
        for line, keyed in itertools.groupby(_with_keys(candidates(path, root)), lambda c: c[0]):
            lines[line] = [(key, candidate) for _, key, candidate in keyed]
    drawn: list[Mutant] = []
    for line in sorted(lines, key=lambda line: _hash(str(seed), *line)):
        if len(drawn) == number:
            break
        ordered = sorted(lines[line], key=lambda keyed: _hash(str(seed), keyed[0]))
        mutants = (_apply(key, candidate) for key, candidate in ordered)
        drawn.extend(itertools.islice((mutant for mutant in mutants if mutant), 1))
    return sorted(drawn, key=lambda mutant: (mutant.path, mutant.line))


def _with_keys(found: Sequence[Candidate]) -> Iterator[tuple[tuple[str, ...], str, Candidate]]:
    """(identity of the line, key, candidate) of one file's candidates, in the order of lines.

    Identity and key do not depend on line numbers.
    """
    numbers: dict[tuple[str, str], list[int]] = {}
    for candidate in found:
        same = numbers.setdefault((candidate.function, candidate.text), [])
        if candidate.line not in same:
            same.append(candidate.line)
    seen: Counter[tuple[str, ...]] = Counter()
    for candidate in sorted(found, key=lambda candidate: candidate.line):
        path, number, function, text, before, after, *_ = candidate
        repetition = numbers[function, text].index(number)
        line = (path, function, text, str(repetition))
        name = (*line, before, after)
        yield line, _hash(*name, str(seen[name])), candidate
        seen[name] += 1


def _hash(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]


def _apply(key: str, candidate: Candidate) -> Mutant | None:
    """The changed file; None if it is unchanged or not valid Python."""
    before = candidate.module.code
    changed = candidate.module.deep_replace(candidate.node, candidate.mutated)
    assert isinstance(changed, cst.Module)
    after = changed.code
    try:
        compile(after, candidate.path, "exec")
    except SyntaxError:
        return None
    if after == before:
        return None
    path = candidate.path
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    diff = "".join(difflib.unified_diff(old, new, f"a/{path}", f"b/{path}", n=2))
    return Mutant(key, path, candidate.line, candidate.function, after, diff)


class _Visitor(cst.CSTVisitor):
    """Collects the candidates of a module, in source order."""

    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self, path: str, module: cst.Module) -> None:
        super().__init__()
        self.found: list[Candidate] = []
        self._path = path
        self._module = module
        self._lines = module.code.splitlines()
        self._scope: list[str] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if _is_skipped(node):
            return False
        if isinstance(node, cst.FunctionDef | cst.ClassDef):
            self._scope.append(node.name.value)
        for kind, operator in mutation_operators:
            if isinstance(node, kind) and not (operator is operator_string and _is_message(node)):
                for mutated in operator(node):
                    self._add(node, mutated)
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if isinstance(original_node, cst.FunctionDef | cst.ClassDef):
            self._scope.pop()

    def _add(self, node: cst.CSTNode, mutated: cst.CSTNode) -> None:
        position = self.get_metadata(PositionProvider, node)
        assert isinstance(position, CodeRange)
        line = position.start.line
        code = self._module.code_for_node
        self.found.append(
            Candidate(
                path=self._path,
                line=line,
                function=".".join(self._scope),
                text=self._lines[line - 1].strip(),
                before=code(node),
                after=code(mutated),
                module=self._module,
                node=node,
                mutated=mutated,
            )
        )


def _is_skipped(node: cst.CSTNode) -> bool:
    if isinstance(node, cst.Annotation | cst.Decorator | cst.Import | cst.ImportFrom):
        return True
    if isinstance(node, cst.Expr):
        return isinstance(node.value, cst.SimpleString | cst.ConcatenatedString)
    if not isinstance(node, cst.Call):
        return False
    name = node.func.attr if isinstance(node.func, cst.Attribute) else node.func
    return isinstance(name, cst.Name) and name.value in LEFT_OUT


def _is_message(node: cst.CSTNode) -> bool:
    return isinstance(node, cst.SimpleString) and " " in node.value
