"""DSA-reID from configuration to checkpoint, in torchreid's tools, and when used wrongly."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchreid
from conftest import make_market, torchreids_manager
from PIL import Image

from magnifier_plugin import build_model
from magnifier_plugin.annotators.densepose import write_iuv
from magnifier_plugin.config import load_config
from magnifier_plugin.engine.checkpoint import read_checkpoint, write_checkpoint
from magnifier_plugin.engine.weights import load_matching
from magnifier_plugin.masks.paths import iuv_path, label_path
from magnifier_plugin.recipe import prepare
from magnifier_plugin.resuming import explained

ROOT = Path(__file__).parents[1]
DSA, MAGNIFIER = (ROOT / "configs" / f"{name}_market.yaml" for name in ("dsa", "magnifier"))

sys.path.insert(0, str(ROOT / "scripts"))
import main as script  # noqa: E402

TINY = (
    "data.height 32 data.width 16 data.workers 0 train.batch_size 4 sampler.num_instances 2 "
    "model.pretrained False dsa.backbone resnet18 dsa.width 0.125 dsa.texture_size 8 "
    "train.max_epoch 1 train.stepsize [] train.warmup_epoch 0 amp off"
).split()


@pytest.fixture
def folder(tmp_path):
    """A tiny Market-1501 with an IUV for every image."""
    folder = make_market(tmp_path / "data")
    for number, image in enumerate(sorted(folder.images.rglob("*.jpg"))):
        rng = np.random.default_rng(number)
        iuv = rng.integers(0, 256, (32, 16, 3), dtype=np.uint8)
        iuv[..., 0] = rng.integers(0, 25, (32, 16))
        label = label_path(image, folder.root / "market1501", "market1501", folder.masks_dir)
        write_iuv(iuv_path(label), iuv)
    return folder


def typed(folder, save_dir, *more):
    where = ["data.root", folder.root, "masks.dir", folder.masks_dir, "data.save_dir", save_dir]
    return [*map(str, where), *TINY, *map(str, more)]


def run(folder, save_dir, *more, config=DSA):
    cfg = load_config(config, {}, typed(folder, save_dir, *more))
    return prepare(cfg, typed=more[::2])()


def main(folder, tmp_path, *more, config=DSA):
    argv = ["--config-file", str(config), *typed(folder, tmp_path / "log", *more)]
    return script.main(argv)


def test_training_then_testing_without_the_guiding_stream(folder, tmp_path):
    """Inference takes only the image, with a checkpoint of the guided training."""
    pairs = ("report.textures", 2, "test.flip", True, "test.rerank", True)
    trained = run(folder, tmp_path / "train", *pairs)
    terms = {"cls_f_G", "cls_f_L", "cls_z_G", "cls_z_L", "tri_z_G", "tri_z_L"}
    assert terms <= set(trained.history[0])
    assert Image.open(tmp_path / "train" / "textures.png").size[1] > 400
    weights = tmp_path / "train" / "model" / "model-best.pth.tar"
    for image in folder.masks_dir.rglob("*_IUV.png"):
        image.unlink()
    pairs = ("test.evaluate", True, "model.load_weights", weights, "dsa.streams", "MF")
    tested = run(folder, tmp_path / "test", *pairs, "test.flip", True)
    assert tested.results["market1501"]["mAP"] == trained.results["market1501"]["mAP"]
    assert not any(key.startswith("guiding_stream.") for key in tested.model.state_dict())
    # The network of the training file itself needs no IUV in testing either.
    tested = run(folder, tmp_path / "test", *pairs[:4], "test.flip", True)
    assert tested.results["market1501"]["mAP"] == trained.results["market1501"]["mAP"]


def test_rows_that_test_with_z_take_textures_of_query_and_gallery(folder, tmp_path):
    engine = run(folder, tmp_path, "dsa.test_features", "z_L", "test.flip", True)
    loader = engine.test_loader["market1501"]["query"]
    batch = next(iter(loader))
    assert batch["textures"].shape == batch["mirrored"]["textures"].shape
    assert not torch.equal(batch["textures"], batch["mirrored"]["textures"])
    without = engine.tester.embed({**batch, "textures": torch.zeros_like(batch["textures"])})
    assert not torch.equal(engine.tester.embed(batch), without)


@pytest.mark.parametrize(
    "pairs",
    [
        ("dsa.streams", "MF", "dsa.branches", "global", "loss.softmax.label_smooth", False),
        ("dsa.branches", "local"),
        ("dsa.textures", "csa"),
        ("dsa.fusion", "concat"),
        ("dsa.streams", "DSAG", "dsa.test_features", "z"),
        ("loss.name", "triplet"),
    ],
)
def test_rows_of_the_ablation(folder, tmp_path, pairs):
    engine = run(folder, tmp_path, *pairs)
    assert engine.results["market1501"]["mAP"] > 0
    assert json.loads((tmp_path / "results.json").read_text())["epoch"] == 1


class TestMistakes:
    def test_no_iuv_for_training(self, folder, tmp_path, capsys):
        for path in folder.masks_dir.rglob("*_IUV.png"):
            path.unlink()
        assert main(folder, tmp_path) == 2
        error = capsys.readouterr().err
        assert "12 of 12 train images have no IUV" in error
        assert "scripts/convert_masks.py" in error
        assert "--keep-iuv" in error

    def test_no_iuv_for_query(self, folder, tmp_path, capsys):
        for path in folder.masks_dir.rglob("query/*_IUV.png"):
            path.unlink()
        assert main(folder, tmp_path, "dsa.test_features", "z") == 2
        assert "8 of 8 query images have no IUV" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("config", "model", "message"),
        [
            (MAGNIFIER, "dsa_reid", "one of dsa, softmax, triplet for dsa_reid, got 'magnif"),
            (DSA, "magnifiernet", "one of magnifier, softmax, triplet for magnifiernet, got"),
        ],
    )
    def test_the_other_systems_configuration(
        self, folder, tmp_path, capsys, config, model, message
    ):
        argv = ["--config-file", str(config), "-a", model, "--root", str(folder.root)]
        assert script.main([*argv, "data.save_dir", str(tmp_path)]) == 2
        assert f"loss.name: expected {message}" in capsys.readouterr().err

    def test_a_key_of_the_other_system(self, folder, tmp_path, capsys):
        assert main(folder, tmp_path, "magnifier.keep", 2) == 2
        assert "magnifier.keep: has no effect, dsa_reid is not a" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("pairs", "message"),
        [
            (("dsa.streams", "MF"), "dsa.width: has no effect, dsa.streams MF builds no DSAG"),
            (
                ("loss.triplet.weight_t", 2),
                "loss.triplet.weight_t: has no effect, loss.name dsa uses dsa.weight_f",
            ),
            (("dsa.streams", "DSAG"), "dsa.test_features"),
            (("dsa.branches", "local", "dsa.test_features", "z_G"), "dsa.test_features"),
        ],
    )
    def test_options_that_cannot_work(self, folder, tmp_path, capsys, pairs, message):
        assert main(folder, tmp_path, *pairs) == 2
        assert message in capsys.readouterr().err

    def test_a_checkpoint_in_another_system(self, folder, tmp_path):
        run(folder, tmp_path)
        path = tmp_path / "model" / "model-best.pth.tar"
        state = read_checkpoint(path)["state_dict"]
        magnifiernet = build_model("magnifiernet_resnet18", 3, pretrained=False)
        with pytest.raises(ValueError, match=r"missing in the file.*belongs to another model"):
            load_matching(magnifiernet, state, str(path))
        state["head.G.0.conv1.weight"] = state["head.G.0.conv1.weight"][:1]
        main_stream = build_model("dsa_reid_resnet18", 3, pretrained=False, streams=["MF"])
        with pytest.raises(ValueError, match=r"1 of another shape"):
            load_matching(main_stream, state, str(path))

    @pytest.mark.parametrize("how", ["model.resume", "model.load_weights", "test"])
    def test_a_checkpoint_of_other_options_names_them(self, folder, tmp_path, capsys, how):
        path = tmp_path / "first" / "model" / "model-best.pth.tar"
        run(folder, tmp_path / "first")
        keys = ("model.resume", path, "test.evaluate", True) if how == "test" else (how, path)
        width = ("dsa.width", 0.5, "dsa.fusion", "concat")
        assert main(folder, tmp_path / "second", *width, *keys) == 2
        error = capsys.readouterr().err
        assert "of another shape" in error
        assert error.rstrip().endswith("; dsa.fusion add, now concat; dsa.width 0.125, now 0.5")

    def test_a_checkpoint_of_another_system_names_it(self, tmp_path):
        path = tmp_path / "model.pth.tar-1"
        saved = load_config(MAGNIFIER)
        write_checkpoint(path, {"state_dict": {}, "record": {"configuration": saved.dump()}})
        with pytest.raises(ValueError) as caught, explained(path, load_config(DSA)):
            raise ValueError("2 missing")
        assert str(caught.value) == (
            "2 missing; model.name magnifiernet, now dsa_reid: use a configuration of the file's "
            "network, or other weights"
        )


class TestTorchreidsTools:
    def test_feature_extractor_and_complexity(self, monkeypatch, tmp_path):
        monkeypatch.setenv("MAGNIFIER_BACKBONE_WEIGHTS", "none")
        Image.new("RGB", (20, 40)).save(tmp_path / "a.png")
        extractor = torchreid.utils.FeatureExtractor(
            "dsa_reid_resnet18", image_size=(64, 32), device="cpu", verbose=False
        )
        assert extractor(str(tmp_path / "a.png")).shape == (1, 1024)
        model = torchreid.models.build_model("dsa_reid_resnet18", 4, "softmax", False, False)
        parameters, flops = torchreid.utils.compute_model_complexity(model, (1, 3, 64, 32))
        assert parameters > 11_000_000
        assert flops > 0

    @pytest.mark.parametrize("loss", ["softmax", "triplet"])
    def test_engines(self, folder, tmp_path, loss):
        manager = torchreids_manager(folder, sources="market1501")
        model = torchreid.models.build_model("dsa_reid_resnet18", 3, loss, False, False)
        optimizer = torchreid.optim.build_optimizer(model)
        scheduler = torchreid.optim.build_lr_scheduler(optimizer)
        kind = {"triplet": "ImageTripletEngine", "softmax": "ImageSoftmaxEngine"}[loss]
        engine = getattr(torchreid.engine, kind)(
            manager, model, optimizer, scheduler=scheduler, use_gpu=False
        )
        before = model.backbone.conv1.weight.clone()
        engine.run(save_dir=str(tmp_path / "log"), max_epoch=1, print_freq=1, ranks=[1])
        assert not torch.equal(model.backbone.conv1.weight, before)

    def test_the_engine_by_name(self, folder, tmp_path, monkeypatch):
        monkeypatch.setenv("MAGNIFIER_MASKS", str(folder.masks_dir))
        manager = torchreids_manager(folder)
        model = build_model("dsa_reid_resnet18", 3, pretrained=False, width=0.125)
        engine = torchreid.engine.ImageDSAEngine(manager, model)
        assert [stage.max_epoch for stage in engine.state.stages] == [320]
        engine.run(save_dir=tmp_path, max_epoch=1)
        assert "tri_z_L" in engine.history[0]
