"""Atomic writes, and checks before writing."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from magnifier_plugin.files import require_writable, torch_load_reason, write_atomically
from magnifier_plugin.images import write_png


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_and_its_folders_are_written(tmp_path):
    target = tmp_path / "new" / "folder" / "a.txt"
    with write_atomically(target) as part:
        part.write_text("first")
        assert names(target.parent) == [part.name] and part.name.startswith(".")
        assert part.suffix == ".txt"
    assert names(target.parent) == ["a.txt"] and target.read_text() == "first"
    with write_atomically(str(target)) as part:
        part.write_text("second")
        assert target.read_text() == "first"
    assert target.read_text() == "second"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_interrupted_write_changes_nothing(tmp_path, error):
    (tmp_path / "a.txt").write_text("before")
    for target in (tmp_path / "a.txt", tmp_path / "b.txt"):
        with pytest.raises(error), write_atomically(target) as part:
            part.write_text("half")
            raise error
    assert names(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "before"


def test_a_failed_flush_or_rename_leaves_nothing(tmp_path, monkeypatch):
    def full_disk(*_):
        raise OSError("full disk")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="full disk"), write_atomically(tmp_path / "a") as part:
        part.write_text("content")
    monkeypatch.undo()
    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(OSError, match="full disk"), write_atomically(tmp_path / "a") as part:
        part.write_text("content")
    assert names(tmp_path) == []


def test_the_content_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda _: flushed.append(names(tmp_path)))
    with write_atomically(tmp_path / "a") as part:
        part.write_text("content")
    assert flushed == [[part.name]]


def test_two_writers_of_one_file_do_not_interfere(tmp_path):
    with write_atomically(tmp_path / "a") as one, write_atomically(tmp_path / "a") as other:
        one.write_text("one")
        other.write_text("other")
    assert (tmp_path / "a").read_text() == "one" and names(tmp_path) == ["a"]


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), write_atomically(tmp_path / "a"):
        pass


def test_libraries_choose_the_format_by_the_suffix(tmp_path):
    with write_atomically(tmp_path / "a.npy") as part:
        np.save(part, np.arange(3))
    assert np.load(tmp_path / "a.npy").tolist() == [0, 1, 2]
    with write_atomically(tmp_path / "a.jpg") as part:
        Image.new("RGB", (4, 4)).save(part)
    write_png(tmp_path / "a.data", Image.new("L", (4, 4), 7))
    for name, kind in (("a.jpg", "JPEG"), ("a.data", "PNG")):
        with Image.open(tmp_path / name) as image:
            assert image.format == kind
    assert names(tmp_path) == ["a.data", "a.jpg", "a.npy"]


def test_names_as_long_as_the_system_allows(tmp_path):
    target = tmp_path / ("ü" * 100 + ".txt")
    with write_atomically(target) as part:
        part.write_text("content")
    assert names(tmp_path) == [target.name]


class Code:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("content", [b"# Read me", "code", "archive"])
def test_torchs_advice_to_trust_a_file_is_not_passed_on(content, tmp_path):
    path = tmp_path / "w.pth"
    if content == "archive":
        torch.save({"a": Code()}, path)
    else:
        path.write_bytes(pickle.dumps(Code()) if content == "code" else content)
    with pytest.raises(pickle.UnpicklingError) as caught:
        torch.load(path, weights_only=True)
    reason = torch_load_reason(caught.value)
    assert "weights_only" not in reason and "trust" not in reason and "\n" not in reason
    assert reason.startswith(("Unsupported", "Trying to load unsupported"))
    assert torch_load_reason(EOFError()) == "EOFError"
    assert torch_load_reason(KeyError(101)) == "KeyError"  # from text that is no pickle
    assert torch_load_reason(RuntimeError("Damaged. Report this.\nMore")) == "Damaged"


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_folder_where_a_file_is(tmp_path, name):
    (tmp_path / "file").write_text("")
    message = f"{tmp_path}/{name}: expected a folder to write to, found a file there or above"
    with pytest.raises(OSError, match=message), write_atomically(tmp_path / name / "new.txt"):
        pass


@pytest.mark.parametrize("name", ["new.txt", "old.txt", "a/b/new.txt"])
def test_a_file_that_can_be_written(tmp_path, name):
    (tmp_path / "old.txt").touch()
    require_writable(tmp_path / name)
    assert names(tmp_path) == ["old.txt"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("file/new.txt", "{}/file: expected a folder to write to, found a file there or above"),
        ("file/a/new.txt", "{}/file/a: expected a folder to write to, found a file there or above"),
        ("folder", "{}/folder: expected a file to write, found a folder"),
    ],
)
def test_a_file_that_cannot_be_written(tmp_path, name, message):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=message.format(tmp_path)):
        require_writable(tmp_path / name)


def test_a_folder_without_permission(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda folder, mode: folder != tmp_path)  # root may always
    with pytest.raises(PermissionError, match=f"{tmp_path}: .* found it not writable"):
        require_writable(tmp_path / "a" / "new.txt")
