"""scripts/extract.py and scripts/search.py, from a folder of photos to features and a page."""

import importlib.util
import json
import re
import shutil

import numpy as np
import pytest
import torch
from conftest import painted, person
from mask_inputs import script
from test_retrieval import NORM, save_checkpoint, tiny_backbone  # noqa: F401

from magnifier_plugin.evaluation.features import load_features
from magnifier_plugin.evaluation.rerank import rerank
from magnifier_plugin.evaluation.scaling import l2_normalise

extract, search = script("extract"), script("search")
HERE = "use_gpu False test.amp off".split()
# The last byte of the first name is not UTF-8.
NAMES = (
    *("\udcfc.jpg", "quote'\"_c2.jpg", "</script><b>/ü_c1.jpg", "a.jpg", "b/c.PNG", "b/d.jpg"),
    *("b/broken.jpg",),
)
BROKEN = "b/broken.jpg"


@pytest.fixture
def files(tmp_path):
    """Photos, one of which does not decode, two queries and weights."""
    rng = np.random.default_rng(0)
    for folder, names in (("photos", NAMES), ("queries", ("x.jpg", "y.jpg"))):
        for name in names:
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            painted(person(rng, 64, 32)).save(path)
    (tmp_path / "photos" / BROKEN).write_bytes(b"no image")
    (tmp_path / "photos" / "notes.txt").write_text("no image either")
    (tmp_path / "empty").mkdir()
    save_checkpoint(tmp_path / "w.pth.tar", *NORM, "test.normalize_feature", "True")
    return tmp_path


def run_extract(files, *more, folder="photos"):
    options = [
        "--weights",
        files / "w.pth.tar",
        "--out",
        files / "f.npz",
        "--workers",
        0,
        *more,
        *HERE,
    ]
    return extract.main(list(map(str, [files / folder, *options])))


def run_search(files, *more, gallery="photos", query="queries", out="page.html"):
    options = ["--weights", files / "w.pth.tar", "--gallery", files / gallery]
    options += ["--query", files / query, "--out", files / out, "--workers", 0, *more, *HERE]
    return search.main(list(map(str, options)))


def page_data(path):
    return json.loads(re.search(r'application/json">(.*?)</script>', path.read_text())[1])


def test_extract_writes_features_of_readable_images(files, capsys, caplog):
    assert run_extract(files) == 0
    assert "6 images, 1 left out, 64 dimensions" in capsys.readouterr().out
    assert f"Left out: {files / 'photos' / BROKEN}: expected an image" in caplog.text
    with np.load(files / "f.npz") as content:
        assert set(content["name"]) == set(NAMES) - {BROKEN} and "pid" not in content
    assert load_features(files / "f.npz").shape == (6, 64)


def test_flags_arrive(files):
    assert run_extract(files) == 0
    plain = load_features(files / "f.npz")
    assert run_extract(files, "--flip") == 0
    assert not torch.equal(load_features(files / "f.npz"), plain)
    assert run_extract(files, "--batch-size", "1", "data.height", "64") == 0
    assert not torch.equal(load_features(files / "f.npz"), plain)
    config = files / "c.yaml"
    config.write_text("data: {norm_mean: [0.9, 0.9, 0.9]}")
    assert run_extract(files, "--config-file", config) == 0
    assert not torch.equal(load_features(files / "f.npz"), plain)


def test_features_are_searched_as_the_folder_is(files, capsys):
    assert run_search(files, out="folder.html") == 0
    assert "2 queries, 6 gallery images" in capsys.readouterr().out
    assert run_extract(files) == 0
    assert run_search(files, gallery="f.npz") == 0
    one, other = (page_data(files / name) for name in ("folder.html", "page.html"))
    for query, same in zip(one["queries"], other["queries"], strict=True):
        assert query == same
    assert [image[:3] for image in one["images"]] == [image[:3] for image in other["images"]]
    names = {name for name, *_ in one["images"]}
    assert names == {"x.jpg", "y.jpg", *NAMES} - {BROKEN}


def test_the_page_ranks_by_distance(files):
    assert run_search(files, "--topk", "2", "--depth", "4") == 0
    data = page_data(files / "page.html")
    assert (data["topk"], data["gallery"]) == (2, 6)
    assert run_extract(files) == 0
    gallery = l2_normalise(load_features(files / "f.npz"))
    with np.load(files / "f.npz") as content:
        names = content["name"].tolist()
    assert run_extract(files, folder="queries") == 0
    queries = l2_normalise(load_features(files / "f.npz"))
    for row, query in enumerate(data["queries"]):
        distances = (queries[row] - gallery).square().sum(1)
        order = distances.argsort()[:4]
        found = [data["images"][place][0] for place in query["hits"]]
        assert found == [names[n] for n in order] and len(query["cosines"]) == 2
        assert query["plain"] is None
        np.testing.assert_allclose(query["distances"], distances[order], rtol=1e-3, atol=1e-5)


def test_rerank_and_one_query_that_is_in_the_gallery(files):
    assert run_search(files, "--rerank", query="photos/a.jpg") == 0
    (query,) = page_data(files / "page.html")["queries"]
    assert len(query["hits"]) == 5 and len(query["plain"]) == 5
    assert run_extract(files) == 0
    features = l2_normalise(load_features(files / "f.npz"))
    with np.load(files / "f.npz") as content:
        row = content["name"].tolist().index("a.jpg")
    expected = rerank(features[row : row + 1], features, 6, 6)[0]
    others = sorted(float(value) for n, value in enumerate(expected) if n != row)
    np.testing.assert_allclose(query["distances"], others, rtol=1e-3)


def test_keys_of_the_comparison_arrive(files):
    distances = []
    for pairs in ([], ["test.dist_metric", "cosine"], ["test.normalize_feature", "False"]):
        assert run_search(files, "-a", "magnifiernet", *pairs) == 0
        distances.append(page_data(files / "page.html")["queries"][0]["distances"])
    assert distances[0] != distances[1] != distances[2] != distances[0]


def test_moved_images_are_found_again(files, capsys):
    assert run_extract(files) == 0
    (files / "photos").rename(files / "moved")
    assert run_search(files, gallery="f.npz") == 2
    assert "give their folder with --images FOLDER" in capsys.readouterr().err
    assert run_search(files, "--images", files / "moved", gallery="f.npz") == 0


def test_features_of_other_weights_are_refused(files, capsys):
    assert run_extract(files) == 0
    save_checkpoint(files / "w.pth.tar", *NORM, seed=1)
    assert run_search(files, gallery="f.npz") == 2
    assert "features of another network or other settings: weights" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gallery": "empty"}, "empty: no images found"),
        ({"gallery": "none"}, "none: expected a folder of images, found no such folder"),
        ({"gallery": "none.npz"}, "none.npz: expected a file of scripts/extract.py"),
        ({"query": "empty"}, "empty: no images found"),
        ({"query": "none.jpg"}, "none.jpg: expected an image or a folder of images"),
        ({"query": f"photos/{BROKEN}"}, "none of 1 images can be read"),
    ],
)
def test_search_says_what_is_missing(files, capsys, changes, message):
    assert run_search(files, **changes) == 2
    error = capsys.readouterr().err
    assert error.startswith("search.py: ") and message in error
    assert not (files / "page.html").exists()


def test_extract_says_what_is_wrong(files, capsys):
    assert run_extract(files, folder="empty") == 2
    assert "empty: no images found" in capsys.readouterr().err
    assert run_extract(files, "-a", "osnet_x0_25") == 2
    assert "the file belongs to another model, or to other options" in capsys.readouterr().err
    assert run_extract(files, "train.lr", "1") == 2
    assert "train.lr: has no effect here" in capsys.readouterr().err
    assert run_extract(files, "test.dist_metric", "cosine") == 2
    assert "test.dist_metric: has no effect here" in capsys.readouterr().err
    assert not (files / "f.npz").exists()


@pytest.mark.parametrize("flag", ["--out", "--faiss"])
def test_extract_refuses_a_file_that_cannot_be_written_at_once(files, capsys, monkeypatch, flag):
    monkeypatch.setattr(extract, "load_network", None)
    (files / "file").touch()
    assert run_extract(files, flag, files / "file" / "f.npz") == 2
    assert "file: expected a folder to write to" in capsys.readouterr().err


def test_search_refuses_a_page_that_cannot_be_written_at_once(files, capsys, monkeypatch):
    monkeypatch.setattr(search, "load_network", None)
    (files / "file").touch()
    assert run_search(files, out="file/page.html") == 2
    assert "file: expected a folder to write to" in capsys.readouterr().err


def test_without_faiss_an_index_is_refused_before_the_work(files, capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert run_extract(files, "--faiss", files / "i.faiss") == 2
    assert "pip install faiss-cpu" in capsys.readouterr().err
    assert not (files / "f.npz").exists()


@pytest.mark.parametrize("normalise", ["True", "False"])
def test_a_faiss_index_has_the_rows_of_the_file(files, normalise):
    faiss = pytest.importorskip("faiss")
    index = files / "made" / "i.faiss"
    assert run_extract(files, "--faiss", index, "test.normalize_feature", normalise) == 0
    found = faiss.read_index(str(index))
    features = load_features(files / "f.npz")
    features = l2_normalise(features) if normalise == "True" else features
    np.testing.assert_array_equal(found.reconstruct_n(0, 6), features)
    distances, rows = found.search(features.numpy()[:2], 1)
    assert rows.ravel().tolist() == [0, 1] and np.abs(distances).max() < 1e-3


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        (extract, "photos --weights w", "arguments are required: --out"),
        (extract, "photos --weights w --out f.csv", "--out: expected a .npz file"),
        (extract, "--weights w --out f.npz", "required: FOLDER"),
        (extract, "p --weights w --out f.npz --batch-size 0", "at least 1, got '0'"),
        (extract, "p --weights w --out f.npz test.amp on --flip x", "expected flags before"),
        (search, "--weights w --query q --out p.html", "required: --gallery"),
        (search, "--weights w --gallery g --out p.html", "required: --query"),
        (search, "--gallery g --query q --out p.html", "required: --weights"),
        (search, "--weights w --gallery g --query q --out p.txt", "expected a .html file"),
        (search, "--weights w --gallery g --query q --out p.html --images i", "--images: has no"),
        (search, "--weights w --gallery g --query q --out p.html --topk 0", "at least 1, got '0'"),
        (
            search,
            "--weights w --gallery g --query q --out p.html test.rerank_k1 7",
            "test.rerank_k1: has no effect without --rerank",
        ),
    ],
)
def test_wrong_command_lines(module, arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        module.main(arguments.split())
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--out f.npz --faiss f.npz", "--faiss: {0}/f.npz is the file of --out, which it would"),
        ("--out f.npz --faiss w", "--faiss: {0}/w is the file of --weights, which it would"),
        ("--out f.npz --faiss link", "--faiss: {0}/link is the file of --weights, which it would"),
        ("--out f.npz --faiss c.yaml", "--faiss: {0}/c.yaml is the file of --config-file, which"),
        ("--out f.npz --faiss photos", "--faiss: expected a file to write, got the folder"),
        ("--out link.npz", "--out: {0}/link.npz is the file of --weights, which it would"),
        ("--out d.npz", "--out: expected a file to write, got the folder"),
    ],
)
def test_extract_overwrites_no_file_of_its_own(tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w").touch()
    for name in ("link", "link.npz"):
        (tmp_path / name).symlink_to("w")
    for name in ("photos", "d.npz"):
        (tmp_path / name).mkdir()
    with pytest.raises(SystemExit, match="2"):
        extract.main(f"photos --weights w --config-file c.yaml {options}".split())
    assert message.format(tmp_path) in capsys.readouterr().err


def test_a_key_ends_the_flags_after_a_switch():
    args = search.parse(
        "--weights w --gallery g --query q --out p.html --rerank test.flip 1".split()
    )
    assert args.rerank and args.pairs == ["test.flip", "1"]
    args = extract.parse("my.photos --weights w --out f.npz --flip test.amp on".split())
    assert args.folder.name == "my.photos" and args.flip and args.pairs == ["test.amp", "on"]


def test_a_missing_image_is_grey(files, caplog):
    assert run_extract(files) == 0
    shutil.rmtree(files / "photos" / "b")
    assert run_search(files, gallery="f.npz") == 0
    assert "Missing: 2 of 6 images, such as" in caplog.text
