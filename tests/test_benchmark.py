"""scripts/benchmark.py runs and compares; the times themselves are not tested."""

import os
import re
import sys

import pytest
from mask_inputs import PROJECT, script
from PIL import Image

sys.path.insert(0, str(PROJECT / "scripts"))
from benchmarks import evaluation

benchmark = script("benchmark")


@pytest.mark.slow
def test_evaluation_prints_a_table_of_equal_metrics(capsys):
    assert benchmark.main(["evaluation", "--size", "120", "--dim", "32"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("20 queries, 100 gallery images, 32 dimensions")
    cells = {row[1].strip(): row[2:] for row in (line.split("|") for line in lines[4:])}
    for name in ("CMC and mAP", "re-ranking, distances included", "peak memory"):
        assert cells[name][2].strip().endswith("×")
    for name in ("mAP, rank-1", "mAP, rank-1, re-ranked"):
        assert cells[name][0] == cells[name][1]


@pytest.mark.slow
def test_growth_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "GROWTH", ("60", "90"))
    picture = tmp_path / "growth.png"
    assert benchmark.main(["evaluation", "--dim", "16", "--growth", str(picture)]) == 0
    assert picture.stat().st_size > 0


def test_torchreid_is_left_out_where_it_does_not_fit(capsys, monkeypatch):
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PAGE_SIZE": 2**12}.get(name, 2**22))
    assert not evaluation.too_large(evaluation.SIZES["market"])
    assert evaluation.too_large(evaluation.SIZES["msmt17"])
    assert "197 GiB needed, 16 available" in capsys.readouterr().out


@pytest.mark.parametrize("size", ["59", "duke", "-1"])
def test_bad_size(size, capsys):
    assert benchmark.main(["evaluation", "--size", size]) == 2
    assert f"at least 60 images, got {size!r}" in capsys.readouterr().err


def test_masks_prints_a_table_and_draws_people(tmp_path, capsys):
    picture = tmp_path / "people.png"
    size = ["--identities", "4", "--height", "64", "--width", "32"]
    assert benchmark.main(["masks", *size, "--seed", "2", "--picture", str(picture)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "16 images, 64 × 32"
    rows = [line.split("|")[1:-1] for line in lines[4:9]]
    assert [row[7].strip() == "none" for row in rows] == [True, True, True, False, False]
    assert all(len(row) == 10 and 0.4 < float(row[8]) < 0.95 for row in rows)
    with Image.open(picture) as image:
        assert image.size == (6 * 32, 2 * 64)
    assert benchmark.main(["masks", *size[:3], "5000"]) == 2
    assert "height: expected 64..4096" in capsys.readouterr().err


@pytest.mark.slow
def test_search_finds_what_faiss_finds(capsys, tmp_path):
    sizes = "--gallery 3000 --queries 5 --dim 16 --topk 3 --threads 1".split()
    assert benchmark.main(["search", *sizes, "--folder", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "5 queries, 3,000 gallery images, 16 dimensions, 3 neighbours; 1 threads" in shown
    assert re.search(r"\| one query \| [\d.]+ s \| [\d.]+ s \| [\d.]+ × \|", shown)
    share = float(re.search(r"in the same order: ([\d.]+)%", shown)[1])
    assert share > 90 and not list(tmp_path.iterdir())


def test_search_needs_faiss(capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert benchmark.main(["search"]) == 2
    assert "pip install faiss-cpu" in capsys.readouterr().err
