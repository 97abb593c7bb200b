"""Rendering the pedestrians when it is interrupted, or when two processes start at once."""

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from mask_inputs import script

from magnifier_plugin.synthetic import folder as folder_module
from magnifier_plugin.synthetic.folder import ensure_rendered
from magnifier_plugin.synthetic.options import SyntheticOptions
from magnifier_plugin.synthetic.plan import make_plan

TINY = SyntheticOptions(identities=4, cameras=2, images=1, height=64, width=32)
LONG = """
from magnifier_plugin.synthetic.folder import ensure_rendered
from magnifier_plugin.synthetic.options import SyntheticOptions
options = SyntheticOptions(identities=400, images=9, height=64, width=32)
ensure_rendered({root!r}, options, workers=2)
"""


def names(folder):
    return [file.name for file in folder.iterdir()]


def wait_until(true, seconds):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _break(task):
    raise OSError(f"no space left for {task.shot.name}")


def _die(task):
    os._exit(1)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interruption_leaves_nothing(tmp_path, monkeypatch, workers):
    monkeypatch.setattr(folder_module, "_write_image", _break)
    with pytest.raises(OSError, match="no space left"):
        ensure_rendered(tmp_path, TINY, workers)
    assert not names(tmp_path)


def test_a_killed_worker_is_reported_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(folder_module, "_write_image", _die)
    with pytest.raises(RuntimeError, match="a worker process was killed"):
        ensure_rendered(tmp_path, TINY, workers=2)
    assert not names(tmp_path)
    arguments = "--identities 4 --cameras 2 --images 1 --height 64 --width 32 --workers 2"
    command = ["render_pedestrians.py", "--root", str(tmp_path), *arguments.split()]
    monkeypatch.setattr("sys.argv", command)
    assert script("render_pedestrians").main() == 2
    assert capsys.readouterr().err.startswith("render_pedestrians.py: a worker process was killed")


def test_leftovers_are_removed(tmp_path):
    (tmp_path / ".synthetic-killed" / "synthetic").mkdir(parents=True)
    ensure_rendered(tmp_path, TINY, workers=1)
    assert names(tmp_path) == ["synthetic"]


@pytest.mark.slow
def test_a_killed_process_holds_no_lock(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    killed = subprocess.Popen([sys.executable, "-c", LONG.format(root=str(tmp_path))])
    wait_until(lambda: any(tmp_path.rglob("*.jpg")), 60)
    killed.kill()
    killed.wait()
    assert names(tmp_path)[0].startswith(".synthetic-")

    def is_free():
        handle = os.open(tmp_path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(handle)
        return True

    wait_until(is_free, 10)  # until its workers notice
    ensure_rendered(tmp_path, TINY, workers=1)
    assert names(tmp_path) == ["synthetic"]


def test_two_at_once_render_once(tmp_path, monkeypatch):
    drawn = []
    write = folder_module._write_image
    monkeypatch.setattr(
        folder_module, "_write_image", lambda task: (drawn.append(task.shot), write(task))[1]
    )
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(ensure_rendered, tmp_path, TINY, 1) for _ in range(2)]
    assert [one.result() for one in both] == [tmp_path / "synthetic"] * 2
    assert len(drawn) == len(make_plan(TINY).shots)
    assert names(tmp_path) == ["synthetic"]


def test_without_a_lock_the_first_to_finish_wins(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_module, "fcntl", None)
    write = folder_module._write

    def overtaken(plan, target, workers):
        write(plan, target, workers)
        shutil.copytree(target, tmp_path / "synthetic")
        (tmp_path / "synthetic/winner").touch()

    monkeypatch.setattr(folder_module, "_write", overtaken)
    assert ensure_rendered(tmp_path, TINY, workers=1) == tmp_path / "synthetic"
    assert names(tmp_path) == ["synthetic"]
    assert (tmp_path / "synthetic/winner").exists()
