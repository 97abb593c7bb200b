"""Features and ids from files: good, damaged and malicious ones."""

import errno
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from magnifier_plugin.evaluation.features import load_features, load_ids

FEATURES = np.arange(12, dtype=np.float32).reshape(4, 3)


class TraceWriter:
    """A pickle that creates a file if it is opened without protection."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


def save(path, content):
    """Writes the content in the format of the path's suffix."""
    if path.suffix in (".pt", ".pth"):
        torch.save(content, path)
    elif path.suffix == ".npz":
        np.savez(path, **content)
    elif path.suffix == ".npy":
        np.save(path, content)
    else:
        path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "content", "key"),
    [
        ("f.npy", FEATURES, ""),
        ("f.npz", {"anything": FEATURES}, ""),
        ("f.npz", {"query": FEATURES, "gallery": FEATURES + 1}, ":query"),
        ("f.pt", torch.from_numpy(FEATURES), ""),
        ("f.pth", {"features": torch.from_numpy(FEATURES)}, ""),
        ("f.pt", {"q": torch.from_numpy(FEATURES), "epoch": 3}, ":q"),
        ("f:1.npy", FEATURES, ""),
        ("f.npy", FEATURES.astype(">f8"), ""),
    ],
)
def test_loads_features(tmp_path, name, content, key):
    path = save(tmp_path / name, content)
    np.testing.assert_array_equal(load_features(f"{path}{key}"), FEATURES)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", ["f.npy", "f.npz", "f.pt", "f.pth"])
@pytest.mark.parametrize("how", ["pickle", "numpy", "torch"])
def test_a_pickle_is_refused_and_not_run(tmp_path, name, how):
    trace, path = tmp_path / "opened", tmp_path / name
    with path.open("wb") as file:
        if how == "pickle":
            pickle.dump(TraceWriter(trace), file)
        elif how == "numpy":
            np.save(file, np.array([TraceWriter(trace)]), allow_pickle=True)
        else:
            torch.save(TraceWriter(trace), file)
    with pytest.raises(ValueError, match="pickle"):
        load_features(path)
    assert not trace.exists()


@pytest.mark.filterwarnings("ignore:Validating sparse:UserWarning")
@pytest.mark.filterwarnings("ignore:TypedStorage:UserWarning")
@pytest.mark.parametrize(
    ("name", "content", "key", "message"),
    [
        ("f.pkl", "", "", "expected a file that ends in .npy or .npz or .pt or .pth"),
        ("f.npz", {"a": FEATURES, "b": FEATURES}, "", "KEY with .*; it has a, b"),
        ("f.npz", {"a": FEATURES, "b": FEATURES}, ":c", "KEY with .*; it has a, b"),
        ("f.npy", FEATURES, ":a", "one array without a name, but got the key 'a'"),
        ("f.npy", np.array(["x"]), "", "expected an array of numbers, found <U1"),
        ("f.pt", {"epoch": 3}, "", "expected an array of numbers, found int"),
        ("f.pt", [FEATURES.tolist()], "", "expected an array of numbers, found list"),
        ("f.npy", FEATURES.astype(np.longdouble), "", "at most 64 bits, found .*astype"),
        ("f.pt", torch.eye(3).to_sparse(), "", "expected a dense tensor .* torch.sparse_coo"),
        ("f.pt", torch.empty(2, 3, device="meta"), "", "expected a dense tensor .* on meta"),
    ],
)
def test_bad_feature_files(tmp_path, name, content, key, message):
    path = save(tmp_path / name, content)
    with pytest.raises(ValueError, match=message):
        load_features(f"{path}{key}")


@pytest.mark.parametrize(
    ("name", "error"), [("f.npy", "ValueError"), ("f.npz", "BadZipFile"), ("f.pt", "RuntimeError")]
)
def test_damaged_feature_files(tmp_path, name, error):
    path = save(tmp_path / name, {"a": FEATURES} if name == "f.npz" else torch.from_numpy(FEATURES))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=rf"^{path}: expected plain numbers, .* \({error}: "):
        load_features(path)


def test_a_file_larger_than_the_memory_is_not_called_damaged(tmp_path):
    with (tmp_path / "f.npy").open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (2**45, 4)}
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(ValueError, match=r"f\.npy: expected .* fits into memory") as caught:
        load_features(tmp_path / "f.npy")
    assert "512. TiB" in str(caught.value) and "damaged" not in str(caught.value)


def test_torchs_error_of_too_little_memory(tmp_path, monkeypatch):
    def load(*_, **__):
        torch.empty(2**47)

    monkeypatch.setattr(torch, "load", load)
    path = save(tmp_path / "f.pt", torch.ones(2))
    with pytest.raises(ValueError, match="fits into memory, .* tried to allocate 5629"):
        load_features(path)


def test_an_error_of_the_disk_is_not_called_damage(tmp_path, monkeypatch):
    def load(*_, **__):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(np, "load", load)
    with pytest.raises(OSError, match="Input/output error"):
        load_features(save(tmp_path / "f.npy", FEATURES))


def test_missing_files(tmp_path):
    for load, name in ((load_features, "f.npy"), (load_ids, "ids.csv")):
        with pytest.raises(FileNotFoundError, match="no such file"):
            load(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "names"),
    [
        ("i.csv", "pid,camid\n3,0\n-1,1\n", None),
        (
            "i.csv",
            "\ufeffcamera, note, PID ,path\n0,x,3,a.jpg\n1,y,-1,b.jpg\n\n",
            ["a.jpg", "b.jpg"],
        ),
        ("i.csv", "pid;camid;name\n3;0;a,b.jpg\n-1;1;c.jpg\n", ["a,b.jpg", "c.jpg"]),
        ("i.csv", "pid\tcamid\n3\t0\n-1\t1\n", None),
        ("i.npz", {"pids": np.array([3, -1]), "camids": np.array([0, 1])}, None),
        ("i.npz", {"pid": np.array([3.0, -1.0]), "cam": np.array([0, 1], np.uint8)}, None),
        ("i.csv", "id,pid,camid,name\n7,3,0,0007\n8,-1,1,0008\n", ["0007", "0008"]),
    ],
)
def test_loads_ids(tmp_path, name, content, names):
    ids = load_ids(save(tmp_path / name, content))
    assert ids.pids.tolist() == [3, -1]
    assert ids.camids.tolist() == [0, 1]
    assert (ids.names if ids.names is None else ids.names.tolist()) == names


def test_ids_may_be_names(tmp_path):
    ids = load_ids(save(tmp_path / "i.csv", "pid,camid\nanna,door\n7,yard\n"))
    assert ids.pids.tolist() == ["anna", "7"]


@pytest.mark.parametrize("pid", ["1_23", "+123", "١٢٣", "9" * 5000])
def test_ids_that_python_alone_reads_as_numbers_stay_text(tmp_path, pid):
    content = {"pid": np.array([pid, "12_3"]), "camid": np.array([" 3", "-1 "])}
    ids = load_ids(save(tmp_path / "i.npz", content))
    assert ids.pids.tolist() == [pid, "12_3"]
    assert ids.camids.tolist() == [3, -1]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("i.txt", "", "expected a file that ends in .csv or .npz"),
        ("i.csv", "", "expected pid"),
        ("i.csv", "3,0\n4,1\n", "expected pid, found only 3, 0"),
        ("i.csv", "pid,frame\n3,0\n", "expected camid, found only pid, frame"),
        ("i.csv", "pid,camid\n", "no rows"),
        (
            "i.csv",
            "pid,camid\n3,0\n4\n",
            "line 3: expected 2 fields as in the header, found 1",
        ),
        ("i.npz", {"pid": np.arange(2)}, "expected camid, found only pid"),
        ("i.npz", {"pid": np.arange(2), "camid": np.arange(3)}, r"different lengths: \[2, 3\]"),
        (
            "i.csv",
            f"pid,camid\n3,0\n{10**19},1\n",
            r"pid: .* 64-bit integers, found 1000+ in row 1",
        ),
        ("i.csv", f"pid,camid\n3,{10**29}\n", r"camid: .* 64-bit integers, found 1000+ in row 0"),
        ("i.csv", f"pid,camid,name\n3,0,{'x' * 5000}\n", "name: expected at most 4096 .* 5000"),
        ("i.csv", f"pid,camid,name\n3,0,{'x' * 140_000}\n", "after line 2 .field larger than"),
        ("i.npz", {"pid": np.array([1, 2**63], np.uint64), "camid": np.arange(2)}, "found 9223"),
        ("i.npz", {"pid": np.array([1, np.nan]), "camid": np.arange(2)}, "found nan in row 1"),
        ("i.npz", {"pid": np.array([0.5, 2]), "camid": np.arange(2)}, "pid: .* found 0.5 in row 0"),
        ("i.npz", {"pid": np.zeros((2, 1), int), "camid": np.arange(2)}, r"found int64 \[2, 1\]"),
        ("i.npz", {"pid": np.array(3), "camid": np.arange(1)}, r"pid: .* found int64 \[\]"),
        ("i.npz", {"pid": np.zeros(2, complex), "camid": np.arange(2)}, "found complex128"),
    ],
)
def test_bad_id_files(tmp_path, name, content, message):
    path = save(tmp_path / name, content)
    with pytest.raises(ValueError, match=message) as raised:
        load_ids(path)
    assert str(path) in str(raised.value)


def test_an_npy_file_with_the_suffix_npz(tmp_path):
    save(tmp_path / "i.npy", np.arange(3)).rename(tmp_path / "i.npz")
    with pytest.raises(ValueError, match="expected arrays named pid and camid, found one"):
        load_ids(tmp_path / "i.npz")


def test_a_csv_file_in_latin_1_is_named(tmp_path):
    path = tmp_path / "i.csv"
    path.write_bytes("pid,camid,name\n3,0,café\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"i.csv: expected CSV in UTF-8.* 0xe9"):
        load_ids(path)
