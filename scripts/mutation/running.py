"""Run tests on a mutant, in a copy of the project and in a process that has imported torch."""

import compileall
import contextlib
import importlib.util
import io
import multiprocessing
import os
import py_compile
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from mutation.drawing import Mutant

PACKAGE = "magnifier_plugin"
# Packages that the tests and this package import: imported once, in the process from which all
# others are forked.
PRELOAD = (
    "matplotlib.pyplot",
    "numpy",
    "PIL.Image",
    "pytest",
    "scipy.ndimage",
    "scipy.sparse",
    "torch.utils.data",
    "torch.utils.tensorboard",
    "torchreid",
    "torchvision",
)
MARKED = "not slow and not onnx and not gpu"  # as in pyproject.toml, but with the ddp tests
PYTEST = ("-x", "-n", "0", "-p", "no:cacheprovider", "--tb=no", "-rfE", "-m", MARKED)
KILLED, SURVIVED, TIMEOUT = "killed", "survived", "timeout"
# Ratio of the limits of wall time and CPU time; large, because a process on a busy machine waits.
PATIENCE = 12
# Bytes. A mutant that needs more memory fails its test instead of ending other programs.
MEMORY = 16 * 2**30

_processes = multiprocessing.get_context("forkserver")
_starting = Lock()  # starting a process is not thread-safe


class Outcome(NamedTuple):
    """The result of the tests on a mutant."""

    name: str
    """KILLED, SURVIVED or TIMEOUT."""
    seconds: float
    """Wall time."""
    test: str
    """The first test that failed, or the last line of pytest's output."""


class Copy:
    """A copy of the project, in which files are changed and tests run.

    It has the files that git tracks, and those that it neither tracks nor ignores.

    Args:
        root: folder of the project, a git checkout.
        folder: the folder of the copy.
    Raises:
        RuntimeError: `root` is not a git checkout.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self.root = root
        self.folder = folder / "project"
        self._temporary = folder / "temporary"
        self._output = folder / "output.txt"
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=root, capture_output=True, text=True)
        if listed.returncode:
            raise RuntimeError(f"{root}: expected a git checkout: {listed.stderr.strip()}")
        for name in filter(None, listed.stdout.split("\0")):
            if (root / name).is_file():  # a deleted file is still listed
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(root / name, self.folder / name)
        # Checked by hash, because a mutant can have the modification time and size of its original.
        mode = py_compile.PycInvalidationMode.CHECKED_HASH
        compileall.compile_dir(self.folder / PACKAGE, quiet=2, invalidation_mode=mode)

    def run(self, tests: Sequence[str], seconds: float, mutant: Mutant | None = None) -> Outcome:
        """Run tests with one file changed.

        Args:
            tests: pytest arguments, relative to the folder `tests`.
            seconds: CPU time of a process, after which the mutant counts as killed.
            mutant: the changed file; None runs the tests on the unchanged project.
        """
        if mutant is None:
            return self._run(tests, seconds)
        changed = self.folder / mutant.path
        original = changed.read_bytes()
        changed.write_text(mutant.source, encoding="utf-8")
        try:
            return self._run(tests, seconds)
        finally:
            changed.write_bytes(original)

    def _run(self, tests: Sequence[str], seconds: float) -> Outcome:
        shutil.rmtree(self._temporary, ignore_errors=True)
        target = [f"tests/{name}" for name in tests]
        target.append(f"--basetemp={self._temporary}")
        limit = max(1, round(seconds))
        arguments = (str(self.root), str(self.folder), str(self._output), target, limit)
        start = time.monotonic()
        with _starting:
            _processes.set_forkserver_preload(list(PRELOAD))
            process = _processes.Process(target=_run_tests, args=arguments)
            process.start()
        process.join(limit * PATIENCE)
        waited = process.exitcode is None
        with contextlib.suppress(ProcessLookupError):  # the process has its own process group
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.kill()
        process.join()
        name = KILLED if process.exitcode else SURVIVED
        if waited or process.exitcode == -signal.SIGXCPU:
            name = TIMEOUT
        return Outcome(name, round(time.monotonic() - start, 1), self._first_failure())

    def _first_failure(self) -> str:
        text = self._output.read_text(encoding="utf-8", errors="replace").strip()
        found = re.search(r"^(?:FAILED|ERROR) (\S+)", text, flags=re.MULTILINE)
        return found[1] if found else text.rpartition("\n")[2]


def _run_tests(root: str, folder: str, output: str, target: list[str], limit: int) -> None:
    """Run pytest in the new process and exit with its status."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb"), write_through=True)
    sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb"), write_through=True)
    os.chdir(folder)
    multiprocessing.set_start_method(None, force=True)  # as in a process that a user starts
    sys.dont_write_bytecode = False  # so that pytest keeps the compiled tests in the copy
    own = ("", root, f"{root}/scripts")
    sys.path[:] = [folder, *(name for name in sys.path if name not in own)]
    os.environ.update(PYTHONPATH=folder, OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not str(found.origin).startswith(folder):
        raise RuntimeError(f"the tests would import {found}, expected it in {folder}")
    import pytest

    sys.exit(pytest.main([*PYTEST, *target]))
