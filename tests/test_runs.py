"""Start epochs, resuming into other stages, a second run of one engine, and precision of tests."""

import json
import logging

import pytest
import torch
import torchreid
from engines import make_engine, make_manager, two_stages, weights
from tiny import tiny_model

from magnifier_plugin.engine.checkpoint import read_checkpoint
from magnifier_plugin.engine.stages import Stage
from magnifier_plugin.engine.testing import TestOptions
from magnifier_plugin.engine.weights import load_optimizer

FLAT = {"lr": 1e-3}


def rates(engine):
    return [entry["lr"] for entry in engine.history]


def warnings(caplog):
    """Warnings of the engine, without the one that its tiny data set has no manifest."""
    engine = [r for r in caplog.records if r.name.startswith("magnifier_plugin.engine")]
    return [record.message for record in engine if record.levelno >= logging.WARNING]


class Steps:
    """Counts the training steps from now on, and reads the number of steps of an optimiser."""

    def __init__(self, engine):
        self.new = 0
        engine.model.register_forward_pre_hook(self._count)

    def _count(self, model, _):
        self.new += model.training

    @staticmethod
    def made(optimizer_state):
        (number,) = {int(state["step"]) for state in optimizer_state["state"].values()}
        return number


class TestStartEpoch:
    STAGE = Stage(max_epoch=8, lr=1e-3, warmup_epoch=4, warmup_factor=0, stepsize=(6,))

    @pytest.mark.parametrize(("start", "expected"), [(2, [5e-4, 7.5e-4]), (5, [1e-3, 1e-4, 1e-4])])
    def test_the_schedule_continues_there(self, market_folder, tmp_path, start, expected):
        engine = make_engine(market_folder, [self.STAGE])
        engine.run(save_dir=tmp_path, start_epoch=start, max_epoch=start + len(expected))
        assert rates(engine) == pytest.approx(expected)

    def test_inside_a_stage_that_keeps_the_optimiser(self, market_folder, tmp_path):
        first = Stage(max_epoch=2, lr=1e-3, stepsize=(3,))
        second = Stage(max_epoch=3, optimizer="keep")
        engine = make_engine(market_folder, [first, second])
        engine.run(save_dir=tmp_path, start_epoch=2)
        assert rates(engine) == pytest.approx([1e-3, 1e-4, 1e-4])

    def test_resuming_continues_the_schedule(self, market_folder, tmp_path):
        make_engine(market_folder, [self.STAGE]).run(save_dir=tmp_path, max_epoch=5)
        engine = make_engine(market_folder, [self.STAGE])
        engine.run(save_dir=tmp_path, start_epoch=engine.resume(tmp_path / "model/model.pth.tar-5"))
        whole = [0, 2.5e-4, 5e-4, 7.5e-4, 1e-3, 1e-3, 1e-4, 1e-4]
        assert rates(engine) == pytest.approx(whole)


class TestResumingIntoOtherStages:
    @pytest.fixture(scope="class")
    @classmethod
    def checkpoint(cls, market_folder, tmp_path_factory):
        folder = tmp_path_factory.mktemp("parts")
        make_engine(market_folder).run(save_dir=folder, max_epoch=3)
        return folder / "model" / "model.pth.tar-3"

    @pytest.mark.parametrize(
        ("epochs", "message"),
        [
            ((4, 2), "in stage 1, epoch 3 of its schedule, found stage 2, epoch 1"),
            ((1, 4), "in stage 2, epoch 2 of its schedule, found stage 2, epoch 1"),
            ((2, 5), ""),
        ],
    )
    def test_other_lengths(self, market_folder, tmp_path, checkpoint, caplog, epochs, message):
        stages = [Stage(max_epoch=number, **FLAT) for number in epochs]
        engine = make_engine(market_folder, stages)
        steps, start = Steps(engine), engine.resume(checkpoint)
        engine.run(save_dir=tmp_path, start_epoch=start, max_epoch=4)
        before = steps.made(read_checkpoint(checkpoint)["optimizer"])
        if message:
            (warning,) = warnings(caplog)
            assert message in warning
            assert "the optimiser starts afresh" in warning
            before = 0
        else:
            assert not warnings(caplog)
        assert steps.made(engine.optimizer.state_dict()) == before + steps.new

    def test_the_first_of_two_stages_is_lengthened(self, market_folder, tmp_path, caplog):
        make_engine(market_folder).run(save_dir=tmp_path, max_epoch=2)
        engine = make_engine(market_folder, [Stage(max_epoch=3, **FLAT), Stage(max_epoch=1)])
        checkpoint = tmp_path / "model" / "model.pth.tar-2"
        before = Steps.made(read_checkpoint(checkpoint)["optimizer"])
        steps, start = Steps(engine), engine.resume(checkpoint)
        engine.run(save_dir=tmp_path, start_epoch=start, max_epoch=3)
        assert not warnings(caplog)
        assert steps.made(engine.optimizer.state_dict()) == before + steps.new


class TestSecondRun:
    def test_from_the_start_it_has_its_own_schedule_history_and_best(self, market_folder, tmp_path):
        stage = Stage(max_epoch=2, lr=1e-3, stepsize=(1,))
        engine = make_engine(market_folder, [stage])
        engine.run(save_dir=tmp_path / "first")
        engine.checkpoints.best_mAP = 1.0
        engine.run(save_dir=tmp_path / "second")
        assert rates(engine) == pytest.approx([1e-3, 1e-4])
        for folder in (tmp_path / "first", tmp_path / "second"):
            assert (folder / "model" / "model-best.pth.tar").is_file()
            assert len(list(folder.glob("events.out.tfevents*"))) == 1

    def test_after_the_last_epoch_it_equals_one_run(self, market_folder, tmp_path):
        whole, parts = make_engine(market_folder), make_engine(market_folder)
        torchreid.utils.set_random_seed(1)
        whole.run(save_dir=tmp_path / "whole", max_epoch=3)
        torchreid.utils.set_random_seed(1)
        for start, end in ((0, 1), (1, 3)):
            parts.run(save_dir=tmp_path / "parts", start_epoch=start, max_epoch=end)
        assert [entry["epoch"] for entry in parts.history] == [1, 2, 3]
        expected = weights(whole)
        for key, value in weights(parts).items():
            assert torch.equal(value, expected[key]), key

    def test_a_used_scheduler_of_the_caller(self, market_folder, tmp_path):
        model = tiny_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.1)
        engine = torchreid.engine.ImageMagnifierEngine(
            make_manager(market_folder), model, optimizer, scheduler, amp="off"
        )
        engine.run(save_dir=tmp_path, max_epoch=2)
        with pytest.raises(ValueError, match=r"start_epoch: expected 2, got 0.*stepped 2 times"):
            engine.run(save_dir=tmp_path, max_epoch=2)
        engine.run(save_dir=tmp_path, start_epoch=2, max_epoch=3)
        assert rates(engine) == pytest.approx([1e-2, 1e-3, 1e-4])

    def test_resuming_and_starting_elsewhere_takes_the_weights_only(self, market_folder, tmp_path):
        make_engine(market_folder).run(save_dir=tmp_path, max_epoch=2)
        engine = make_engine(market_folder)
        engine.resume(tmp_path / "model" / "model.pth.tar-2")
        steps = Steps(engine)
        engine.run(save_dir=tmp_path / "again", max_epoch=1)
        assert [entry["epoch"] for entry in engine.history] == [1]
        assert steps.made(engine.optimizer.state_dict()) == steps.new


class TestPrecision:
    @pytest.mark.parametrize(("amp", "test_amp"), [("on", "off"), ("off", "on")])
    def test_the_last_test_has_its_own(self, market_folder, tmp_path, amp, test_amp):
        engine = make_engine(market_folder, amp=amp, test_options=TestOptions(amp=test_amp))
        ran = set()
        engine.model.register_forward_pre_hook(lambda *_: ran.add(torch.is_autocast_enabled("cpu")))
        for is_last, expected in ((False, amp), (True, test_amp)):
            ran.clear()
            engine.test(last=is_last, save_dir=tmp_path)
            assert ran == {expected == "on"}
            said = json.loads((tmp_path / "results.json").read_text())["precision"]
            assert said.split(", ")[0] == ("bf16" if expected == "on" else "float32")

    def test_the_last_test_of_training_is_the_last(self, market_folder, tmp_path):
        engine = make_engine(market_folder, two_stages()[:1], amp="on")
        engine.run(save_dir=tmp_path)
        assert json.loads((tmp_path / "results.json").read_text())["precision"][:7] == "float32"

    def test_off_is_the_default_and_other_words_are_refused(self, market_folder):
        assert TestOptions().amp == "off"
        with pytest.raises(ValueError, match=r"test\.amp: expected one of on, off, auto"):
            make_engine(market_folder, test_options=TestOptions(amp="fp8"))


def test_an_optimiser_resumed_with_another_fused():
    """A fused Adam needs its step counts on the device of the weights; meta stands for a GPU."""
    saved = torch.optim.Adam([torch.nn.Parameter(torch.ones(3))], lr=0.5)
    saved.param_groups[0]["params"][0].grad = torch.ones(3)
    saved.step()
    weight = torch.nn.Parameter(torch.ones(3, device="meta"))
    for fused, device in ((True, "meta"), (False, "cpu")):
        optimizer = torch.optim.Adam([weight], lr=0.1)
        optimizer.param_groups[0]["fused"] = fused
        assert load_optimizer(optimizer, saved.state_dict())
        assert optimizer.state[weight]["step"].device.type == device
        assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["fused"]) == (0.1, fused)
        assert optimizer.param_groups[0]["params"][0] is weight
