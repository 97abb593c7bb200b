"""scripts/rerank.py: features and ids of any toolbox → metrics and a ranking file."""

import csv
import re

import numpy as np
import pytest
import torch
from mask_inputs import script

from magnifier_plugin.evaluation.features import Ids
from magnifier_plugin.evaluation.ranking import evaluate_ranking
from magnifier_plugin.evaluation.ranking_file import write_ranking
from magnifier_plugin.evaluation.rerank import rerank

main = script("rerank").main


class Files:
    """Features and ids of a small problem on disk."""

    def __init__(self, folder):
        rng = np.random.default_rng(0)
        self.folder = folder
        centres = rng.normal(size=(6, 8))
        self.pids = np.arange(10) % 6, np.arange(40) % 5
        self.features = [
            (centres[pids] + rng.normal(size=(len(pids), 8))).astype(np.float32)
            for pids in self.pids
        ]
        self.camids = np.zeros(10, int), rng.integers(0, 2, 40)
        for name, features, pids, camids in zip(
            ("query", "gallery"), self.features, self.pids, self.camids, strict=True
        ):
            np.save(folder / f"{name}.npy", features)
            ids = enumerate(zip(pids, camids, strict=True))
            rows = [f"{pid},{camid},{name}{i}" for i, (pid, camid) in ids]
            (folder / f"{name}.csv").write_text("\n".join(["pid,camid,name", *rows]))

    def arguments(self, **changes):
        names = {
            "query": "query.npy",
            "gallery": "gallery.npy",
            "query-ids": "query.csv",
            "gallery-ids": "gallery.csv",
        }
        files = [(f"--{flag}", str(self.folder / name)) for flag, name in (names | changes).items()]
        return [word for pair in files for word in pair]


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


def test_script_prints_metrics_and_writes_the_ranking(files, capsys):
    out = files.folder / "made" / "ranking.csv"
    assert main([*files.arguments(), "--k1", "6", "--out", str(out), "--top", "5"]) == 0
    shown = capsys.readouterr().out

    normalised = [f / np.linalg.norm(f, axis=1, keepdims=True) for f in files.features]
    distmat = rerank(*normalised, k1=6)
    ranking = evaluate_ranking(distmat, *files.pids, *files.camids, max_rank=20)
    assert f"| re-ranked | {100 * ranking.mAP:.2f} | {100 * ranking.mINP:.2f} |" in shown
    assert "Queries without a match, left out: 1 whose identity is not in the gallery" in shown

    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10 * 5
    first = [row for row in rows if row["query"] == "query0"]
    assert [row["rank"] for row in first] == ["1", "2", "3", "4", "5"]
    kept = (files.pids[1] != 0) | (files.camids[1] != 0)
    order = [i for i in np.argsort(distmat[0], kind="stable") if kept[i]][:5]
    assert [row["gallery"] for row in first] == [f"gallery{i}" for i in order]
    assert [row["match"] for row in first] == [str(int(files.pids[1][i] == 0)) for i in order]
    np.testing.assert_allclose([float(row["distance"]) for row in first], distmat[0, order], 1e-5)


def test_script_without_ids_writes_rows_by_number(files):
    out = files.folder / "ranking.csv"
    arguments = files.arguments()[:4]
    assert main([*arguments, "--k1", "6", "--out", str(out), "--top", "1"]) == 0
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["query"] for row in rows] == [str(i) for i in range(10)]
    assert {row["match"] for row in rows} == {""}


def test_ranking_file_breaks_ties_by_row_and_leaves_out_the_querys_camera(tmp_path):
    distmat = torch.zeros(1, 60)
    distmat[0, 50:] = -1
    ids = [np.array([1]), np.array([0])], [np.arange(60) % 2, np.arange(60) % 3]
    query, gallery = (Ids(*columns, None) for columns in ids)
    write_ranking(tmp_path / "r.csv", distmat, query, gallery, top=60)
    with (tmp_path / "r.csv").open() as file:
        rows = list(csv.DictReader(file))
    order = [i for i in (*range(50, 60), *range(50)) if not (i % 2 == 1 and i % 3 == 0)]
    assert [int(row["gallery"]) for row in rows] == order
    assert [int(row["match"]) for row in rows] == [i % 2 for i in order]


def test_ranking_file_keeps_names_that_are_not_unicode(tmp_path):
    ids = Ids(np.array([1]), np.array([0]), np.array(["\udcfc.jpg"]))
    other = Ids(np.array([1]), np.array([1]), np.array(["b/ü.jpg"]))
    write_ranking(tmp_path / "r.csv", torch.zeros(1, 1), ids, other)
    line = (tmp_path / "r.csv").read_bytes().splitlines()[1]
    assert line == b"\xfc.jpg,1,b/\xc3\xbc.jpg,0,1"


def test_a_query_without_gallery_images_has_no_row(tmp_path):
    ids = Ids(np.array([1]), np.array([0]), None), Ids(np.array([1, 1]), np.array([0, 0]), None)
    write_ranking(tmp_path / "r.csv", torch.zeros(1, 2), *ids)
    assert (tmp_path / "r.csv").read_text() == "query,rank,gallery,distance,match\n"


@pytest.mark.parametrize("names", [True, False])
def test_script_leaves_out_junk(files, capsys, names):
    """The metrics are those without the images of identity -1; row numbers do not change."""
    junk = [np.arange(len(pids)) % 5 == 2 for pids in files.pids]
    for name, pids, camids, chosen in zip(
        ("query", "gallery"), files.pids, files.camids, junk, strict=True
    ):
        marked = np.where(chosen, -1, pids)
        rows = [
            f"{pid},{camid}" + f",{name}{i}" * names
            for i, (pid, camid) in enumerate(zip(marked, camids, strict=True))
        ]
        (files.folder / f"{name}.csv").write_text("\n".join(["pid,camid" + ",name" * names, *rows]))
    out = files.folder / "ranking.csv"
    assert main([*files.arguments(), "--k1", "6", "--out", str(out), "--top", "50"]) == 0
    shown = capsys.readouterr().out
    assert "query.csv: 2 images of identity -1 (junk) left out, as in torchreid" in shown
    assert "gallery.csv: 8 images of identity -1 (junk) left out" in shown
    kept = [~chosen for chosen in junk]
    parts = [
        (features / np.linalg.norm(features, axis=1, keepdims=True))[rows]
        for features, rows in zip(files.features, kept, strict=True)
    ]
    ids = [
        column[kept[side]]
        for pair in (files.pids, files.camids)
        for side, column in enumerate(pair)
    ]
    ranking = evaluate_ranking(rerank(*parts, k1=6), *ids, max_rank=20)
    assert f"| re-ranked | {100 * ranking.mAP:.2f} | {100 * ranking.mINP:.2f} |" in shown
    with out.open() as file:
        rows = list(csv.DictReader(file))
    for column, remaining in zip(("query", "gallery"), kept, strict=True):
        expected = {f"{column * names}{i}" for i in np.flatnonzero(remaining)}
        assert {row[column] for row in rows} == expected


def test_script_refuses_ids_that_are_all_junk(files, capsys):
    rows = "\n".join(["pid,camid", *["-1,0"] * 10])
    (files.folder / "query.csv").write_text(rows)
    assert main(files.arguments()) == 2
    assert "query.csv: expected images of other identities than -1" in capsys.readouterr().err


def test_script_measures_cuhk03(files, capsys):
    assert main([*files.arguments(), "--k1", "6", "--cuhk03"]) == 0
    assert "| re-ranked |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"query-ids": "gallery.csv"}, [], "40 rows, but .* has features of 10 images"),
        ({"gallery-ids": "query.csv"}, [], "10 rows, but .* has features of 40 images"),
        ({"query": "missing.npy"}, [], "missing.npy: no such file"),
        ({"query": "nan.npy"}, [], "query features: NaN or infinity in 1 of 10 rows: 3"),
        ({"gallery": "pickle.npy"}, [], "such a pickle is not opened"),
        ({}, ["--k1", "50"], r"k1: expected 1..49"),
        ({}, ["--lambda", "2"], r"lambda_value: expected 0..1"),
    ],
)
def test_script_says_what_is_wrong(files, capsys, changes, options, message):
    bad = files.features[0].copy()
    bad[3, 2] = np.nan
    np.save(files.folder / "nan.npy", bad)
    np.save(files.folder / "pickle.npy", np.array([{}]), allow_pickle=True)
    assert main([*files.arguments(**changes), *options]) == 2
    stderr = capsys.readouterr().err
    assert stderr.startswith("rerank.py: ") and stderr.count("\n") == 1
    assert re.search(message, stderr)


@pytest.mark.parametrize("changed", ["c1", "1.0"])
def test_ids_that_could_never_be_equal_are_refused(files, capsys, changed):
    text = (files.folder / "query.csv").read_text().splitlines()
    text[3] = f"{text[3].split(',')[0]},{changed},query2"
    (files.folder / "query.csv").write_text("\n".join(text))
    assert main(files.arguments()) == 2
    assert re.search("query.csv: camids are text .* in .*gallery.csv", capsys.readouterr().err)


def test_default_k1_fits_few_images(files, tmp_path):
    for name in ("query", "gallery"):
        np.save(tmp_path / f"{name}.npy", np.eye(5, dtype=np.float32))
    few = [f"{tmp_path}/query.npy", "--gallery", f"{tmp_path}/gallery.npy"]
    assert main(["--query", *few, "--out", f"{tmp_path}/r.csv"]) == 0
    assert main(["--query", *few, "--out", f"{tmp_path}/r.csv", "--k1", "20"]) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--top", "0"], "--top: expected a whole number, at least 1, got '0'"),
        (["--cuhk03", "--seed", "-5"], "--seed: expected a whole number, at least 0, got '-5'"),
        (["--out", "query.npy"], "--out: expected a .csv file"),
        (["--top", "3", "--out="], "--top: has no effect without --out"),
        (["--seed", "4"], "--seed: has no effect without --cuhk03"),
        (
            ["--cuhk03", "--query-ids=", "--gallery-ids=", "--out=r.csv"],
            "--cuhk03: has no effect without ids",
        ),
        (["--out", "IDS"], "query.csv is an input"),
    ],
)
def test_script_refuses_at_once(files, capsys, options, message):
    arguments = files.arguments()
    for word in [word for word in options if word.endswith("=")]:  # without this flag
        options = [other for other in options if other != word]
        if (flag := word[:-1]) in arguments:
            place = arguments.index(flag)
            arguments = arguments[:place] + arguments[place + 2 :]
    options = [files.folder / "query.csv" if word == "IDS" else word for word in options]
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, *map(str, options)])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_paths_in_the_home_folder(files, tmp_path, monkeypatch):
    """The shell leaves the ~ of --out=~/FILE as it is."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert main([*files.arguments(), "--out=~/ranking.csv"]) == 0
    assert (tmp_path / "home/ranking.csv").is_file() and not (tmp_path / "~").exists()


def test_a_gpu_that_is_not_there(files, monkeypatch, capsys):
    """torch without CUDA raises an AssertionError."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main([*files.arguments(), "--device", "cuda"]) == 2
    assert "rerank.py: --device cuda: no GPU was found" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["--query-ids", "--gallery-ids"])
def test_only_one_ids_file_is_an_error(files, missing):
    arguments = files.arguments()
    place = arguments.index(missing)
    with pytest.raises(SystemExit) as stopped:
        main(arguments[:place] + arguments[place + 2 :])
    assert stopped.value.code == 2


def test_an_interrupted_ranking_file_leaves_the_old_one(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("old")
    ids = Ids(np.array([1]), np.array([0]), None), Ids(np.array([1]), np.array([0]), None)
    with pytest.raises(IndexError):
        write_ranking(path, torch.zeros(2, 1), *ids)  # two rows, ids of one
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]
