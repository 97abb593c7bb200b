"""scripts/mutants.py: the mutants it draws, kills, shows and records; the lists it reads."""

import ast
import subprocess
from pathlib import Path

import pytest
import yaml
from mask_inputs import PROJECT, script

mutants = script("mutants")
from mutation import choice, command, drawing, records, running  # noqa: E402

SOURCE = '''"""A module."""

from dataclasses import dataclass


def add(a: int | None, b: int) -> int:
    """The sum."""
    return a + b


def twice(x):
    return x * 2


@dataclass(frozen=True)
class Box:
    size: int = 7
    """Of the box."""

    @property
    def area(self):
        if self.size < 0:
            raise ValueError("size: expected a number above 0", self.size)
        return self.size**2
'''
TESTS = """
from magnifier_plugin.losses.sums import add, twice

def test_sum():
    assert add(5, 4) == 9

def test_twice():
    assert twice(2) == 4
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A git checkout with one file to mutate, one test file and the two lists."""
    monkeypatch.setattr(running, "PRELOAD", ("pytest",))
    root = tmp_path / "project"
    write = {
        "magnifier_plugin/__init__.py": "",
        "magnifier_plugin/losses/__init__.py": "",
        "magnifier_plugin/losses/sums.py": SOURCE,
        "tests/test_sums.py": TESTS,
        choice.TESTS: yaml.safe_dump({"losses/sums.py": ["test_sums.py"]}),
        choice.EQUIVALENT: "[]",
    }
    for name, text in write.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    return root


def run(project, **changes):
    """`mutate` on the small project, with every line drawn."""
    settings = command.Settings(
        root=project,
        seed=1,
        number=99,
        jobs=1,
        seconds=10,
        out=project / "log" / "out",
        again=False,
        only=(),
    )
    return command.mutate(settings._replace(**changes))


def draw(project, seed=1, number=99):
    return drawing.draw(choice.mutated_files(project), project, seed, number)


def mutant_with(project, line):
    """The mutant whose change adds `line` to the file."""
    path = project / "magnifier_plugin" / "losses" / "sums.py"
    found = (drawing._apply("", one) for one in drawing.candidates(path, project))
    return next(one for one in found if f"+ {line}" in one.change)


def test_the_draw_is_seeded(project):
    first = draw(project, number=4)
    assert draw(project, number=4) == first
    assert len(first) == len({(m.path, m.line) for m in first}) == 4
    assert len({tuple(m.key for m in draw(project, seed, 4)) for seed in range(9)}) > 4
    assert {m.key for m in draw(project, number=5)} > {m.key for m in first}


def test_the_draw_does_not_depend_on_line_numbers(project):
    keys = [mutant.key for mutant in draw(project, number=5)]
    path = project / "magnifier_plugin" / "losses" / "sums.py"
    path.write_text(SOURCE.replace("\n\n\n", "\n\n\n# One more line.\n"), encoding="utf-8")
    assert [mutant.key for mutant in draw(project, number=5)] == keys


def test_what_is_mutated(project):
    path = project / "magnifier_plugin" / "losses" / "sums.py"
    found = drawing.candidates(path, project)
    texts = {candidate.text for candidate in found}
    assert {"return a + b", "size: int = 7", "return self.size**2", "if self.size < 0:"} <= texts
    changed = [drawing._apply("", candidate) for candidate in found]
    assert all(mutant.source != SOURCE for mutant in changed)
    added = "\n".join(line for mutant in changed for line in mutant.change)
    for kept in ("from", "dataclass", "XXA module", "XXsize", "def add(a: int & None"):
        assert kept not in added
    assert "+ raise ValueError(None, self.size)" in added
    functions = {candidate.function for candidate in found}
    assert functions == {"add", "twice", "Box", "Box.area"}


def test_broken_code_is_killed_and_the_project_is_not_touched(project, tmp_path):
    copy = running.Copy(project, tmp_path / "copy")
    outcome = copy.run(["test_sums.py"], 10, mutant_with(project, "return a - b"))
    assert outcome[::2] == ("killed", "tests/test_sums.py::test_sum")
    outcome = copy.run(["test_sums.py::test_twice"], 10, mutant_with(project, "return a - b"))
    assert outcome.name == "survived"
    copied = copy.folder / "magnifier_plugin" / "losses" / "sums.py"
    assert copied.read_text() == SOURCE
    assert (project / "magnifier_plugin" / "losses" / "sums.py").read_text() == SOURCE
    assert not list(project.rglob("__pycache__"))


def test_time_kills(project, tmp_path, monkeypatch):
    copy = running.Copy(project, tmp_path / "copy")
    tests = copy.folder / "tests" / "test_sums.py"
    tests.write_text("while True: pass")
    assert copy.run(["test_sums.py"], 1).name == "timeout"
    monkeypatch.setattr(running, "PATIENCE", 1)
    tests.write_text("import time; time.sleep(60)")
    assert copy.run(["test_sums.py"], 1).name == "timeout"


@pytest.mark.slow
def test_a_run(project, capsys):
    """Run, continue after an interruption, run the survivors again with a better test."""
    out = project / "log" / "out"
    assert run(project, only=("magnifier_plugin/losses",)) == 0
    text = capsys.readouterr().out
    outcomes = records.read_outcomes(out)
    survived = sum(outcome.name == "survived" for outcome in outcomes.values())
    killed = len(outcomes) - survived
    assert len(outcomes) == len(draw(project)) and 2 <= killed <= survived
    row = f"| `losses` | {len(outcomes)} | 0 | {killed} | 0 | {survived} |"
    assert f"{row} {100 * killed / len(outcomes):.1f} |" in text
    assert "-        return self.size**2\n+        return " in text  # no test makes a box
    assert "-    return a + b" not in text

    lines = out.read_text().splitlines()
    out.write_text("\n".join([*lines[1:], lines[0][:40]]))  # interrupted while writing
    run(project)
    assert f"{len(lines)} mutants of 1 files, 1 to run" in capsys.readouterr().out
    assert len(records.read_outcomes(out)) == len(lines)

    with (project / "tests" / "test_sums.py").open("a") as file:
        file.write("\ndef test_box():\n    from magnifier_plugin.losses.sums import Box\n")
        file.write("    assert Box().size == 7 and Box(3).area == 9\n")
    run(project, again=True, jobs=2)
    assert f" {survived} to run" in capsys.readouterr().out
    names = [outcome.name for outcome in records.read_outcomes(out).values()]
    assert names.count("survived") < survived


def test_equivalent_mutants_do_not_count(project, capsys):
    survivor = mutant_with(project, "size: int = 8")
    entry = {
        "path": "losses/sums.py",
        "function": "Box",
        "change": "\n".join(survivor.change),
        "reason": "nobody makes boxes",
    }
    (project / choice.EQUIVALENT).write_text(yaml.safe_dump([entry]))
    found = choice.read_equivalent(project)
    assert choice.reason_of(survivor, found) == "nobody makes boxes"
    assert choice.reason_of(mutant_with(project, "return a - b"), found) is None
    del entry["reason"]
    (project / choice.EQUIVALENT).write_text(yaml.safe_dump([entry]))
    with pytest.raises(ValueError, match="expected the keys"):
        choice.read_equivalent(project)


def test_tests_that_fail_anyway_are_an_error(project):
    (project / "tests" / "test_sums.py").write_text(TESTS.replace("== 9", "== 8"))
    with pytest.raises(RuntimeError, match=r"test_sums.py fails .* \(killed, .*_sum"):
        run(project)


def test_mistakes_end_with_a_message(capsys, tmp_path, monkeypatch):
    assert mutants.main(["--only", "nowhere"]) == 2
    assert "--only nowhere: expected files or folders that are mutated" in capsys.readouterr().err
    monkeypatch.setattr(command, "_run", None)  # the place is tried before the tests
    (tmp_path / "file").touch()
    for out in (tmp_path, tmp_path / "file" / "out"):
        assert mutants.main(["--only", "magnifier_plugin/losses/terms.py", "--out", str(out)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("mutants.py: ") and error.count("\n") == 1


def test_it_can_be_interrupted(monkeypatch, capsys):
    def end(settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "mutate", end)
    assert mutants.main([]) == 130
    assert "interrupted; the same command continues" in capsys.readouterr().err


def test_a_folder_without_git(tmp_path):
    with pytest.raises(RuntimeError, match="expected a git checkout"):
        running.Copy(tmp_path, tmp_path / "copy")


def test_every_file_has_its_tests():
    tests = choice.read_tests(PROJECT)
    files = [path.relative_to(PROJECT).as_posix() for path in choice.mutated_files(PROJECT)]
    assert sorted(tests) == sorted(files)
    defined: dict[str, set[str]] = {}
    for name in (name for names in tests.values() for name in names):
        file, *inside = name.split("::")
        if file not in defined:
            tree = ast.parse((PROJECT / "tests" / file).read_text(encoding="utf-8"))
            kinds = (ast.FunctionDef, ast.ClassDef)
            defined[file] = {node.name for node in ast.walk(tree) if isinstance(node, kinds)}
        assert {part.partition("[")[0] for part in inside} <= defined[file], name
    assert all(tests.values())


def test_every_equivalent_mutant_is_still_one_of_the_code():
    candidates: dict[str, list[drawing.Candidate]] = {}
    for entry in choice.read_equivalent(PROJECT):
        path = Path(PROJECT, entry.path)
        own = candidates.setdefault(entry.path, drawing.candidates(path, PROJECT))
        near = [one for one in own if one.function == entry.function]
        near = [one for one in near if any(one.text in line for line in entry.change)]
        changes = (drawing._apply("", one) for one in near)
        assert any(one and one.change == entry.change for one in changes), entry
        assert len(entry.reason.split()) > 3
