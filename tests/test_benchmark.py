"""scripts/benchmark.py runs and compares; the times themselves are not tested."""

import os
import re
import sys

import pytest
from mask_inputs import PROJECT, script

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


@pytest.mark.slow
def test_training_compares_networks_with_plain_resnet(capsys):
    words = "training --height 64 --width 32 --batch 4 --rounds 1 --amp off bf16 --threads 1"
    models = "--models magnifiernet dsa_reid_resnet18"
    assert benchmark.main([*words.split(), *models.split()]) == 0
    text = capsys.readouterr().out
    tables = re.findall(r"^64 × 32, batch 4, (.*)$", text, re.M)
    assert [table.partition(",")[0] for table in tables] == ["float32", "bf16"]
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| ")]
    names = [row[0].strip() for row in rows if row[0].strip()]
    assert names == ["resnet50 (plain)", "magnifiernet", "dsa_reid_resnet18"] * 2
    values = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows[1:4]}
    assert values["resnet50 (plain)"][1] == values["resnet50 (plain)"][5] == "1.00 ×"
    assert float(values["magnifiernet"][5].split()[0]) == pytest.approx(1.23, abs=0.02)
    assert all(float(cells[-1]) > 0 for cells in values.values())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--batch 6", "--batch: expected a multiple of 4, got 6"),
        ("--device cuda", "--device cuda: no GPU was found"),
        ("--models magnifynet --batch 4", "magnifynet"),
        ("--amp half", "amp: expected one of"),
    ],
)
def test_training_that_cannot_be_measured(words, message, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    line = f"training --height 32 --width 16 --batch 4 --rounds 1 --no-memory {words}"
    assert benchmark.main(line.split()) == 2
    assert message in capsys.readouterr().err
