"""Untrusted files must neither run code nor fill the memory; files that cannot be written."""

import ctypes
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from dumps import CHART, dump, entry, make_iuv, stand_in
from mask_inputs import make_market, script

from magnifier_plugin.annotators.densepose import IuvFolder
from magnifier_plugin.annotators.densepose_dump import DumpFile
from magnifier_plugin.annotators.npy import read_npy
from magnifier_plugin.annotators.unpickler import load_untrusted
from magnifier_plugin.images import MAX_PIXELS
from magnifier_plugin.masks.conversion import convert


class Evil:
    """An object that pickles as a call of `function(*arguments)`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def evils(trace):
    """Pickles that create a file if they are run."""
    command = f"touch {trace}"
    return {
        "posix.system": Evil(os.system, command),
        "builtins.eval": Evil(eval, f"open({str(trace)!r}, 'w')"),
        "builtins.getattr": Evil(Evil(getattr, os, "system"), command),
        "subprocess.Popen": Evil(subprocess.Popen, ["touch", str(trace)]),
        "builtins.print": Evil(print, "hello"),
    }


def pickled(thing) -> bytes:
    """A pickle with nested calls, built by hand because pickle refuses to write it."""
    if isinstance(thing, Evil) and isinstance(thing.call[0], Evil):
        return (
            b"\x80\x02cbuiltins\ngetattr\n(cposix\nsystem\nX\x08\x00\x00\x00__call__tR"
            b"(X\x04\x00\x00\x00truetR."
        )
    return pickle.dumps(thing)


@pytest.mark.parametrize("name", evils("x"))
def test_malicious_pickle_is_refused_by_name(tmp_path, name):
    trace = tmp_path / "trace"
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickled(evils(trace)[name]))
    with pytest.raises(ValueError, match=rf"evil\.pkl: refused, it asks for {name};"):
        DumpFile(path)
    assert not trace.exists()


@pytest.mark.parametrize("name", ["posix.system", "builtins.eval", "subprocess.Popen"])
def test_malicious_archive_is_refused_by_name(tmp_path, name):
    trace = tmp_path / "trace"
    torch.save([evils(trace)[name]], tmp_path / "evil.pkl")
    # Newer versions of torch write the Python 2 names of these modules.
    refused = name.replace("builtins.", r"(builtins\.|__builtin__\.)?")
    refused = refused.replace("subprocess", "(commands|subprocess)")
    with pytest.raises(ValueError, match=rf"evil\.pkl: refused, it asks for {refused};"):
        DumpFile(tmp_path / "evil.pkl")
    assert not trace.exists()


def test_malicious_bytes_inside_a_tensor_are_refused(tmp_path):
    """Plain pickles contain nested output of torch.save, which torch's own loader would trust."""
    trace = tmp_path / "trace"
    inner = io.BytesIO()
    torch.save(Evil(os.system, f"touch {trace}"), inner, _use_new_zipfile_serialization=False)
    outer = Evil(torch.storage._load_from_bytes, inner.getvalue())
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps([outer]))
    with pytest.raises(ValueError, match=r"evil\.pkl: refused, it asks for posix\.system"):
        DumpFile(tmp_path / "evil.pkl")
    assert not trace.exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nsystem\n(S'true'\ntR.",  # protocol 0
        b"(S'true'\nios\nsystem\n.",  # INST
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",  # STACK_GLOBAL
        b"\x80\x04\x8c\x13collections.abc.sys\x8c\x07modules\x93.",  # through a dotted module name
        b"\x80\x04\x8c\x0bcollections\x8c\x15OrderedDict.__class__\x93.",  # a dotted name
        b"\x80\x02\x82\x01.",  # EXT1
    ],
)
def test_no_opcode_reaches_a_name(tmp_path, program):
    (tmp_path / "evil.pkl").write_bytes(program)
    with pytest.raises(ValueError, match=r"refused, it asks for|unregistered extension code"):
        load_untrusted(tmp_path / "evil.pkl", {})


@pytest.mark.parametrize("era", [2022, 2020])
@pytest.mark.parametrize("kept", [0, 2, 0.3, 0.7, 0.99])
def test_truncated_dumps_are_reported(tmp_path, era, kept):
    people = {"a.jpg": [(4.0, 3.0, 0.9, make_iuv(24, 8, 2))]}
    path = dump(tmp_path / "a.pkl", people, era)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if kept < 1 else kept])
    with pytest.raises(ValueError, match=r"a\.pkl: damaged, truncated"):
        DumpFile(path)


def test_damaged_dumps_never_end_in_another_error(tmp_path):
    people = {"a.jpg": [(4.0, 3.0, 0.9, make_iuv(24, 8, 2))]}
    random = np.random.default_rng(0)
    for era in (2022, 2020, 2019):
        path = dump(tmp_path / "a.pkl", people, era)
        whole = np.frombuffer(path.read_bytes(), np.uint8)
        for _ in range(60):
            damaged = whole.copy()
            damaged[random.integers(0, len(whole), 3)] ^= np.uint8(1 << random.integers(0, 8))
            path.write_bytes(damaged.tobytes())
            try:
                for item in DumpFile(path):
                    item.read((32, 16))
            except ValueError:
                pass


def test_other_zip_files_are_not_dumps(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pkl", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    with pytest.raises(ValueError, match=r"a\.pkl: damaged, truncated, or not written by"):
        DumpFile(tmp_path / "a.pkl")
    with pytest.raises(FileNotFoundError):
        DumpFile(tmp_path / "b.pkl")


def test_a_dump_may_name_only_its_classes(tmp_path):
    with stand_in(CHART) as cls:
        chart = cls()
        chart.labels = torch.nn.Linear(1, 1)
        torch.save([entry("a", [[0, 0, 4, 4]], [0.9], [chart])], tmp_path / "a.pkl")
    with pytest.raises(
        ValueError, match=r"refused, it asks for .*torch\.nn\.modules\.linear\.Linear"
    ):
        DumpFile(tmp_path / "a.pkl")


@pytest.mark.parametrize("era", [2022, 2020])
def test_a_tensor_larger_than_its_memory_is_refused(tmp_path, era):
    """With strides of 0, 2 kB claim gigabytes, which a copy of the tensor would need."""
    with stand_in(CHART) as cls:
        chart = cls()
        chart.labels = torch.ones(1, dtype=torch.int64).expand(8000, 8000)
        chart.uv = torch.ones(1).expand(2, 8000, 8000)
        entries = [entry("a.jpg", [[0, 0, 8000, 8000]], [0.9], [chart])]
        if era == 2022:
            torch.save(entries, tmp_path / "a.pkl")
        else:
            (tmp_path / "a.pkl").write_bytes(pickle.dumps(entries))
    assert (tmp_path / "a.pkl").stat().st_size < 4000
    with pytest.raises(
        ValueError,
        match=r"entry 0 .*refused, a tensor \[8000, 8000\] claims .* but its storage has 8\)",
    ):
        list(DumpFile(tmp_path / "a.pkl"))
    entries = [{"file_name": "a", "scores": torch.ones(1).expand(10**9)}]
    torch.save(entries, tmp_path / "a.pkl")
    with pytest.raises(ValueError, match="1,000,000,000 scores, expected at most 1,000"):
        list(DumpFile(tmp_path / "a.pkl"))


@pytest.mark.parametrize(
    "change",
    [
        {"file_name": ["a.jpg"]},
        {"scores": torch.ones(1, 1)},
        {"scores": 0.9},
        {"scores": [0.9]},
        {"pred_boxes_XYXY": torch.ones(4)},
        {"pred_boxes_XYXY": torch.ones(1, 3)},
        {"pred_densepose": None},
        {"pred_densepose": []},
        {"pred_densepose": [5]},
    ],
    ids=str,
)
def test_malformed_entries_are_named(tmp_path, change):
    good = entry("a.jpg", [[0, 0, 4, 4]], [0.9], [])
    torch.save([good | change], tmp_path / "a.pkl")
    with pytest.raises(ValueError, match=r"a\.pkl: entry 0 is not a DensePose result \("):
        list(DumpFile(tmp_path / "a.pkl"))


def test_compressed_archives_are_refused(tmp_path):
    """torch.save does not compress; 1 MB of compressed zeros would be 1 GB in memory."""
    good = dump(tmp_path / "a.pkl", {"a.jpg": [(4.0, 3.0, 0.9, make_iuv(24, 8, 2))]}, 2022)
    with (
        zipfile.ZipFile(good) as stored,
        zipfile.ZipFile(tmp_path / "b.pkl", "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for member in stored.infolist():
            archive.writestr(member.filename, stored.read(member))
    with pytest.raises(ValueError, match=r"b\.pkl: refused, it asks for decompression"):
        DumpFile(tmp_path / "b.pkl")
    content = (tmp_path / "b.pkl").read_bytes()
    nested = pickle.dumps([Evil(torch.storage._load_from_bytes, content)])
    (tmp_path / "c.pkl").write_bytes(nested)
    with pytest.raises(
        ValueError, match=r"c\.pkl: refused, it asks for an archive within a pickle"
    ):
        DumpFile(tmp_path / "c.pkl")


def test_an_array_that_lies_about_its_size_is_refused(tmp_path):
    header = np.lib.format.magic(1, 0)
    text = json.dumps({"descr": "|u1", "fortran_order": False, "shape": "S"}).replace(
        "false", "False"
    )
    text = text.replace('"S"', f"({MAX_PIXELS}, 1000)").ljust(117) + "\n"
    content = header + len(text).to_bytes(2, "little") + text.encode()
    (tmp_path / "a.npy").write_bytes(content + b"\0" * 100)
    with pytest.raises(ValueError, match=r"a\.npy: damaged or truncated"):
        read_npy(tmp_path / "a.npy")


# What cannot be written


def run_script(iuv, market, out) -> int:
    arguments = ["--source", "densepose-iuv", "--iuv", iuv, "--images", market, "--out", out]
    return script("convert_masks").main([str(argument) for argument in arguments])


def test_output_folder_that_cannot_be_written_is_reported(tmp_path, capsys):
    market, iuv = make_market(tmp_path, ["0002_c1s1_000451_03"])
    (tmp_path / "file").write_text("not a folder")
    assert run_script(iuv, market, tmp_path / "file" / "market1501") == 2
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_locked_output_folder_is_reported(tmp_path, capsys):
    market, iuv = make_market(tmp_path, ["0002_c1s1_000451_03"])
    (tmp_path / "locked").mkdir(mode=0o500)
    if os.access(tmp_path / "locked", os.W_OK):
        pytest.skip("this user may write everywhere")
    assert run_script(iuv, market, tmp_path / "locked" / "market1501") == 2
    assert "Permission denied" in capsys.readouterr().err


@pytest.fixture
def small_disk(tmp_path):
    """A file system with a size of 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform != "linux" or libc.mount(b"none", bytes(folder), b"tmpfs", 0, b"size=64k"):
        pytest.skip(f"this user may mount no file system ({os.strerror(ctypes.get_errno())})")
    yield folder
    libc.umount2(bytes(folder), 2)


def test_full_disk_is_reported_and_leaves_nothing_half_written(tmp_path, small_disk, capsys):
    market, iuv = make_market(tmp_path, [f"{pid:04d}_c1s1_000001_01" for pid in range(40)])
    out = small_disk / "market1501"
    assert run_script(iuv, market, out) == 2
    printed = capsys.readouterr().err
    assert "No space left on device" in printed and "Free some space and run" in printed
    assert not list(out.rglob("*.part*"))
    done = list(out.rglob("*.png"))
    assert 0 < len(done) < 40
    fresh = tmp_path / "masks" / "market1501"
    convert(IuvFolder(iuv), market, fresh, progress=False)
    for path in done:
        assert path.read_bytes() == (fresh / path.relative_to(out)).read_bytes()
