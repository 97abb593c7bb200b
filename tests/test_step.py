"""A training step: precision, clipping, accumulation, averages, losses that are not finite."""

import logging
import os
import re
import signal
from itertools import pairwise

import pytest
import torch
import torchreid
from conftest import torchreids_manager
from engines import QUICK, make_engine, names, weights
from tiny import tiny_model
from torch import nn

from magnifier_plugin.engine.epoch_loop import SavingOptions
from magnifier_plugin.engine.finite import are_finite, largest_statistic
from magnifier_plugin.engine.stages import Stage
from magnifier_plugin.engine.step import MAX_SKIPPED, StepOptions
from magnifier_plugin.losses.terms import CriterionOutput, Term

NAN = float("nan")
REASON = "because the last batch was skipped or weights are not finite"


def engine_with(folder, *, criterion=None, **options):
    """An engine in its first stage, ready for a step, and two batches."""
    stages = [Stage(max_epoch=9, optimizer_options={"optim": "sgd"}, lr=0.01)]
    engine = make_engine(folder, stages, step_options=StepOptions(**options), criterion=criterion)
    engine.state.begin(0)
    engine.state.enter(0)
    engine.set_model_mode("train")
    engine.datamanager.train_loader.dataset.set_inputs(("mask",))
    batches = list(engine.train_loader)
    return engine, engine.state.optimizer, batches[:2]


def gradients(engine, batch):
    """Gradients of one batch, by the name of the weight."""
    engine.model.zero_grad()
    engine.step._losses(batch, {})[0].backward()
    return {name: p.grad.clone() for name, p in engine.model.named_parameters()}


def seeded(function, *arguments, **options):
    torch.manual_seed(3)  # SAB draws regions
    return function(*arguments, **options)


class Bad:
    """A criterion whose loss, or else only its gradient, is not finite for the batches in `bad`,
    counted from 0."""

    weights = {"cls": 1.0}  # noqa: RUF012

    def __init__(self, bad=(), *, only_gradient=False):
        self.bad, self.calls, self.only_gradient = set(bad), 0, only_gradient

    def __call__(self, outputs, pids, targets, weights):
        feature = outputs.branches["G"].feature
        loss, factor = feature.square().mean(), 1.0
        if self.calls in self.bad and self.only_gradient:
            loss = loss + (feature - feature.detach()).abs().sum().sqrt()  # its derivative at 0
        elif self.calls in self.bad:
            factor = NAN
        self.calls += 1
        return CriterionOutput({"cls": Term(loss * factor, 1.0)}, {"acc": torch.zeros(())})


class Huge:
    """A criterion whose gradients are finite, but not their norm in float32."""

    weights = {"cls": 1.0}  # noqa: RUF012

    def __call__(self, outputs, pids, targets, weights):
        loss = 1e25 * outputs.branches["G"].feature.mean()
        return CriterionOutput({"cls": Term(loss, 1.0)}, {})


class TestAccumulation:
    def test_a_step_has_the_mean_gradient_of_its_batches(self, market_folder):
        engine, optimizer, batches = engine_with(market_folder, accumulate=2)
        before = weights(engine)
        expected = [seeded(gradients, engine, batch) for batch in batches]
        for number, batch in enumerate(batches):
            engine.model.load_state_dict(before)
            seeded(engine.step, batch, optimizer, {})
            assert engine.step.accumulated == 1 - number
        for name, parameter in engine.model.named_parameters():
            mean = (expected[0][name] + expected[1][name]) / 2
            torch.testing.assert_close(parameter.grad, mean)
        changed = [n for n, p in engine.model.named_parameters() if not torch.equal(p, before[n])]
        assert changed

    def test_an_epochs_end_takes_the_batches_there_are(self, market_folder):
        engine, optimizer, (batch, _) = engine_with(market_folder, accumulate=8)
        start = weights(engine)
        seeded(engine.step, batch, optimizer, {})
        assert engine.step.accumulated == 1
        assert engine.step.finish(optimizer)
        assert engine.step.accumulated == 0
        after = weights(engine)
        engine, optimizer, _ = engine_with(market_folder)
        engine.model.load_state_dict(start)
        seeded(engine.step, batch, optimizer, {})
        assert all(torch.equal(value, after[name]) for name, value in weights(engine).items())

    def test_an_epoch_counts_its_batches(self, market_folder, tmp_path, monkeypatch):
        engine = make_engine(market_folder, step_options=StepOptions(accumulate=2))
        steps, epochs = [], []
        optimise, train = engine.step._optimise, engine.train

        def watched_optimise(optimizer, summed):
            steps.append((engine.epoch, summed))
            return optimise(optimizer, summed)

        def watched_train(*arguments):
            train(*arguments)
            epochs.append(len(engine.train_loader))

        monkeypatch.setattr(engine.step, "_optimise", watched_optimise)
        monkeypatch.setattr(engine, "train", watched_train)
        engine.run(save_dir=tmp_path, max_epoch=2)
        assert set(epochs) <= {2, 3}
        summed = {2: [2], 3: [2, 1]}
        assert steps == [(epoch, n) for epoch, count in enumerate(epochs) for n in summed[count]]

    def test_torchreids_sampler_ends_before_it_says(self, market, tmp_path, monkeypatch, caplog):
        folder = market(images=4)  # 3 × 8 images, 2 × 4 in a batch: 2 or 3 batches
        monkeypatch.setenv("MAGNIFIER_MASKS", str(folder.masks_dir))
        torchreid.utils.set_random_seed(1)
        options = {"train_sampler": "RandomIdentitySampler", "num_instances": 4}
        manager = torchreids_manager(folder, batch_size_train=8, **options)
        engine = torchreid.engine.ImageMagnifierEngine(
            manager,
            tiny_model(),
            stages=[Stage(max_epoch=6, **QUICK)],
            amp="off",
            step_options=StepOptions(accumulate=3),
        )
        trained, steps, batches = [], [], []
        step, optimise = engine.step.__call__, engine.step._optimise
        content = engine.state.content

        def watched_content():
            assert engine.step.accumulated == 0
            batches.append(len(trained))
            return content()

        monkeypatch.setattr(
            engine,
            "forward_backward",
            lambda data: trained.append(1) or step(data, engine.optimizer, {}),
        )
        monkeypatch.setattr(engine.step, "_optimise", lambda *a: steps.append(a[1]) or optimise(*a))
        monkeypatch.setattr(engine.state, "content", watched_content)
        with caplog.at_level(logging.INFO, "magnifier_plugin"):
            engine.run(save_dir=tmp_path)
        epochs = [after - before for before, after in pairwise([0, *batches[:6]])]
        assert min(epochs) < len(manager.train_loader) == 3
        assert steps == epochs
        lines = [r.message for r in caplog.records if r.message.startswith("epoch: [")]
        ends = [f"epoch: [{n}/6][{count}/3]" for n, count in enumerate(epochs, start=1)]
        assert [line.split("\t")[0] for line in lines] == ends


class TestClipping:
    def test_the_norm_of_all_gradients_is_bounded(self, market_folder):
        engine, optimizer, (batch, _) = engine_with(market_folder, clip_grad=1e-3)
        engine.step(batch, optimizer, {})
        norm = torch.stack([p.grad.norm() for p in engine.model.parameters()]).norm()
        assert norm == pytest.approx(1e-3, rel=1e-3)


class TestAverage:
    def test_formula(self, market_folder):
        engine, optimizer, batches = engine_with(market_folder, ema=0.15)
        name = "backbone.conv1.weight"
        average = weights(engine)[name]
        for step, batch in enumerate(batches, start=1):
            engine.step(batch, optimizer, {})
            decay = min(0.15, (1 + step) / (10 + step))
            average = decay * average + (1 - decay) * weights(engine)[name]
            torch.testing.assert_close(engine.step.average.state_dict()[name], average)
        own = weights(engine)
        with engine.step.tested_weights():
            torch.testing.assert_close(weights(engine)[name], average)
        assert all(torch.equal(value, own[key]) for key, value in weights(engine).items())

    def test_weights_loaded_after_training_are_tested_themselves(self, market_folder, caplog):
        engine, optimizer, (batch, _) = engine_with(market_folder, ema=0.9)
        engine.step(batch, optimizer, {})
        with engine.step.tested_weights():
            pass
        assert "replaced" not in caplog.text
        loaded = {key: torch.ones_like(value) for key, value in weights(engine).items()}
        engine.model.load_state_dict(loaded)
        with engine.step.tested_weights():
            assert all(torch.equal(value, loaded[key]) for key, value in weights(engine).items())
        assert "weights were replaced after its last training step" in caplog.text
        engine.step(batch, optimizer, {})
        with engine.step.tested_weights():
            assert weights(engine)["backbone.conv1.weight"].ne(1).any()

    def test_ctrl_c_leaves_the_models_own_weights(self, market_folder):
        engine, optimizer, (batch, _) = engine_with(market_folder, ema=0.9)
        engine.step(batch, optimizer, {})
        own, average, copied = weights(engine), engine.step.average.state_dict(), []
        average = {key: value.clone() for key, value in average.items()}

        class Interrupted(torch.overrides.TorchFunctionMode):
            def __torch_function__(self, function, types, args=(), kwargs=None):
                if function is torch.Tensor.copy_:
                    copied.append(1)
                    if len(copied) == 3:
                        raise KeyboardInterrupt
                return function(*args, **(kwargs or {}))

        with Interrupted(), pytest.raises(KeyboardInterrupt), engine.step.tested_weights():
            pass
        assert all(torch.equal(value, own[key]) for key, value in weights(engine).items())
        after = engine.step.average.state_dict()
        assert all(torch.equal(value, average[key]) for key, value in after.items())

    def test_averages_are_tested_and_saved(self, market_folder, tmp_path, monkeypatch):
        engine = make_engine(market_folder, step_options=StepOptions(ema=0.9))
        seen = []
        test = engine.tester.test
        monkeypatch.setattr(
            engine.tester, "test", lambda **o: (seen.append(weights(engine)), test(**o))
        )
        engine.run(save_dir=tmp_path, max_epoch=1)
        saved = torch.load(tmp_path / "model" / "model.pth.tar-1", weights_only=True)
        own, average = weights(engine), engine.step.average.state_dict()
        assert not torch.equal(own["backbone.conv1.weight"], average["backbone.conv1.weight"])
        for name, value in average.items():
            assert torch.equal(seen[-1][name], value), name
            assert torch.equal(saved["state_dict"][name], value), name
            assert torch.equal(saved["step"]["weights"][name], own[name]), name

    def test_a_checkpoint_without_averages_starts_them(self, market_folder, tmp_path):
        make_engine(market_folder).run(save_dir=tmp_path, max_epoch=1)
        engine = make_engine(market_folder, step_options=StepOptions(ema=0.9))
        engine.resume(tmp_path / "model" / "model.pth.tar-1")
        average, own = engine.step.average.state_dict(), weights(engine)
        assert all(torch.equal(value, own[name]) for name, value in average.items())


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")  # fp16 skips steps
@pytest.mark.parametrize(
    ("amp", "options"),
    [
        ("off", {"ema": 0.9, "accumulate": 2, "clip_grad": 0.5}),
        ("fp16", {"ema": 0.9}),
        ("off", {}),
    ],
)
def test_resuming_is_exact(market_folder, tmp_path, amp, options):
    def build():
        return make_engine(market_folder, amp=amp, step_options=StepOptions(**options))

    whole = build()
    whole.run(save_dir=tmp_path / "whole")
    build().run(save_dir=tmp_path / "parts", max_epoch=1)
    resumed = build()
    start = resumed.resume(tmp_path / "parts" / "model" / "model.pth.tar-1")
    resumed.run(save_dir=tmp_path / "parts", start_epoch=start)
    assert [e["loss"] for e in resumed.history] == [e["loss"] for e in whole.history]
    first, second = (engine.state.content() for engine in (whole, resumed))
    for name, value in first["state_dict"].items():
        assert torch.equal(second["state_dict"][name], value), name
    assert str(first["step"]) == str(second["step"])


class TestFp16:
    def test_the_scaler_skips_what_overflows(self, market_folder):
        engine = make_engine(market_folder, amp="fp16")
        engine.state.begin(0)
        engine.state.enter(0)
        engine.set_model_mode("train")
        engine.train_loader.dataset.set_inputs(("mask",))
        batch = next(iter(engine.train_loader))
        before = weights(engine)
        engine.step.scaler._init_scale = 2.0**126
        assert engine.step(batch, engine.state.optimizer, {})["loss"].isfinite()
        after = weights(engine)
        names = [name for name, _ in engine.model.named_parameters()]
        assert all(torch.equal(after[name], before[name]) for name in names)
        assert engine.step.scaler.get_scale() == 2.0**125
        assert engine.step.skipped == 0
        engine.step.reset()
        for _ in range(10):  # until the scale is small enough
            engine.step(batch, engine.state.optimizer, {})
        assert not torch.equal(weights(engine)["backbone.conv1.weight"], before[names[0]])

    def test_gradients_that_are_never_finite_stop_the_run(self, market_folder, caplog):
        """The scaler skips their steps silently; at a loss scale below 1 it is not the scale."""
        engine = make_engine(market_folder, amp="fp16", step_options=StepOptions(ema=0.5))
        engine.state.begin(0)
        engine.state.enter(0)
        engine.set_model_mode("train")
        engine.train_loader.dataset.set_inputs(("mask",))
        batch = next(iter(engine.train_loader))
        engine.model.backbone.conv1.weight.register_hook(lambda gradient: gradient * float("nan"))
        engine.step.scaler._init_scale = 4.0
        steps = 0
        with pytest.raises(FloatingPointError, match="10 batches in a row.*gradients are not"):
            for _ in range(20):
                engine.step(batch, engine.state.optimizer, {})
                steps += 1
        assert steps == 2 + MAX_SKIPPED - 1  # scales 2 and 1 may still be too large
        assert engine.step.average.steps == 0

    def test_other_precisions_scale_nothing(self, market_folder):
        for amp in ("off", "bf16"):
            assert not make_engine(market_folder, amp=amp).step.scaler.is_enabled()


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")  # nothing was trained
class TestNotFinite:
    @pytest.mark.parametrize("only_gradient", [False, True])
    @pytest.mark.parametrize("clip_grad", [0.0, 1.0])
    def test_the_step_is_skipped_and_counted(
        self, market_folder, tmp_path, caplog, only_gradient, clip_grad
    ):
        engine = make_engine(
            market_folder,
            [Stage(max_epoch=2, **QUICK)],
            criterion=Bad({1}, only_gradient=only_gradient),
            step_options=StepOptions(clip_grad=clip_grad, ema=0.9),
        )
        states = []
        forward = engine.forward_backward

        def watched(batch):
            losses = forward(batch)
            states.append((bool(losses), weights(engine)))
            return losses

        engine.forward_backward = watched
        with caplog.at_level(logging.INFO, "magnifier_plugin"):
            engine.run(save_dir=tmp_path, print_freq=1)
        assert [n for n, (trained, _) in enumerate(states) if not trained] == [1]
        for name, value in states[1][1].items():
            assert torch.equal(value, states[0][1][name]), name  # running statistics too
        reason = "loss is not finite: loss nan, cls nan, acc 0"
        if only_gradient:
            reason = "gradients are not finite: loss 0."
        assert f"Batch skipped, its {reason}" in caplog.text
        assert "acc 0; 1 in a row, 1 in this run" in caplog.text
        assert (engine.step.skipped, engine.step.skipped_in_a_row) == (1, 0)
        assert all(entry["loss"] == entry["loss"] for entry in engine.history)

    def test_running_statistics_that_overflow_are_not_kept(self, market_folder, caplog):
        engine, optimizer, (batch, _) = engine_with(market_folder)
        assert engine.step(batch, optimizer, {})
        engine.model.mask_module.head.upsample.weight.data *= 1e25  # batch norm makes it 0
        before = weights(engine)
        assert engine.step(batch, optimizer, {}) == {}
        assert re.search(r"its running statistics are not finite: loss \d", caplog.text)
        assert all(torch.equal(value, before[name]) for name, value in weights(engine).items())

    @pytest.mark.parametrize(
        ("model", "largest"),
        [
            (nn.Linear(2, 2), 0.0),
            (nn.Sequential(nn.BatchNorm1d(2, track_running_stats=False)), 0.0),
            (nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm2d(1)), 1.0),
        ],
    )
    def test_the_largest_statistic(self, model, largest):
        model.register_buffer("mask", torch.tensor([-float("inf"), 7.0]))  # its owner's business
        assert largest_statistic(model) == largest
        for name in [n for n, _ in model.named_buffers() if "running" in n]:
            buffer = model.get_buffer(name)
            kept = buffer.clone()
            for value in (-3e38, NAN, float("-inf")):
                buffer[-1] = value
                expected = torch.tensor(value, dtype=buffer.dtype).abs()
                assert torch.equal(largest_statistic(model).nan_to_num(5), expected.nan_to_num(5))
            buffer.copy_(kept)

    @pytest.mark.parametrize("value", [NAN, float("inf"), float("-inf")])
    def test_one_value_that_is_not_finite_is_found(self, value):
        tensors = [torch.ones(3), torch.tensor([1.0, value]), torch.ones(2)]
        assert not are_finite(tensors)
        assert are_finite([*tensors[::2], torch.tensor([-3e38, 1e30])])
        assert are_finite([])

    @pytest.mark.parametrize("clip_grad", [0.0, 1.0])
    def test_large_gradients_are_finite(self, market_folder, clip_grad):
        engine, optimizer, (batch, _) = engine_with(
            market_folder, criterion=Huge(), clip_grad=clip_grad
        )
        assert engine.step(batch, optimizer, {})
        gradients = [p.grad for p in engine.model.parameters() if p.grad is not None]
        assert (nn.utils.get_total_norm(gradients).isinf()) == (clip_grad == 0)
        assert engine.step.skipped == 0

    @pytest.mark.parametrize("only_gradient", [False, True])
    def test_ten_in_a_row_stop_the_run(self, market_folder, tmp_path, caplog, only_gradient):
        stages = [Stage(max_epoch=9, **QUICK)]
        bad = Bad(range(4, 99), only_gradient=only_gradient)  # in the second epoch
        engine = make_engine(market_folder, stages, criterion=bad)
        with pytest.raises(FloatingPointError, match=r"skipped 10 batches in a row.*c1s1_.*\.jpg"):
            engine.run(save_dir=tmp_path, print_freq=1, eval_freq=1)
        assert MAX_SKIPPED == 10
        assert engine.step.skipped == 10
        saved = tmp_path / "model" / "model.pth.tar-1"
        assert names(saved.parent) == ["model-best.pth.tar", saved.name]
        assert f"No checkpoint saved, {REASON}; the last good one is {saved}" in caplog.text
        content = torch.load(saved, weights_only=True)
        assert all(value.isfinite().all() for value in content["state_dict"].values())
        resumed = make_engine(market_folder, stages, criterion=Bad(range(9)))
        resumed.run(save_dir=tmp_path, start_epoch=resumed.resume(saved), max_epoch=9)
        assert resumed.step.skipped == 9
        assert names(saved.parent)[-1] == "model.pth.tar-9"

    def test_weights_that_are_not_finite_are_not_saved(self, market_folder, tmp_path):
        stages = [Stage(max_epoch=1, **QUICK), Stage(max_epoch=9, **QUICK)]
        engine = make_engine(market_folder, stages, criterion=Bad())
        step, weight = engine.forward_backward, engine.model.backbone.conv1.weight

        def broken(batch):
            losses = step(batch)
            if engine.epoch:
                nn.init.constant_(weight, NAN)
            return losses

        engine.forward_backward = broken
        with pytest.raises(FloatingPointError, match="skipped 10 batches in a row"):
            engine.run(save_dir=tmp_path)
        assert names(tmp_path / "model") == ["model.pth.tar-1"]

    def test_the_last_weights_are_saved_after_their_test(self, market_folder, tmp_path, caplog):
        bad = Bad({1, 2})
        engine = make_engine(market_folder, [Stage(max_epoch=1, **QUICK)], criterion=bad)
        engine.run(save_dir=tmp_path)
        assert engine.step.skipped_in_a_row == bad.calls - 1 > 0
        assert f"No checkpoint saved, {REASON}; the last good one is none" in caplog.text
        assert names(tmp_path / "model") == ["model-best.pth.tar", "model.pth.tar-1"]

    def test_a_checkpoint_that_was_due_is_saved_after_the_next_epoch(self, market_folder, tmp_path):
        stages, saving = [Stage(max_epoch=9, **QUICK)], SavingOptions(freq=2, minutes=0)
        bad = Bad()
        engine = make_engine(market_folder, stages, criterion=bad, saving=saving)
        train, saved = engine.train, []

        def watched(*arguments):
            bad.bad = set(range(bad.calls, bad.calls + 3)) if engine.state.epoch == 1 else ()
            train(*arguments)
            saved.append(engine.checkpoints.latest)

        engine.train = watched
        engine.run(save_dir=tmp_path, max_epoch=4)
        assert saved == [None, None, None, tmp_path / "model" / "model.pth.tar-3"]

    def test_a_signal_waits_for_a_batch_that_is_trained(self, market, tmp_path):
        folder = market(pids=(2, 5, 6, 7, 8, 9))  # 5 or 6 batches
        engine = make_engine(folder, [Stage(max_epoch=9, **QUICK)], criterion=Bad({1, 2}))
        step, calls = engine.forward_backward, []

        def stopping(batch):
            calls.append(batch)
            if len(calls) == 2:
                os.kill(os.getpid(), signal.SIGINT)
            return step(batch)

        engine.forward_backward = stopping
        with pytest.raises(KeyboardInterrupt):
            engine.run(save_dir=tmp_path)
        assert len(calls) == 4
        assert names(tmp_path / "model") == ["model.pth.tar-0-batch-4"]

    def test_an_accumulated_step_is_skipped(self, market_folder):
        bad = Bad({0}, only_gradient=True)
        engine, optimizer, batches = engine_with(market_folder, accumulate=2, criterion=bad)
        before = weights(engine)
        assert [bool(engine.step(batch, optimizer, {})) for batch in batches] == [True, False]
        assert all(torch.equal(value, before[name]) for name, value in weights(engine).items())
        assert (engine.step.skipped, engine.step.skipped_in_a_row) == (1, 1)
        engine.step(batches[0], optimizer, {})
        assert engine.step.skipped_in_a_row == 1  # until the optimiser's next step
        engine.step(batches[1], optimizer, {})
        assert engine.step.skipped_in_a_row == 0

    def test_an_epochs_last_step_is_skipped(self, market_folder):
        bad = Bad({0}, only_gradient=True)
        engine, optimizer, batches = engine_with(market_folder, accumulate=9, criterion=bad)
        before = weights(engine)
        assert engine.step(batches[0], optimizer, {})
        assert not engine.step.finish(optimizer)
        assert all(torch.equal(value, before[name]) for name, value in weights(engine).items())
        assert (engine.step.skipped, engine.step.skipped_in_a_row) == (1, 1)

    def test_an_accumulated_batch_is_left_out(self, market_folder):
        engine, optimizer, batches = engine_with(market_folder, accumulate=2)
        start = weights(engine)
        seeded(engine.step, batches[0], optimizer, {})
        broken = {**batches[1], "img": batches[1]["img"] * NAN}
        assert engine.step(broken, optimizer, {}) == {}
        after = weights(engine)
        engine, optimizer, _ = engine_with(market_folder)
        engine.model.load_state_dict(start)
        seeded(engine.step, batches[0], optimizer, {})
        assert all(torch.equal(value, after[name]) for name, value in weights(engine).items())


class TestFused:
    def stage(self, fused, optim="adam", **options):
        options = {"optim": optim, "weight_decay": 0.1, **options}
        return Stage(max_epoch=1, lr=0.01, fused=fused, optimizer_options=options)

    @pytest.mark.parametrize("optim", ["adam", "amsgrad", "sgd"])
    def test_equal_to_the_plain_form(self, optim):
        results = []
        for fused in ("on", "off", "auto"):
            torch.manual_seed(1)
            model = nn.Linear(3, 2)
            optimizer, schedule = self.stage(fused, optim).build_optimizer(model)
            assert bool(optimizer.param_groups[0]["fused"]) == (fused != "off")
            for step in range(3):
                optimizer.zero_grad()
                model(torch.ones(1, 3) * step).square().sum().backward()
                optimizer.step()
            schedule.step()
            results.append(model.weight)
        torch.testing.assert_close(results[0], results[1])
        assert torch.equal(results[0], results[2])

    def test_refused(self):
        with pytest.raises(ValueError, match="train.fused on: RMSprop has no fused form"):
            self.stage("on", "rmsprop").build_optimizer(nn.Linear(1, 1))
        with pytest.raises(ValueError, match="fused: expected one of on, off, auto, got 'yes'"):
            self.stage("yes")
        assert self.stage("auto", "rmsprop").build_optimizer(nn.Linear(1, 1))


def test_draws_of_sab_do_not_compile_the_network_again():
    """Random-torso with K̂ 4 has 18 draws; torch compiles a function for at most 8 of them."""
    network = tiny_model(5).train()
    compiled = torch.compile(network, backend="eager")
    images, mask = torch.rand(4, 3, 32, 16), torch.randint(0, 8, (4, 32, 16), dtype=torch.uint8)
    graphs = []
    for _ in range(6):
        compiled(images, mask)
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert graphs[0] > 0
    assert len(set(graphs)) == 1
    torch._dynamo.reset()


@pytest.mark.slow
def test_a_compiled_network_has_the_same_losses(market_folder):
    losses = []
    for compiled in (False, True):
        engine, optimizer, batches = engine_with(market_folder, compile=compiled)
        torch.manual_seed(1)
        losses.append([engine.step(batch, optimizer, {})["loss"].item() for batch in batches])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"clip_grad": -1}, "clip_grad: expected at least 0"),
        ({"accumulate": 0}, "accumulate: expected at least one batch"),
        ({"ema": 1.0}, "ema: expected a decay of at least 0 and below 1"),
    ],
)
def test_mistakes(option, message):
    with pytest.raises(ValueError, match=message):
        StepOptions(**option)
