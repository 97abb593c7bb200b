"""The number of threads while other programs run."""

import logging
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from engines import make_engine

from magnifier_plugin.engine.threads import FIXED_BY, CpuUse, ThreadCount, read_cpu_use

SCRIPTS = Path(__file__).parents[1] / "scripts"
sys.path.insert(0, str(SCRIPTS))

import arguments  # noqa: E402

CPU = torch.device("cpu")


@pytest.fixture
def threads(monkeypatch):
    """Four threads on four cores; their number is not fixed by the user."""
    for name in FIXED_BY:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(4)))
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


class Readings:
    """Readings, a second apart, in which other programs use the given numbers of cores."""

    def __init__(self, *others: float | None) -> None:
        self.others, self.now = iter((0.0, *others)), CpuUse(time.monotonic() - 100, 7, 5)

    def __call__(self) -> CpuUse | None:
        others = next(self.others)
        if others is None:
            return None
        moment, total, own = self.now
        self.now = CpuUse(moment + 1, total + others + 2, own + 2)
        return self.now


def numbers(*others: float | None, device: torch.device = CPU) -> list[int]:
    """The number of threads after each reading."""
    count, found = ThreadCount(device, Readings(*others), seconds=1), []
    for _ in others:
        count.adapt()
        found.append(torch.get_num_threads())
    return found


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ((0, 0.4), [4, 4]),
        ((0.6, 0.6, 0), [3, 3, 4]),
        ((3.7, 4.5, 0.9), [1, 1, 3]),
        ((1.9, 1.5, 1.3, 1.2), [2, 2, 2, 3]),  # one more only if most of a core is free
        ((2, None, 0), [2, 2, 2]),  # a reading that fails is the last one
        ((-1,), [4]),  # never more than there were
    ],
)
def test_follows_the_free_cores(threads, others, expected):
    assert numbers(*others) == expected


def test_says_so(threads, caplog):
    with caplog.at_level(logging.INFO):
        assert numbers(2.0, 2.0) == [2, 2]
    assert caplog.messages == [
        "Other programs use 2.0 of 4 CPU cores: computing with 2 of 4 threads; "
        "OMP_NUM_THREADS fixes the number"
    ]


def test_the_number_is_restored(threads):
    count = ThreadCount(CPU, Readings(3), seconds=1)
    with pytest.raises(KeyboardInterrupt), count.restored():
        count.adapt()
        assert torch.get_num_threads() == 1
        raise KeyboardInterrupt
    assert torch.get_num_threads() == 4


def test_a_run_restores_the_number(threads, market_folder, tmp_path, monkeypatch):
    """Otherwise a second run in the same process would always have one thread."""
    found = []

    def adapt(self):
        torch.set_num_threads(1)
        found.append(torch.get_num_threads())

    monkeypatch.setattr(ThreadCount, "adapt", adapt)
    engine = make_engine(market_folder)
    engine.run(save_dir=tmp_path, max_epoch=1)
    assert set(found) == {1} and torch.get_num_threads() == 4
    engine.run(save_dir=tmp_path, test_only=True)
    assert torch.get_num_threads() == 4


def test_looks_only_every_few_seconds(threads):
    readings = Readings(3, 3)
    readings.now = CpuUse(time.monotonic(), 0, 0)
    ThreadCount(CPU, readings, seconds=60).adapt()
    assert torch.get_num_threads() == 4


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_a_number_set_by_the_user_is_kept(threads, monkeypatch, name):
    monkeypatch.setenv(name, "4")
    assert numbers(3) == [4]


def test_a_gpu_and_deterministic_algorithms_keep_the_number(threads):
    assert numbers(3, device=torch.device("cuda")) == [4]
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        assert numbers(3) == [4]
    finally:
        torch.use_deterministic_algorithms(False)


SPIN = "import time\nwhile time.process_time() < 1: pass\nprint(flush=True)\ninput()"
SERVER = "import subprocess, sys\nsubprocess.run([sys.executable, '-c', sys.argv[1]], check=True)"


@pytest.mark.parametrize("words", [("-c", SPIN), ("-c", SERVER, SPIN)])
def test_own_processes_are_not_other_programs(words):
    """A second of CPU time in a child, or in a child's child, counts as total and as own."""
    if sys.platform != "linux":
        pytest.skip("Linux alone counts the CPU time of all programs")
    before = read_cpu_use()
    child = subprocess.Popen(
        [sys.executable, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    child.stdout.readline()
    running = read_cpu_use()
    child.communicate(b"\n")
    ended = read_cpu_use()
    for after in (running, ended):
        assert 0.9 < after.own - before.own < 2.5
        assert after.total - before.total > after.own - before.own - 0.2


@pytest.mark.parametrize("error", [FileNotFoundError, ProcessLookupError])
@pytest.mark.parametrize("ended", ["17/stat", "task/1/children"])
def test_a_process_that_ends_meanwhile_is_left_out(tmp_path, monkeypatch, error, ended):
    """Both are what Linux says; an error would end the adaptation for the whole run."""
    files = {
        "stat": "".join(f"cpu{n} 1 1 1 1 1 1 1 1\n" for n in range(256)),
        "self/task/1/children": "17",
        "self/task/2/children": "18",
        "17/stat": f"17 (a) b) S {'0 ' * 10}100 200 300 400 0",
        "18/stat": f"18 (c) S {'0 ' * 10}1000 2000 3000 4000 0",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    ticks = os.sysconf("SC_CLK_TCK")
    whole, read = read_cpu_use(tmp_path), Path.read_text

    def read_or_fail(path, *given):
        if str(path).endswith(ended):
            raise error(path)
        return read(path, *given)

    monkeypatch.setattr(Path, "read_text", read_or_fail)
    left = read_cpu_use(tmp_path)
    assert (whole.own - left.own) * ticks == pytest.approx(1000, abs=0.3 * ticks)


def test_unreadable_counters(tmp_path):
    assert read_cpu_use(tmp_path) is None
    (tmp_path / "stat").write_text("cpu 1 2 3\n")
    assert read_cpu_use(tmp_path) is None


@pytest.mark.parametrize(
    ("given", "policy", "spin"),
    [
        ({}, "PASSIVE", "1000"),
        ({"GOMP_SPINCOUNT": "7"}, "PASSIVE", "7"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE", None),
    ],
)
def test_idle_threads_sleep_unless_the_user_says_otherwise(monkeypatch, given, policy, spin):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "")  # what the function sets is undone at the end
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    arguments.let_idle_threads_sleep()
    assert os.environ["OMP_WAIT_POLICY"] == policy
    assert os.environ.get("GOMP_SPINCOUNT") == spin


@pytest.mark.parametrize("library", ["glibc", "no mallopt", "none"])
def test_freed_memory_is_kept(monkeypatch, library):
    """M_MMAP_MAX (-4) is 0 and M_TRIM_THRESHOLD (-1) is off, where the library has them."""
    for name in [name for name in os.environ if name.startswith("MALLOC_")]:
        monkeypatch.delenv(name)
    calls = []
    libraries = {
        "glibc": lambda _: SimpleNamespace(mallopt=lambda *given: calls.append(given)),
        "no mallopt": lambda _: SimpleNamespace(),
        "none": lambda _: raise_type_error(),
    }
    monkeypatch.setattr("ctypes.CDLL", libraries[library])
    arguments.keep_freed_memory()
    assert calls == ([(-4, 0), (-1, -1)] if library == "glibc" else [])
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")  # the user's choice
    arguments.keep_freed_memory()
    assert len(calls) in (0, 2)


def raise_type_error():
    """As Windows does without a library's name."""
    raise TypeError


@pytest.mark.parametrize("name", ["benchmark", "main"])
def test_training_keeps_freed_memory(name):
    assert "\n    keep_freed_memory()\n" in (SCRIPTS / f"{name}.py").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name", ["benchmark", "extract", "main", "reproduce", "rerank", "saliency", "search"]
)
def test_scripts_set_it_before_torch_is_imported(name):
    lines = (SCRIPTS / f"{name}.py").read_text(encoding="utf-8").splitlines()
    imports = [n for n, line in enumerate(lines) if re.match(r"(from|import) (magni|torch)", line)]
    assert lines.index("let_idle_threads_sleep()") < min([*imports, len(lines)])
