"""`benchmark.py models`: what is counted, and the table; the times themselves are not tested."""

import sys

import pytest
import torch
import torchreid
from mask_inputs import PROJECT, script
from torch import nn

sys.path.insert(0, str(PROJECT / "scripts"))
from benchmarks import models

benchmark = script("benchmark")


class Recurrent(nn.Module):
    """Two steps of a GRU of width 6 on the image's first pixels, and a layer that is not used."""

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
        threads = torch.get_num_threads()
        line = f"models --models resnet18 --sizes 64x32 96x48 {flags}"
        assert benchmark.main(line.split()) == 0
        torch.set_num_threads(threads)
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
        assert "onnxruntime is left out: export: expected" in capsys.readouterr().err

    @pytest.mark.onnx
    def test_onnxruntime_next_to_torch(self, capsys):
        threads = torch.get_num_threads()
        line = "models --models resnet18 --sizes 64x32 --rounds 1 --batch 2 --cpu-time"
        assert benchmark.main(line.split()) == 0
        torch.set_num_threads(threads)
        header, _, row, *_ = capsys.readouterr().out.splitlines()
        assert header.endswith("| torch, images/s | onnxruntime, images/s | ratio |")
        torchs, onnx, ratio = row.removesuffix(" × |").split("|")[7:]
        assert float(ratio) == pytest.approx(float(onnx) / float(torchs), rel=0.1)
