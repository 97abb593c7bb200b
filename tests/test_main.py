"""The main script and the runner, as a user types them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchreid
from conftest import make_market
from PIL import Image

from magnifier_plugin import recipe
from magnifier_plugin.masks.label_maps import write_labels
from magnifier_plugin.masks.manifest import Manifest, write_manifest
from magnifier_plugin.masks.paths import label_path
from magnifier_plugin.regions import NUM_REGIONS

ROOT = Path(__file__).parents[1]
MARKET = ROOT / "configs" / "magnifier_market.yaml"
CROPS = ROOT.parent / "shared" / "data" / "market1501_crops"

sys.path.insert(0, str(ROOT / "scripts"))
import main as script  # noqa: E402

# bf16 is left to the tests of precision: see conftest.py on the instructions that compute it.
TINY = (
    "data.height 32 data.width 16 data.workers 0 train.batch_size 4 sampler.num_instances 2 "
    "amp off model.pretrained False magnifier.backbone resnet18 train.checkpoint_freq 100 "
    "stages.1.max_epoch 1 stages.2.max_epoch 1 test.rerank False"
).split()


def run(*argv, config=MARKET):
    return script.main(["--config-file", str(config), *map(str, argv)])


def typed(folder, tmp_path, *more):
    where = ["--root", folder.root, "masks.dir", folder.masks_dir, "data.save_dir", tmp_path]
    return [*where, *TINY, *more]


class TestParsing:
    @pytest.mark.parametrize(
        ("line", "sources", "pairs"),
        [
            ("-s a b model.name x", ["a", "b"], ["model.name", "x"]),
            ("-t x -s a amp on", ["a"], ["amp", "on"]),
            ("-s a --root ./data train.lr 1", ["a"], ["train.lr", "1"]),
            ("-s a --root=./data test.eval_freq -1", ["a"], ["test.eval_freq", "-1"]),
            ("--transforms random_flip pad_crop -s a", ["a"], []),
            ("-s a -a magnifiernet data.root ./x", ["a"], ["data.root", "./x"]),
            ("-s a shop=b.csv c train.lr 1", ["a", "shop=b.csv", "c"], ["train.lr", "1"]),
            ("-s shop=../b.csv train.lr=0 1", ["shop=../b.csv"], ["train.lr=0", "1"]),
            ("-s ./b.csv train.lr 1", ["./b.csv"], ["train.lr", "1"]),
        ],
    )
    def test_a_word_with_a_dot_ends_the_list(self, line, sources, pairs):
        arguments, rest = script.parse(line.split())
        assert arguments.sources == sources
        assert rest == pairs

    def test_words_that_are_no_keys_are_reported(self, capsys):
        assert script.main(["stray"]) == 2
        assert "KEY VALUE pairs" in capsys.readouterr().err


class TestShownConfiguration:
    """What is printed first; there is no data set, so nothing is trained."""

    def shown(self, capsys, tmp_path, line: str, config=MARKET) -> str:
        words = ["--root", tmp_path / "none", "data.save_dir", tmp_path, *line.split()]
        assert run(*words, config=config) == 2
        return capsys.readouterr().out

    @pytest.mark.parametrize("scale", ["0.1", "1e-1"])
    def test_the_scale_as_typed_and_the_epochs_that_follow(self, capsys, tmp_path, scale):
        shown = self.shown(capsys, tmp_path, f"train.scale {scale} stages.2.max_epoch 7")
        assert "\n  scale: 0.1 (applied: stages of 46 + 7 epochs)\n" in shown
        assert "'max_epoch': 46," in shown and "\n  max_epoch: 53\n" in shown

    def test_the_scale_of_a_file(self, capsys, tmp_path):
        file = tmp_path / "short.yaml"
        file.write_text(f"extends: {MARKET}\ntrain: {{scale: 0.05}}\n")
        assert "  scale: 0.05 (applied: stages of 23 + 2 epochs)\n" in self.shown(
            capsys, tmp_path, "", file
        )

    def test_no_scale(self, capsys, tmp_path):
        assert "\n  scale: 1.0\n" in self.shown(capsys, tmp_path, "")


class TestMistakes:
    @pytest.mark.parametrize(
        ("line", "messages"),
        [
            ("train.lrr 1", ["unknown configuration key train.lrr", "train.lr?"]),
            ("-s market", ["market", "market1501", "synthetic"]),
            ("-a magnifiernett", ["magnifiernett", "magnifiernet_resnet18"]),
            ("-a resnet18", ["loss.name", "softmax, triplet", "magnifiernet's loss"]),
            ("magnifier.keep 3", ["K̂ is even", "baseline"]),
            ("magnifier.branches G,SAB", ["add M"]),
            ("magnifier.backbone vgg", ["resnet50"]),
            ("train.batch_size 64", ["identities"]),
            ("--transforms random_flop", ["random_flop", "random_flip"]),
            ("model.load_weights missing.pth", ["missing.pth", "expected a checkpoint"]),
            ("model.resume missing.pth", ["missing.pth", "expected a checkpoint"]),
            ("data.type video", ["data.type"]),
            ("data.k_tfm 2", ["data.k_tfm"]),
            ("test.visrank True", ["test.evaluate True"]),
            ("test.dist_metric manhattan", ["test.dist_metric", "euclidean", "manhattan"]),
            ("test.ranks [0]", ["test.ranks", "at least 1", "[0]"]),
            ("test.rerank_lambda 3.0", ["rerank_lambda", "0 to 1", "3.0"]),
            ("test.rerank_k1 0", ["rerank_k1", "at least 1", "got 0"]),
            (f"test.cache {__file__}", [__file__, "folder", "test.cache"]),
            ("train.lr_scheduler poly", ["single_step, multi_step, cosine"]),
            (
                "train.batch_size 1",
                ["train.batch_size 1: expected at least two images per process, found 1"],
            ),
            ("--gpu-devices 0,1", ["one GPU, such as 0", "got 0,1"]),
            ("model.resume .", [".: expected a checkpoint, found a folder; name a file in it"]),
            (
                "train.fixbase_epoch 5 train.open_layers classifier",
                ["train.open_layers: magnifiernet has no layer classifier", "branches"],
            ),
            ("train.start_epoch 2", ["train.start_epoch 2: expected less than train.max_epoch"]),
            (
                "loss.name triplet stages.2.loss_weights.sd 0.1",
                ["stages.2.loss_weights.sd", "loss.name triplet does not use it, magnifier does"],
            ),
            (
                "loss.name triplet stages.2.loss_weights {'sd':0.1}",
                ["stages.2.loss_weights.sd: has no effect, loss.name triplet does not use it"],
            ),
            (
                "loss.name triplet stages [{'max_epoch':1,'loss_weights':{'sd':1}}]",
                ["stages.1.loss_weights.sd: has no effect, loss.name triplet does not use it"],
            ),
            (
                "train.fixbase_epoch 5 train.open_layers []",
                ["train.open_layers: expected the layers to train", "train.fixbase_epoch 0"],
            ),
            (
                "magnifier.branches G train.fixbase_epoch 1 train.open_layers mask_module",
                ["train.open_layers: expected layers with weights, but mask_module of this"],
            ),
            (
                "stages.2.staged_lr True stages.2.new_layers classifier",
                ["train.new_layers, stage 2: magnifiernet has no layer classifier"],
            ),
            ("test.amp fp8", ["test.amp", "on, off, auto"]),
            ("train.fused on stages.2.optim rmsprop", ["stage 2", "RMSprop has no fused form"]),
            (
                "loss.triplet.weight_t 0 loss.triplet.weight_x 0 magnifier.mask_weight 0 "
                "magnifier.region_weight 0",
                ["stages.1.loss_weights: expected a weight other than 0"],
            ),
        ],
    )
    def test_exit_with_one_clear_line(self, market_folder, tmp_path, capsys, line, messages):
        _, pairs = script.parse(line.split())
        extra = line.split()[: len(line.split()) - len(pairs)]
        assert run(*extra, *typed(market_folder, tmp_path, *pairs)) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        for message in messages:
            assert message in error

    @pytest.mark.parametrize("key", ["model.load_weights", "model.resume"])
    def test_a_missing_checkpoint_is_noticed_before_the_data_are_opened(
        self, market_folder, tmp_path, capsys, monkeypatch, key
    ):
        monkeypatch.setattr(recipe, "build_datamanager", lambda *_: pytest.fail("opened"))
        assert run(*typed(market_folder, tmp_path, key, "missing.pth")) == 2
        assert "missing.pth: expected a checkpoint" in capsys.readouterr().err

    def test_a_gpu_that_is_not_there(self, market_folder, tmp_path, capsys, monkeypatch):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # restored afterwards
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert run("--gpu-devices", "9", *typed(market_folder, tmp_path)) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: --gpu-devices 9: torch finds no such GPU; without this")

    def test_missing_data_is_never_downloaded(self, tmp_path, capsys):
        assert run("--root", tmp_path, "data.save_dir", tmp_path / "log") == 2
        error = capsys.readouterr().err
        assert "market1501" in error
        assert "bounding_box_train" in error
        assert sorted(path.name for path in tmp_path.iterdir()) == ["log"]

    def test_data_without_masks_names_the_command(self, market_folder, tmp_path, capsys):
        argv = typed(market_folder, tmp_path, "masks.dir", tmp_path / "none")
        assert run(*argv) == 2
        assert "scripts/convert_masks.py --source densepose-iuv" in capsys.readouterr().err

    def test_masks_of_another_label_set(self, tmp_path, capsys):
        folder = make_market(tmp_path / "data")
        write_manifest(folder.masks_dir / "market1501", Manifest("parsing", "lip", {}))
        assert run(*typed(folder, tmp_path)) == 2
        error = capsys.readouterr().err
        assert "label set lip, expected densepose" in error
        assert "masks.label_set lip" in error


class TestRuns:
    def test_train_then_test_from_the_checkpoint(self, market_folder, tmp_path, capsys):
        pairs = ["report.curves", "True", "report.rankings", "2", "report.regions", "2"]
        pairs += ["report.untrained", "True", "test.rerank", "True"]
        assert run(*typed(market_folder, tmp_path, *pairs)) == 0
        printed = capsys.readouterr().out.splitlines()
        pictures = [tmp_path / name for name in printed[-4:]]
        assert [path.name for path in pictures] == [
            *("results.json", "rankings_market1501.png", "curves.png", "regions.png")
        ]
        for path in pictures[1:]:
            assert Image.open(path).size[0] > 100
        results = json.loads((tmp_path / "results.json").read_text())
        assert "trained, re-ranked" in "\n".join(printed)
        assert "keep: 4" in results["configuration"]
        assert (tmp_path / "untrained" / "results.json").is_file()
        (log,) = tmp_path.glob("train.log-*")
        assert log.read_text().count("epoch: [") == 2

        weights = tmp_path / "model" / "model-best.pth.tar"
        second = tmp_path / "second"
        pairs = ["test.evaluate", "True", "test.visrank", "True", "model.load_weights", weights]
        argv = typed(market_folder, second, *pairs)
        capsys.readouterr()
        assert run(*argv) == 0
        assert "| market1501 | tested |" in capsys.readouterr().out
        again = json.loads((second / "results.json").read_text())["results"]["market1501"]
        assert again["mAP"] == pytest.approx(results["results"]["market1501"]["mAP"], abs=1e-6)
        assert len(list((second / "visrank_market1501").glob("*.jpg"))) == 8
        assert not (second / "model").exists()

        before = (tmp_path / "results.json").read_bytes(), (tmp_path / "queries.csv").read_bytes()
        pairs = "test.evaluate", "True", "report.rankings", "0", "report.regions", "0"
        assert run(*typed(market_folder, tmp_path, *pairs)) == 0  # untrained weights
        after = (tmp_path / "results.json").read_bytes(), (tmp_path / "queries.csv").read_bytes()
        assert after == before
        tested = json.loads((tmp_path / "test-results.json").read_text())
        assert tested["epoch"] is None
        assert (tmp_path / "test-queries.csv").read_bytes() != before[1]
        printed = capsys.readouterr().out
        assert "| market1501 | untrained |" in printed
        assert printed.splitlines()[-1] == str(tmp_path / "test-results.json")

    def test_a_test_needs_no_training_batch(self, market_folder, tmp_path, capsys):
        argv = typed(market_folder, tmp_path, "train.batch_size", "64")
        assert run(*argv) == 2
        assert "batch" in capsys.readouterr().err
        assert run(*argv, "test.evaluate", "True") == 0

    def test_torchreids_model(self, market_folder, tmp_path):
        pairs = "loss.name triplet sampler.train_sampler RandomIdentitySampler train.max_epoch 1"
        unknown = {"magnifier.backbone", "resnet18", *TINY[-6:-2]}
        where = ["--root", market_folder.root, "data.save_dir", tmp_path]
        small = [word for word in TINY if word not in unknown]
        argv = ["-s", "market1501", "-a", "resnet18", *where, *small, *pairs.split()]
        assert script.main(list(map(str, argv))) == 0
        assert "market1501" in json.loads((tmp_path / "results.json").read_text())["results"]

    def test_rendered_folder_as_market1501(self, tmp_path):
        """`-s synthetic` renders and converts; `-s market1501` reads the same files."""
        small = "synthetic.identities 8 synthetic.cameras 2 synthetic.height 64 synthetic.width 32"
        root = tmp_path / "data"
        masks = root / "synthetic" / "mask_labels"
        where = ["--root", root, "data.save_dir", tmp_path / "log", *TINY]
        assert run("-s", "synthetic", *where, *small.split()) == 0
        where[1] = root / "synthetic"
        assert run(*where, "masks.dir", masks, "data.save_dir", tmp_path / "again") == 0
        results = [
            json.loads((tmp_path / folder / "results.json").read_text())["results"]
            for folder in ("log", "again")
        ]
        assert results[0]["synthetic"]["queries"] == results[1]["market1501"]["queries"] == 8

    @pytest.mark.slow
    def test_real_crops_through_the_papers_configuration(self, tmp_path):
        if not CROPS.is_dir():
            pytest.skip(f"the sample crops are not there: {CROPS}")
        folder = lay_out(tmp_path / "data")
        argv = ["--root", folder, "masks.dir", folder / "masks", "data.save_dir", tmp_path / "log"]
        argv += "model.pretrained False data.workers 0 train.batch_size 8".split()
        argv += "stages.1.max_epoch 1 stages.2.max_epoch 1".split()
        assert run(*argv) == 0
        results = json.loads((tmp_path / "log" / "results.json").read_text())["results"]
        assert results["market1501"]["queries"] == 5
        assert 0 < results["market1501"]["mAP"] <= 1


def lay_out(root):
    """Lays out the real crops as a Market-1501 folder, each in two cameras, with striped masks."""
    images = root / "market1501" / "Market-1501-v15.09.15"
    for crop in CROPS.glob("*.jpg"):
        pid, camera = crop.name[:4], int(crop.name[6])
        other = crop.name.replace(f"_c{camera}", f"_c{camera % 6 + 1}")
        for split, name in (
            *(("bounding_box_train", crop.name), ("query", f"{pid}{crop.name[4:]}")),
            ("bounding_box_test", other),
        ):
            path = images / split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(crop.read_bytes())
            with Image.open(path) as image:
                rows = torch.arange(image.height) * NUM_REGIONS // image.height
                labels = rows.to(torch.uint8).unsqueeze(1).expand(-1, image.width).numpy()
            place = label_path(path, root / "market1501", "market1501", root / "masks")
            write_labels(place, labels.copy())
    return root


RUNNER = """
import argparse
import pickle

import numpy
import torch
from torchreid.data import ImageDataManager
from torchreid.data.datasets import register_image_dataset
from torchreid.engine import ImageTripletEngine
from torchreid.utils import Logger, compute_model_complexity, set_random_seed
from torchreid.utils.tools import read_image
import torchreid.models
import torchreid
from helper import NAME

parser = argparse.ArgumentParser()
parser.add_argument("-m")
model = torchreid.models.build_model(parser.parse_args().m, 4, pretrained=False, use_gpu=False)
print(NAME, *compute_model_complexity(model, (1, 3, 64, 32)))
assert torchreid.data.ImageDataManager is ImageDataManager
assert "market1501_masked" in vars(torchreid.data.datasets)["__image_datasets"]
assert torchreid.engine.ImageMagnifierEngine

# torchreid's own checkpoint, whose rank1 is a numpy scalar
state = {"state_dict": model.state_dict(), "epoch": 3, "rank1": numpy.float32(0.5)}
torchreid.utils.save_checkpoint(state, "checkpoint")
assert torchreid.utils.resume_from_checkpoint("checkpoint/model.pth.tar-3", model) == 3


class Harmful:
    def __reduce__(self):
        return print, ("code in a checkpoint was run",)


torch.save(Harmful(), "harmful.pt")
try:
    torch.load("harmful.pt")
except pickle.UnpicklingError:
    print("refused")
"""


class TestRunner:
    def call(self, *argv, cwd=ROOT):
        command = [sys.executable, "-m", "magnifier_plugin", *map(str, argv)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)

    def test_a_torchreid_script_finds_the_plugin(self, tmp_path):
        (tmp_path / "tool.py").write_text(RUNNER)
        (tmp_path / "helper.py").write_text("NAME = 'found'\n")
        done = self.call(tmp_path / "tool.py", "-m", "magnifiernet_resnet18", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        name, parameters, flops = lines[0].split()
        assert name == "found"
        assert lines[-1] == "refused"
        assert "was run" not in done.stdout
        assert int(parameters) > 11_000_000
        assert int(flops) > 0
        assert "Cython" not in done.stderr

    def test_mistakes(self, tmp_path):
        done = self.call(tmp_path / "missing.py")
        assert done.returncode == 1
        assert "found no file" in done.stderr
        assert "PATH_TO_SCRIPT" in self.call().stderr

    @pytest.mark.parametrize("flag", ["-h", "--help"])
    def test_help(self, flag):
        done = self.call(flag)
        assert done.returncode == 0, done.stderr
        assert "PATH_TO_SCRIPT" in done.stdout and "version" in done.stdout


class TestTorchreidsTools:
    def test_feature_extractor(self, monkeypatch, tmp_path):
        monkeypatch.setenv("MAGNIFIER_BACKBONE_WEIGHTS", "none")
        Image.new("RGB", (20, 40)).save(tmp_path / "a.png")
        extractor = torchreid.utils.FeatureExtractor(
            "magnifiernet_resnet18", image_size=(64, 32), device="cpu", verbose=False
        )
        assert extractor(str(tmp_path / "a.png")).shape == (1, 1024)

    def test_several_masked_sources_summed(self, tmp_path, monkeypatch):
        folder = make_market(tmp_path)
        monkeypatch.setenv("MAGNIFIER_MASKS", str(folder.masks_dir))
        monkeypatch.setitem(
            vars(torchreid.data.datasets)["__image_datasets"],
            "other_masked",
            vars(torchreid.data.datasets)["__image_datasets"]["market1501_masked"],
        )
        manager = torchreid.data.ImageDataManager(
            root=str(folder.root),
            sources=["market1501_masked", "other_masked"],
            targets="market1501",
            height=32,
            width=16,
            batch_size_train=8,
            workers=0,
            use_gpu=False,
        )
        assert manager.num_train_pids == 6
        assert next(iter(manager.train_loader))["mask"].shape == (8, 32, 16)


@pytest.mark.parametrize("row", ["G", "G,M", "G,M,SAB", "G,M,SFB", "G,M,SAB,SFB"])
def test_every_row_of_table_2_runs_from_the_demo(market_folder, tmp_path, row):
    """An option without effect in a row is skipped in a file, and an error if it was typed."""
    argv = ["--root", market_folder.root, "masks.dir", market_folder.masks_dir, "test.cache", ""]
    argv = ["-s", "market1501", *argv, "data.save_dir", tmp_path, *TINY]
    demo = ROOT / "configs" / "magnifier_demo.yaml"
    assert run(*argv, "magnifier.branches", row, config=demo) == 0
    assert (tmp_path / "regions.png").is_file() == ("M" in row)
    assert run(*argv, "magnifier.branches", row, "report.regions", "2", config=demo) == (
        0 if "M" in row else 2
    )
