"""The file that extract.py writes, and that rerank.py and search.py read."""

from pathlib import Path

import numpy as np
import pytest
from full_disk import on_full_disk

from magnifier_plugin.evaluation.feature_file import (
    ImageFeatures,
    read_feature_file,
    write_feature_file,
)
from magnifier_plugin.evaluation.features import load_features, load_ids

# Python represents a byte of a file name that is not UTF-8 by a lone surrogate.
NAMES = ["a/Jürgen.jpg", "quote'\"<b>.jpg", "\udce4.jpg"]
IDENTITY = {"model": "m", "weights": "1a", "size": [32, 16]}


def images(names=NAMES):
    features = np.random.default_rng(0).normal(size=(len(names), 4)).astype(np.float32)
    return ImageFeatures(features, list(names), Path("/photos"), IDENTITY)


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "made" / "features.npz"
    write_feature_file(path, images())
    found = read_feature_file(path)
    np.testing.assert_array_equal(found.features, images().features)
    assert found[1:] == (NAMES, Path("/photos"), IDENTITY)
    assert found.paths[0] == Path("/photos/a/Jürgen.jpg")
    assert [file.name for file in path.parent.iterdir()] == ["features.npz"]


def test_on_a_full_disk_the_error_gives_path_and_free_space(tmp_path):
    path = tmp_path / "features.npz"

    def write():
        with pytest.raises(OSError) as caught:
            write_feature_file(path, images())
        return str(caught.value)

    message = on_full_disk(write, 300)
    assert f"{path}: not saved (File too large" in message and "MB are free" in message
    assert list(tmp_path.iterdir()) == []


def test_other_tools_read_features_and_ids(tmp_path):
    path = tmp_path / "features.npz"
    write_feature_file(path, images(["x/0002_c1s1_000451_03.jpg", "-1_c6s2_000001_00.jpg"]))
    np.testing.assert_array_equal(load_features(path), images(["a", "b"]).features)
    ids = load_ids(path)
    assert (ids.pids.tolist(), ids.camids.tolist()) == ([2, -1], [1, 6])
    assert ids.names.tolist() == ["x/0002_c1s1_000451_03.jpg", "-1_c6s2_000001_00.jpg"]
    for other in ("holiday.jpg", f"{10**30}_c1.jpg"):
        write_feature_file(path, images(["0002_c1s1_000451_03.jpg", other]))
        with pytest.raises(ValueError, match="expected pid, found only features, name, about"):
            load_ids(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": None}, "with the arrays features, name and about; found features, about"),
        ({"name": np.array(["a.jpg"])}, r"expected features \[N, D\] and names \[N\]"),
        ({"name": np.arange(3)}, r"expected features \[N, D\] and names \[N\]"),
        ({"features": np.zeros(3)}, r"expected features \[N, D\]"),
        ({"features": np.array(["a"] * 3)}, "expected an array of numbers"),
        ({"about": np.array("[]")}, "about as scripts/extract.py writes it; extract it again"),
        ({"about": np.array("{")}, "about as scripts/extract.py writes it"),
        ({"about": np.array('{"folder": "/", "identity": 1}')}, "about as scripts/extract.py"),
        ({"name": np.array(["a", "b/../../x", "c"])}, "refused, the image's name 'b/../../x'"),
        ({"name": np.array(["a", "/etc/x", "c"])}, "refused, the image's name '/etc/x'"),
    ],
)
def test_other_files_are_refused(tmp_path, changes, message):
    path = tmp_path / "features.npz"
    write_feature_file(path, images(["a.jpg", "b.jpg", "c.jpg"]))
    arrays = {**np.load(path), **changes}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(ValueError, match=message):
        read_feature_file(path)


def test_damaged_and_missing_files(tmp_path):
    path = tmp_path / "features.npz"
    with pytest.raises(FileNotFoundError, match=r"expected a file of scripts/extract\.py"):
        read_feature_file(path)
    path.write_bytes(b"PK")
    with pytest.raises(ValueError, match="found a damaged file"):
        read_feature_file(path)
    np.savez(path, name=np.array([{}]), allow_pickle=True)
    with pytest.raises(ValueError, match="expected a file|damaged file or a pickle"):
        read_feature_file(path)
