"""Images from untrusted files, and atomic writes."""

import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from magnifier_plugin.annotators.densepose import read_iuv
from magnifier_plugin.files import (
    MAX_PIXELS,
    PHOTO_FORMATS,
    decode_png,
    image_size,
    read_image,
    read_png,
    require_writable,
    torch_load_reason,
    write_atomically,
    write_png,
)
from magnifier_plugin.masks.label_maps import read_labels


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Writing


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


# Reading

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 32\n%%EndComments\nshowpage\n%%EOF\n"
READERS = (read_image, read_png, image_size, read_iuv, read_labels)


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".eps"])
def test_no_file_starts_another_program(tmp_path, monkeypatch, reader, suffix):
    """Pillow hands an EPS file, whatever it is called, to Ghostscript."""
    started = []
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: started.append(1))
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: started.append(2))
    path = tmp_path / f"0002_c1s1_000451_03{suffix}"
    path.write_bytes(EPS)
    with pytest.raises((ValueError, OSError), match="0002_c1s1_000451_03"):
        reader(path)
    assert not started


@pytest.mark.parametrize("kind", PHOTO_FORMATS)
def test_photos_of_every_format_are_read(tmp_path, kind):
    photo = Image.new("RGB", (16, 32), (200, 30, 40))
    photo.save(tmp_path / "photo.jpg", format=kind)
    assert image_size(tmp_path / "photo.jpg") == (32, 16)
    found = read_image(tmp_path / "photo.jpg")
    assert (
        found.mode == "RGB" and np.abs(np.subtract(found.getpixel((8, 8)), (200, 30, 40))).max() < 4
    )
    if kind != "PNG":
        with pytest.raises(ValueError, match=r"photo\.jpg: damaged or truncated image, or not a"):
            read_png(tmp_path / "photo.jpg")


@pytest.mark.filterwarnings("ignore")  # Pillow's warnings about metadata and sizes
@pytest.mark.parametrize("kind", PHOTO_FORMATS)
def test_damaged_photos_never_end_in_another_error(tmp_path, kind):
    path, random = tmp_path / "photo", np.random.default_rng(0)
    pixels = random.integers(0, 256, (32, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, format=kind)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    failed = 0
    for trial in range(200):
        damaged = whole[: len(whole) - trial % 7 * 20].copy()
        damaged[random.integers(0, min(len(damaged), 200), 4)] = random.integers(0, 256, 4)
        path.write_bytes(damaged.tobytes())
        for reader, error in ((read_image, OSError), (image_size, ValueError)):
            try:
                reader(path)
            except error as raised:
                assert str(raised).startswith(f"{path}: ")
                failed += 1
    assert failed > 50


@pytest.mark.parametrize("side", [int(MAX_PIXELS**0.5) + 1, 20_000])
def test_bombs_are_refused_before_they_are_decoded(tmp_path, side):
    """From 178 million pixels on, Pillow raises its own exception."""
    Image.new("1", (side, side)).save(tmp_path / "bomb.png")
    with pytest.raises(OSError, match=r"bomb\.png: refused, .*pixels"):
        read_image(tmp_path / "bomb.png")
    for reader in (image_size, read_png):
        with pytest.raises(ValueError, match=r"bomb\.png: refused, .*pixels"):
            reader(tmp_path / "bomb.png")


def test_a_size_is_checked_before_decoding(tmp_path, monkeypatch):
    Image.new("L", (16, 32)).save(tmp_path / "a.png")
    content = io.BytesIO((tmp_path / "a.png").read_bytes())
    assert decode_png(content, "a", (32, 16)).size == (16, 32)
    monkeypatch.setattr(PngImageFile, "load", None)
    with pytest.raises(ValueError, match=r"^a: 32 × 16 \(height × width\), expected 16 × 32$"):
        decode_png(content, "a", (16, 32))


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
