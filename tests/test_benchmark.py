"""scripts/benchmark.py runs and compares; the times themselves are not tested."""

import os
import re
import sys

import pytest
import torchreid
from mask_inputs import PROJECT, script
from PIL import Image
from torch import nn

sys.path.insert(0, str(PROJECT / "scripts"))
from benchmarks import evaluation, models

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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("evaluation --size 60 --only --dim 0", "--dim: expected a whole number, at least 1"),
        ("loading --images 129", "--images: expected a whole number, 1..128, got '129'"),
        ("loading --passes 0", "--passes: expected a whole number, at least 1"),
        ("pooling --repeats 0", "--repeats: expected a whole number, at least 1"),
        ("search --threads 0", "--threads: expected a whole number, at least 1"),
    ],
)
def test_numbers_that_cannot_be_measured(words, message, capsys):
    with pytest.raises(SystemExit):
        benchmark.main(words.split())
    assert message in capsys.readouterr().err


def test_what_is_refused_before_the_measurements(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.evaluation.in_own_process", None)
    (tmp_path / "file").touch()
    for words, message in (
        (f"evaluation --growth {tmp_path}/g.txt", "expected a .png file"),
        (f"evaluation --growth {tmp_path}/file/g.png", "found a file there"),
    ):
        assert benchmark.main(words.split()) == 2
        assert message in capsys.readouterr().err
    pytest.importorskip("faiss")
    small = "search --gallery 3 --dim 4 --queries 1"
    for words, message in (
        (f"{small} --topk 4", "--topk: expected at most --gallery 3, got 4"),
        (f"{small} --topk 1 --folder {tmp_path}/none", "No such file or directory"),
    ):
        assert benchmark.main(words.split()) == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_training_compares_networks_with_plain_resnet(capsys):
    words = "training --size 64x32 --batch 4 --rounds 1 --amp off bf16 --threads 1"
    models = "--models magnifiernet dsa_reid_resnet18"
    assert benchmark.main([*words.split(), *models.split()]) == 0
    text = capsys.readouterr().out
    tables = re.findall(r"^64 × 32, batch 4, (.*)$", text, re.M)
    assert [table.partition(",")[0] for table in tables] == ["float32", "bf16"]
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if row[0].strip(" -")]
    names = [row[0].strip() for row in rows]
    assert names == ["resnet50 (plain)", "magnifiernet", "dsa_reid_resnet18"] * 2
    values = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows[:3]}
    assert values["resnet50 (plain)"][1] == values["resnet50 (plain)"][5] == "1.00 ×"
    # For an image this small, the classifiers and the GRU are a large part of the work.
    assert values["magnifiernet"][5] == "1.45 ×"
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
    line = f"training --size 32x16 --batch 4 --rounds 1 --no-memory {words}"
    assert benchmark.main(line.split()) == 2
    assert message in capsys.readouterr().err


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
    assert "5 queries, 3,000 gallery images, 16 dimensions, 3 neighbours; 1 thread on" in shown
    assert re.search(r"\| one query \| [\d.]+ s \| [\d.]+ s \| [\d.]+ × \|", shown)
    share = float(re.search(r"at the same rank: ([\d.]+)%", shown)[1])
    assert share > 90 and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_loading_compares_with_torchreid(capsys):
    assert benchmark.main(["loading", "--images", "16", "--passes", "1"]) == 0
    header, _, *rows = capsys.readouterr().out.splitlines()[:5]
    assert len(header.split("|")) == 9
    assert [row.split("|")[1].strip() for row in rows] == ["96 × 48", "256 × 128", "384 × 192"]
    ratios = [[float(x) for x in re.findall(r"\(([\d.]+) ×\)", row)] for row in rows]
    assert all(row[0] == 1.0 and len(row) == 6 and min(row) > 0 for row in ratios)
    assert all(cached > masked for *_, masked, cached in ratios)


def test_search_needs_faiss(capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert benchmark.main(["search"]) == 2
    assert "pip install faiss-cpu" in capsys.readouterr().err


class Recurrent(nn.Module):
    """Two steps of a GRU of width 6 on the image's first pixels, and an unused layer."""

    def __init__(self):
        super().__init__()
        self.cell = nn.GRU(6, 6, batch_first=True)
        self.classifier = nn.Linear(6, 100)

    def forward(self, images):
        outputs, _ = self.cell(images[:, 0, :2, :6])
        self.classifier(outputs[:, -1])
        return outputs[:, -1]


class TestModels:
    def test_counts_of_a_recurrent_network(self):
        facts = models.count(Recurrent(), (8, 8))
        assert facts == models.Facts(
            training=2 * (3 * 6 * 6 + 3 * 6) + 700,
            inference=2 * (3 * 6 * 6 + 3 * 6),
            multiply_adds=2 * 2 * 3 * 6 * 6,
            embedding=6,
        )

    def test_counts_agree_with_torchreids(self):
        network = models.build("resnet18")
        _, theirs = torchreid.utils.compute_model_complexity(network, (1, 3, 64, 32))
        facts = models.count(network, (64, 32))
        assert facts.multiply_adds == theirs
        assert facts.training - facts.inference == sum(
            p.numel() for p in network.classifier.parameters()
        )

    def test_what_only_training_needs_does_not_count(self):
        network = models.build("dsa_reid_resnet18")
        facts = models.count(network, (64, 32))
        used = (*network.backbone.parameters(), *network.head.parameters())
        assert facts.inference == sum(p.numel() for p in used)
        assert facts.training == sum(p.numel() for p in network.parameters())
        assert facts.embedding == 1024

    def test_unknown_name(self, capsys):
        assert benchmark.main(["models", "--models", "resnet19", "--facts"]) == 2
        assert "--models: unknown 'resnet19', expected some of resnet18" in capsys.readouterr().err

    @pytest.mark.parametrize("size", ["256", "256x", "0x128", "ax128", "256x128x3"])
    def test_bad_image_size(self, size, capsys):
        with pytest.raises(SystemExit, match="2"):
            benchmark.main(["models", "--sizes", size])
        assert f"expected HEIGHTxWIDTH, such as 256x128, got {size!r}" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("flags", "columns"),
        [("--facts", 6), ("--rounds 1 --batch 2 --threads 1", 7), ("--rounds 1 --cpu-time", 7)],
    )
    def test_table(self, flags, columns, monkeypatch, capsys):
        monkeypatch.setattr(models, "has_onnx", lambda: False)
        line = f"models --models resnet18 --sizes 64x32 96x48 {flags}"
        assert benchmark.main(line.split()) == 0
        header, _, *rows = capsys.readouterr().out.splitlines()
        assert header.count("|") == columns + 1
        assert rows[0].startswith("| resnet18 | 64 × 32 | 11.2 | 11.6 | 0.07 | 512 |")
        assert rows[1].startswith("| resnet18 | 96 × 48 | ")
        speed = [float(cell) for cell in rows[0].split("|")[7:-1]]
        assert all(value > 0 for value in speed)
        assert any("CPU time" in row for row in rows) == ("--cpu-time" in flags)

    def test_without_onnxruntime(self, monkeypatch, capsys):
        monkeypatch.setattr("magnifier_plugin.export.PACKAGES", ("no_such_package",))
        assert not models.has_onnx()
        assert "onnxruntime is skipped: export: expected" in capsys.readouterr().err

    @pytest.mark.onnx
    def test_onnxruntime_next_to_torch(self, capsys):
        line = "models --models resnet18 --sizes 64x32 --rounds 1 --batch 2 --cpu-time"
        assert benchmark.main(line.split()) == 0
        header, _, row, *_ = capsys.readouterr().out.splitlines()
        assert header.endswith("| torch, images/s | onnxruntime, images/s | ratio |")
        torchs, onnx, ratio = row.removesuffix(" × |").split("|")[7:]
        assert float(ratio) == pytest.approx(float(onnx) / float(torchs), rel=0.1)
