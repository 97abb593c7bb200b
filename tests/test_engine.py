"""Stages, checkpoints, resuming and testing, on a tiny Market-1501 folder."""

import contextlib
import io
import json
import os
import shutil
from functools import partial

import pytest
import torch
import torchreid
from conftest import make_market, torchreids_manager
from engines import QUICK, make_engine, make_manager, names, weights
from tiny import TinyBackbone, tiny_model
from torch import nn

from magnifier_plugin import build_model
from magnifier_plugin.engine.epoch_log import EpochLog, log_line
from magnifier_plugin.engine.epoch_loop import SavingOptions
from magnifier_plugin.engine.log import logged_to
from magnifier_plugin.engine.position import LossMeter, Position
from magnifier_plugin.engine.precision import resolve_switch
from magnifier_plugin.engine.stages import Stage, check_stages, find_stage
from magnifier_plugin.evaluation.evaluator import Evaluator
from magnifier_plugin.evaluation.tables import results_table
from magnifier_plugin.losses.classification import ClassificationCriterion
from magnifier_plugin.losses.magnifier import MagnifierCriterion
from magnifier_plugin.systems import dsa_stages, magnifier_stages

TERMS = {"cls": 1.0}


def louder(initialise):
    """A constructor whose network has different weights."""

    def changed(self, name, **options):
        initialise(self, name, **options)
        nn.init.ones_(self.conv1.bias)

    return changed


class TestStage:
    def test_the_papers_schedule(self):
        first, second = magnifier_stages()
        rates = [first.lr * first.lr_factor(epoch) for epoch in (0, 5, 10, 39, 40, 69, 70, 459)]
        expected = [3.5e-6, 3.5e-4 * 0.505, 3.5e-4, 3.5e-4, 3.5e-5, 3.5e-5, 3.5e-6, 3.5e-6]
        assert rates == pytest.approx(expected)
        assert {second.lr * second.lr_factor(epoch) for epoch in range(40)} == {1e-3}
        assert (first.loss_weights, second.loss_weights) == ({}, {"sd": 2e-3})
        assert sum(stage.max_epoch for stage in (first, second)) == 500

    def test_the_schedule_of_dsa_reid(self):
        """Section 4.2: Adam, warm-up from 8e-6 to 8e-4, then halved every 40 epochs."""
        (stage,) = dsa_stages()
        assert (stage.max_epoch, stage.loss_weights) == (320, {})
        epochs = (0, 10, 20, 59, 60, 99, 100, 139, 140, 299, 300, 319)
        rates = [stage.lr * stage.lr_factor(epoch) for epoch in epochs]
        halved = [8e-4 * 0.5**times for times in (0, 0, 1, 1, 2, 2, 3, 6, 7, 7)]
        assert rates == pytest.approx([8e-6, 4.04e-4, *halved])
        optimizer, _ = stage.build_optimizer(nn.Linear(1, 1))
        (group,) = optimizer.param_groups
        assert type(optimizer) is torch.optim.Adam and not group["amsgrad"]
        assert (group["weight_decay"], group["betas"]) == (5e-4, (0.9, 0.999))

    @pytest.mark.parametrize("name", ["single_step", "multi_step", "cosine"])
    def test_torchreids_schedulers(self, name):
        stage = Stage(max_epoch=6, lr_scheduler=name, stepsize=[2], warmup_epoch=0)
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        stepsize = 2 if name == "single_step" else [2]
        theirs = torchreid.optim.build_lr_scheduler(optimizer, name, stepsize, max_epoch=6)
        for epoch in range(6):
            assert stage.lr_factor(epoch) == pytest.approx(optimizer.param_groups[0]["lr"])
            optimizer.step()
            theirs.step()

    def test_epochs_are_numbered_over_all_stages(self):
        stages = [Stage(max_epoch=3), Stage(max_epoch=1), Stage(max_epoch=2)]
        assert [find_stage(stages, epoch) for epoch in (0, 2, 3, 4, 5)] == [
            *((0, 0), (0, 0), (1, 3), (2, 4), (2, 4))
        ]
        with pytest.raises(ValueError, match="epoch 7: the stages have only 6 epochs"):
            find_stage(stages, 6)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"max_epoch": 0}, "at least one epoch"),
            ({"lr_scheduler": "poly"}, "single_step, multi_step, cosine"),
            ({"lr_scheduler": "single_step", "stepsize": ()}, "stepsize"),
            ({"lr_scheduler": "single_step", "stepsize": (0,)}, "stepsize: .* at least 1, got"),
            ({"lr": -1.0}, "lr: expected a number above 0, got -1.0"),
            ({"lr": float("nan")}, "lr: expected a number above 0, got nan"),
            ({"lr_gamma": 0.0}, "lr_gamma: expected a number above 0"),
            ({"warmup_epoch": -2}, "warmup_epoch: expected at least 0, got -2"),
            ({"warmup_factor": 3}, "warmup_factor: expected 0 to 1, got 3"),
            ({"loss_weights": {"sd": -1}}, "loss_weights.sd"),
            ({"optimizer": "old"}, "optimizer: expected fresh or keep, got 'old'"),
        ],
    )
    def test_mistakes(self, options, message):
        with pytest.raises(ValueError, match=message):
            Stage(**{"max_epoch": 1, **options})

    def test_what_cannot_be_kept(self):
        kept = Stage(max_epoch=1, optimizer="keep")
        with pytest.raises(ValueError, match=r"stages\.1\.optimizer keep: "):
            check_stages([kept], TERMS)
        cosine = Stage(max_epoch=1, lr_scheduler="cosine")
        with pytest.raises(ValueError, match=r"stages\.2\.optimizer keep: .* ends at 0"):
            check_stages([cosine, kept], TERMS)
        check_stages([Stage(max_epoch=1), kept, kept], TERMS)

    def test_a_stage_without_a_loss(self):
        trained = Stage(max_epoch=1, loss_weights={"sd": 0.1})
        message = r"stages\.2\.loss_weights: .* other than 0, found none; .* one of cls, sd"
        for default, changed in ((0.0, {}), (1.0, {"cls": 0.0})):
            with pytest.raises(ValueError, match=message):
                stage = Stage(max_epoch=1, loss_weights=changed)
                check_stages([trained, stage], {"cls": default, "sd": 0.0})
            check_stages([trained], {"cls": default, "sd": 0.0})

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"fused": "on", "optimizer_options": {"optim": "rmsprop"}}, "no fused form"),
            (
                {
                    "optimizer_options": {
                        "optim": "sgd",
                        "sgd_nesterov": True,
                        "sgd_dampening": 0.1,
                    }
                },
                "Nesterov momentum requires",
            ),
        ],
    )
    def test_an_optimiser_of_a_later_stage(self, market_folder, options, message):
        stages = [Stage(max_epoch=1), Stage(max_epoch=1, **options)]
        with pytest.raises(ValueError, match=rf"stage 2: expected settings .*{message}"):
            make_engine(market_folder, stages)


class TestTraining:
    @pytest.fixture(scope="class")
    @classmethod
    def trained(cls, market_folder, tmp_path_factory):
        folder = tmp_path_factory.mktemp("run")
        engine = make_engine(market_folder, record={"seed": 1})
        said = io.StringIO()
        with logged_to(folder, "train"), contextlib.redirect_stdout(said):
            engine.run(save_dir=str(folder), eval_freq=1, normalize_feature=True, rerank=True)
        return engine, folder, said.getvalue().splitlines()

    def test_last_and_best_are_kept(self, trained):
        _, folder, _ = trained
        assert names(folder / "model") == ["model-best.pth.tar", "model.pth.tar-4"]

    def test_checkpoint_is_plain_and_torchreid_resumes_from_it(self, trained):
        engine, folder, _ = trained
        path = folder / "model" / "model.pth.tar-4"
        content = torch.load(path, weights_only=True)
        assert (content["epoch"], content["stage"]) == (4, 2)
        assert isinstance(content["rank1"], float)
        other = tiny_model()
        optimizer = torchreid.optim.build_optimizer(other)
        assert torchreid.utils.resume_from_checkpoint(str(path), other, optimizer) == 4
        assert torch.equal(other.backbone.conv1.weight, engine.model.backbone.conv1.weight)
        third = tiny_model(loss="triplet")
        torchreid.utils.load_pretrained_weights(third, str(path))
        assert torch.equal(
            third.branches["G"].head.neck.weight,
            content["state_dict"]["branches.G.head.neck.weight"],
        )

    def test_results_are_on_disk(self, trained):
        engine, folder, _ = trained
        results = json.loads((folder / "results.json").read_text())
        numbers = results["results"]["market1501"]
        assert {"mAP", "mINP", "rank-1", "rank-20", "reranked"} <= set(numbers)
        assert results["seed"] == 1
        assert results["precision"].startswith("float32, ")
        assert results["versions"]["torch"] == torch.__version__
        assert engine.results["market1501"]["mAP"] == numbers["mAP"]

    def test_the_log_names_every_loss_in_torchreids_format(self, trained):
        _, _, lines = trained
        line = next(line for line in lines if line.startswith("epoch: [3/4]"))
        for name in ("time", "data", "eta", "loss", "cls_G", "tri_SAB", "cls_SFB", "sd", "mask"):
            assert f"\t{name} " in line
        assert "acc" in line
        assert line.rstrip().split("\t")[-1].startswith("lr 0.001")

    def test_history_and_tensorboard_are_one_run(self, trained):
        engine, folder, _ = trained
        assert [entry["epoch"] for entry in engine.history] == [1, 2, 3, 4]
        assert [entry["stage"] for entry in engine.history] == [1, 1, 2, 2]
        assert all("mAP" in entry for entry in engine.history)
        assert len(list(folder.glob("events.out.tfevents*"))) == 1

    def test_results_table(self, trained):
        engine, _, _ = trained
        before = {"market1501": {**engine.results["market1501"], "mAP": 0.0}}
        table = results_table(engine.results, before)
        assert "| market1501 | trained, re-ranked |" in table
        assert "of the way to 100 %" in table

    def test_results_table_of_a_perfect_start(self, trained):
        engine, _, _ = trained
        before = {"market1501": {**engine.results["market1501"], "mAP": 1.0}}
        table = results_table(engine.results, before)
        assert "mAP from 100.0% (untrained)" in table and "of the way" not in table

    def test_results_table_of_other_ranks_before(self):
        """The results before training are read from a file, which may be of an earlier run."""
        after = {"market1501": {"mAP": 0.5, "rank-1": 0.75, "rank-30": 1.0}}
        table = results_table(after, {"market1501": {"mAP": 0.25, "rank-1": 0.5}})
        assert "| market1501 | untrained | 25.0 | 50.0 | – |" in table
        table = results_table(after, {"market1501": {"rank-1": 0.5}})
        assert "| market1501 | untrained | – | 50.0 | – |" in table and "mAP from" not in table


class TestResuming:
    @pytest.fixture(scope="class")
    @classmethod
    def whole(cls, market_folder, tmp_path_factory):
        engine = make_engine(market_folder)
        engine.run(save_dir=str(tmp_path_factory.mktemp("whole")))
        return weights(engine), engine.history

    @pytest.mark.parametrize("stop", [1, 2, 3])
    def test_gives_the_same_weights_in_either_stage(self, whole, market_folder, tmp_path, stop):
        first = make_engine(market_folder)
        first.run(save_dir=str(tmp_path), max_epoch=stop)
        second = make_engine(market_folder)
        torchreid.utils.set_random_seed(99)
        start = second.resume(tmp_path / "model" / f"model.pth.tar-{stop}")
        assert start == stop
        second.run(save_dir=str(tmp_path), start_epoch=start)
        expected, history = whole
        for key, value in weights(second).items():
            assert torch.equal(value, expected[key]), key
        assert [e["loss"] for e in second.history] == [e["loss"] for e in history]
        assert "model.pth.tar-4" in names(tmp_path / "model")

    def test_a_users_optimizer_continues(self, market_folder, tmp_path):
        def build():
            torchreid.utils.set_random_seed(1)
            model = tiny_model()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
            scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
            make = torchreid.engine.ImageMagnifierEngine
            return make(make_manager(market_folder), model, optimizer, scheduler, amp="off")

        whole = build()
        whole.run(save_dir=str(tmp_path / "whole"), max_epoch=2)
        build().run(save_dir=str(tmp_path), max_epoch=1)
        second = build()
        start = second.resume(tmp_path / "model" / "model.pth.tar-1")
        second.run(save_dir=str(tmp_path), max_epoch=2, start_epoch=start)
        assert second.optimizer.param_groups[0]["lr"] == pytest.approx(0.0025)
        expected = weights(whole)
        assert all(torch.equal(value, expected[key]) for key, value in weights(second).items())

    def test_a_finished_run_only_tests(self, market_folder, tmp_path):
        engine = make_engine(market_folder, [Stage(max_epoch=1, **QUICK)])
        engine.run(save_dir=str(tmp_path))
        before = weights(engine)
        engine.run(save_dir=str(tmp_path), start_epoch=1)
        assert all(torch.equal(value, before[key]) for key, value in weights(engine).items())


class TestEdges:
    @pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
    def test_a_loss_that_is_not_finite_stops_the_run(self, market_folder, tmp_path):
        stages = [Stage(max_epoch=9, **QUICK)]
        engine = make_engine(market_folder, stages)
        nn.init.constant_(engine.model.backbone.conv1.weight, float("nan"))
        with pytest.raises(
            FloatingPointError, match=r"the last one's loss is not finite: loss nan"
        ):
            engine.run(save_dir=str(tmp_path), print_freq=1)

    def test_a_users_optimizer(self, market_folder, tmp_path):
        model = tiny_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.1)
        build = torchreid.engine.ImageMagnifierEngine
        engine = build(make_manager(market_folder), model, optimizer, scheduler)
        with pytest.raises(ValueError, match="max_epoch: expected a number"):
            engine.run(save_dir=str(tmp_path))
        engine.run(save_dir=str(tmp_path), max_epoch=2)
        assert engine.optimizer is optimizer
        assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-4)
        with pytest.raises(ValueError, match="got both"):
            build(make_manager(market_folder), model, optimizer, stages=[])

    @pytest.mark.parametrize("loss", ["softmax", "triplet"])
    def test_a_model_for_torchreids_losses(self, market_folder, loss):
        build, model = torchreid.engine.ImageMagnifierEngine, tiny_model(loss=loss)
        message = (
            rf"found loss='{loss}'.*magnifier_plugin\.build_model\('magnifiernet', num_classes\)"
        )
        manager, stages = make_manager(market_folder), [Stage(max_epoch=1)]
        for criterion in (None, MagnifierCriterion()):
            with pytest.raises(ValueError, match=message):
                build(manager, model, stages=stages, criterion=criterion)
        with pytest.raises(ValueError, match=r"found loss='softmax'.*'dsa_reid'"):
            dsa = build_model("dsa_reid_resnet18", 3, "softmax", pretrained=False)
            torchreid.engine.ImageDSAEngine(manager, dsa)
        with pytest.raises(ValueError, match="are for ImageMagnifierEngine; ImageDSAEngine"):
            torchreid.engine.ImageDSAEngine(manager, tiny_model())
        assert build(manager, model, stages=stages, criterion=ClassificationCriterion(loss=loss))

    def test_more_epochs_than_stages(self, market_folder, tmp_path):
        with pytest.raises(ValueError, match="lengthen a stage"):
            make_engine(market_folder).run(save_dir=str(tmp_path), max_epoch=9)

    def test_torchreids_models_and_data_manager(self, market_folder, tmp_path, monkeypatch):
        monkeypatch.setenv("MAGNIFIER_MASKS", str(market_folder.masks_dir))
        manager = torchreids_manager(market_folder, targets=None)
        assert next(iter(manager.train_loader))["mask"].shape == (4, 32, 16)
        model = torchreid.models.build_model("resnet18", 3, "triplet", pretrained=False)
        engine = torchreid.engine.ImageMagnifierEngine(
            manager,
            model,
            stages=[Stage(max_epoch=1, **QUICK)],
            criterion=ClassificationCriterion(loss="triplet"),
            amp="off",  # batch norm over four values of bf16 can give infinite gradients
        )
        engine.run(save_dir=str(tmp_path))
        assert {"cls", "tri"} <= set(engine.history[0])

    @pytest.mark.filterwarnings("ignore:MagnifierNet is trained without its mask loss")
    @pytest.mark.parametrize("loss", ["triplet", "softmax"])
    def test_magnifiernet_in_torchreids_engines(self, market_folder, tmp_path, loss):
        model = tiny_model(loss=loss)
        optimizer = torchreid.optim.build_optimizer(model)
        scheduler = torchreid.optim.build_lr_scheduler(optimizer)
        kind = {"triplet": "ImageTripletEngine", "softmax": "ImageSoftmaxEngine"}[loss]
        engine = getattr(torchreid.engine, kind)(
            make_manager(market_folder), model, optimizer, scheduler=scheduler, use_gpu=False
        )
        engine.epoch, engine.max_epoch = 0, 1
        before = model.backbone.conv1.weight.clone()
        engine.train(print_freq=1)
        assert not torch.equal(model.backbone.conv1.weight, before)

    def test_flip_is_the_mean_of_both(self, market_folder):
        images = torch.randn(2, 3, 32, 16)
        engine = make_engine(market_folder, flip=True)
        engine.set_model_mode("eval")
        with torch.no_grad():
            mean = (engine.model(images) + engine.model(images.flip(3))) / 2
        batch = {"img": images, "pid": torch.zeros(2), "camid": torch.zeros(2)}
        evaluator = Evaluator(engine.tester.embed, flip=True)
        torch.testing.assert_close(evaluator.embed_batch(batch), mean)

    def test_cached_embeddings_serve_the_same_model_and_images_only(
        self, market_folder, tmp_path, monkeypatch
    ):
        def test_and_count(**options):
            engine = make_engine(market_folder, cache=tmp_path / "cache", **options)
            batches = []
            embed = engine.tester.embed
            engine.tester.embed = lambda *args, **options: (
                batches.append(1) or embed(*args, **options)
            )
            engine.test(save_dir=str(tmp_path))
            return len(batches), engine.results

        first, results = test_and_count()
        assert first > 0
        assert test_and_count() == (0, results)
        assert test_and_count(flip=True)[0] == 2 * first
        image = next(market_folder.images.glob("query/*.jpg"))
        os.utime(image, ns=(1, 1))
        assert test_and_count()[0] == 1
        # An option without weights that changes the embeddings.
        monkeypatch.setattr("engines.tiny_model", partial(tiny_model, mask_rescaling="nearest"))
        assert test_and_count()[0] == first
        monkeypatch.setattr(TinyBackbone, "__init__", louder(TinyBackbone.__init__))
        assert test_and_count()[0] == first

    def test_a_damaged_cache_is_written_again(self, market_folder, tmp_path, caplog):
        make_engine(market_folder, cache=tmp_path / "cache").test(save_dir=str(tmp_path))
        files = sorted((tmp_path / "cache").iterdir())
        sizes = [file.stat().st_size for file in files]
        for file in files:
            file.write_bytes(file.read_bytes()[:1000])
        with caplog.at_level("WARNING", "magnifier_plugin"):
            make_engine(market_folder, cache=tmp_path / "cache").test(save_dir=str(tmp_path))
        assert f"{files[0]} is damaged" in caplog.text
        assert [file.stat().st_size for file in files] == sizes

    def test_a_run_outlives_its_last_test(self, market_folder, tmp_path, monkeypatch):
        engine = make_engine(market_folder, saving=SavingOptions(freq=1000))
        monkeypatch.setattr(engine.tester, "test", lambda *args, **options: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            engine.run(save_dir=str(tmp_path))
        assert engine.checkpoints.latest.name == f"model.pth.tar-{engine.max_epoch}"
        assert engine.checkpoints.latest.is_file()

    def test_only_the_last_test_is_cached(self, market_folder, tmp_path):
        engine = make_engine(market_folder, cache=tmp_path / "cache")
        engine.run(save_dir=str(tmp_path), eval_freq=1)
        assert engine.max_epoch > 1
        assert len(list((tmp_path / "cache").iterdir())) == 2  # query and gallery

    def test_reranking_during_training(self, market_folder, tmp_path):
        engine = make_engine(market_folder, rerank_during_training=True)
        engine.run(save_dir=str(tmp_path), max_epoch=1)
        assert "reranked" in engine.results["market1501"]

    def test_every_target_is_reported(self, tmp_path, monkeypatch):
        folder = make_market(tmp_path)
        shutil.copytree(folder.root / "market1501", folder.root / "dukemtmc-reid" / "DukeMTMC-reID")
        inner = folder.root / "dukemtmc-reid" / "DukeMTMC-reID"
        (inner / "Market-1501-v15.09.15").rename(inner / "x")
        for split in (inner / "x").iterdir():
            split.rename(inner / split.name)
        manager = make_manager(folder, targets=["market1501", "dukemtmcreid"])
        engine = torchreid.engine.ImageMagnifierEngine(manager, tiny_model(), amp="off")
        engine.test(save_dir=str(tmp_path / "log"))
        results = json.loads((tmp_path / "log" / "results.json").read_text())["results"]
        assert set(results) == {"market1501", "dukemtmcreid"}

    def test_switches(self):
        cpu = torch.device("cpu")
        assert resolve_switch("on", cpu, "amp")
        assert not resolve_switch("off", cpu, "amp")
        with pytest.raises(ValueError, match="amp: expected one of"):
            resolve_switch("yes", cpu, "amp")

    def test_amp_changes_the_numbers_not_the_dtype(self, market_folder):
        images = torch.randn(2, 3, 32, 16)
        engine = make_engine(market_folder)
        exact = engine.model.eval() and engine.extract_features(images)
        engine.tester.precision.amp = torch.bfloat16
        rounded = engine.extract_features(images)
        assert rounded.dtype == torch.float32
        assert not torch.equal(exact, rounded)
        torch.testing.assert_close(exact, rounded, rtol=0.1, atol=0.1)

    def test_meter_and_line(self):
        meter = LossMeter()
        assert meter.read() == {}
        for value in (1.0, 3.0):
            meter.update({"loss": torch.tensor(value)})
        assert meter.read() == {"loss": (3.0, 2.0)}
        line = log_line(
            *(2, 3, 5, 10), seconds=(1, 2), data_seconds=(0, 0), losses=meter.read(), lr=0.1
        )
        assert "eta 0:00:30" in line
        assert line.startswith("epoch: [2/3][5/10]\ttime 1.000 (2.000)\t")


def test_a_position_whose_next_batch_is_skipped():
    position = Position()
    for value in (1.0, 3.0):
        position.update({"loss": torch.tensor(value)})
    resumed = Position.load(position.content(), torch.device("cpu"))
    resumed.update({})
    assert resumed.losses.read() == {"loss": (2.0, 2.0)}
    resumed.update({"loss": torch.tensor(5.0)})
    assert (resumed.batch, resumed.losses.read()) == (4, {"loss": (5.0, 3.0)})


def test_an_epoch_is_complete_after_its_last_batch():
    position = Position()
    options = {"epoch": 1, "max_epoch": 1, "print_freq": 9, "writer": None}
    log = EpochLog([], 2, **options, position=position)
    seen = []
    for _ in range(2):
        seen.append(log.is_complete)
        position.update({})
    assert (*seen, log.is_complete) == (False, False, True)
