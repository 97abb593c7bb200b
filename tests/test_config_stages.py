"""Stages of a configuration: their keys, `train.scale`, `train.max_epoch`, `optimizer keep`."""

import logging
from pathlib import Path

import pytest

from magnifier_plugin.config import ConfigError, load_config, stage_settings

CONFIGS = Path(__file__).parents[1] / "configs"
MARKET = CONFIGS / "magnifier_market.yaml"
DSA = CONFIGS / "dsa_market.yaml"
AUTHORS = CONFIGS / "magnifier_market_authors.yaml"
TWO = "stages: [{max_epoch: 20}, {max_epoch: 10}]\n"


def load(file, line=""):
    return load_config(file, {}, line.split())


def schedule(cfg):
    keys = ("max_epoch", "lr", "warmup_epoch", "stepsize")
    return [tuple(stage[key] for key in keys) for stage in stage_settings(cfg)]


def refused(file, line=""):
    with pytest.raises(ConfigError) as caught:
        load(file, line)
    return str(caught.value)


@pytest.fixture
def write(tmp_path):
    def written(text):
        (tmp_path / "a.yaml").write_text(text)
        return tmp_path / "a.yaml"

    return written


class TestKeys:
    def test_without_stages_train_is_the_only_stage(self):
        (stage,) = stage_settings(load(None, "train.max_epoch 7 train.lr 0.1"))
        assert (stage["max_epoch"], stage["lr"], stage["stepsize"]) == (7, 0.1, [20])
        assert (stage["optimizer"], stage["loss_weights"]) == ("fresh", {})

    def test_on_the_command_line(self):
        cfg = load(MARKET, "stages.2.lr 5e-4 stages.1.max_epoch 100 stages.2.loss_weights.sd 0.01")
        assert schedule(cfg) == [(100, 3.5e-4, 10, [40, 70]), (40, 5e-4, 0, [])]
        assert cfg.train.max_epoch == 140
        assert stage_settings(cfg)[1]["loss_weights"] == {"sd": 0.01}

    def test_loss_weights_are_merged_by_name(self, write):
        file = write("stages: [{max_epoch: 1, loss_weights: {sd: 1, mask: 2}}]\n")
        cfg = load(file, "stages.1.loss_weights.sd 0 stages.1.loss_weights.x 1e-3")
        assert cfg.stages[0]["loss_weights"] == {"sd": 0.0, "mask": 2.0, "x": 1e-3}
        typed = load(file, "stages.1.loss_weights {'mask':3}").stages[0]["loss_weights"]
        assert typed == {"sd": 1.0, "mask": 3.0}

    def test_one_more_entry_adds_a_stage(self):
        cfg = load(MARKET, "stages.3.max_epoch 10 stages.3.lr 1e-5")
        assert schedule(cfg)[2] == (10, 1e-5, 10, [40, 70])
        assert cfg.train.max_epoch == 510
        cfg = load(DSA, "stages.2.max_epoch 10 stages.2.lr 1e-5")
        assert [stage[:2] for stage in schedule(cfg)] == [(320, 8e-4), (10, 1e-5)]
        assert cfg.train.max_epoch == 330

    def test_a_typed_list_replaces_all(self):
        cfg = load(MARKET, "stages [{'max_epoch':3}]")
        assert schedule(cfg) == [(3, 3.5e-4, 10, [40, 70])]

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("stages.1.lrr 1", "unknown configuration key stages.1.lrr; did you mean lr?"),
            ("stages.4.lr 1", "N from 1 to 3"),
            ("stages.0.lr 1", "N from 1 to 3"),
            ("stages.two.lr 1", "N from 1 to 3"),
            ("stages.2 1", "expected stages.N.KEY"),
            ("stages 3", "expected a list of entries"),
            ("stages.2.batch_size 4", "applies to the whole run; set train.batch_size"),
            ("stages.2.optimizer kept", "expected one of fresh, keep, got 'kept'; did you mean ke"),
            ("stages.2.loss_weights.sd -1", "sd: expected a number of at least 0, got -1"),
            ("stages.2.loss_weights.sd x", "sd: expected a number of at least 0, got 'x'"),
            ("stages.2.loss_weights 1", "expected weights by loss term"),
            ("stages.2.max_epoch 0", "stages.2.max_epoch: expected a whole number of at least 1"),
            ("stages.2.lr 0", "stages.2.lr: expected a number above 0, got 0"),
            ("stages.3.lr 1", "stages.3.max_epoch: expected a number of epochs"),
            ("stages.2.lr_scheduler single_step", "stages.2: lr_scheduler single_step expects a"),
        ],
    )
    def test_mistakes(self, line, message):
        assert message in refused(MARKET, line)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("stages:\n  - lr: 1\n  - lr: 2\n", "a.yaml: stages.1.max_epoch"),
            ("stages: [3]\n", "expected a list of entries"),
            ("stages:\n", "expected a list of entries, got None"),
            ("stages: [{max_epoch: 1, gamma: 0.1}]\n", "a.yaml: stages.1.gamma: no such key"),
            ("stages: [{max_epoch: 1, loss_weights: [sd]}]\n", "expected weights by"),
            ("train: {lr_scheduler: single_step, stepsize: []}\n", "stages.1: lr_scheduler single"),
        ],
    )
    def test_mistakes_in_a_file(self, write, text, message):
        assert message in refused(write(text))

    @pytest.mark.parametrize("key", ["stages.2.gamma", "magnifier.gamma", "magnifier.sd_stage"])
    def test_former_keys_of_gamma_are_refused(self, write, key):
        section, name = key.rsplit(".", 1)
        for message in (refused(MARKET, f"{key} 1"), refused(write(f"{TWO}{section}.{name}: 1\n"))):
            assert f"{key}: no such key" in message
            assert "the learning rate's factor is train.gamma" in message
            assert "stages.2.loss_weights.sd" in message


class TestScale:
    def test_epochs_warm_up_and_steps(self):
        cfg = load(MARKET, "train.scale 0.1")
        assert schedule(cfg) == [(46, 3.5e-4, 1, [4, 7]), (4, 1e-3, 0, [])]
        assert (cfg.train.max_epoch, cfg.train.scale) == (50, 1.0)
        cfg = load(MARKET, "train.scale 1e-3")
        assert schedule(cfg) == [(1, 3.5e-4, 0, [1, 1]), (1, 1e-3, 0, [])]
        cfg = load(DSA, "train.scale 0.5")
        assert schedule(cfg) == [(160, 8e-4, 10, [30, 50, 70, 90, 110, 130, 150])]
        cfg = load(MARKET, "train.scale 2")
        assert schedule(cfg)[0] == (920, 3.5e-4, 20, [80, 140])

    @pytest.mark.parametrize(
        ("line", "first"),
        [
            ("stages.1.max_epoch 7", (7, 3.5e-4, 1, [4, 7])),
            ("stages.1.warmup_epoch 3", (46, 3.5e-4, 3, [4, 7])),
            ("train.warmup_epoch 3", (46, 3.5e-4, 3, [4, 7])),
            ("train.stepsize [9]", (46, 3.5e-4, 1, [9])),
            ("stages.1.stepsize 9", (46, 3.5e-4, 1, [9])),
            ("stages [{'max_epoch':7,'warmup_epoch':3}]", (7, 3.5e-4, 3, [4, 7])),
        ],
    )
    def test_typed_keys_are_not_scaled(self, line, first):
        assert schedule(load(MARKET, f"train.scale 0.1 {line}"))[0] == first

    def test_a_typed_key_of_train_does_not_cover_a_stages_own(self, write):
        file = write("stages: [{max_epoch: 20, stepsize: [10]}, {max_epoch: 10}]\n")
        cfg = load(file, "train.scale 0.5 train.stepsize 8")
        assert [stage[3] for stage in schedule(cfg)] == [[5], [8]]

    def test_a_kept_optimizer_has_its_scaled_schedule(self):
        first, second = stage_settings(load(AUTHORS, "train.scale 0.1"))
        assert (first["stepsize"], first["warmup_epoch"]) == ([4, 7], 1)
        assert (second["stepsize"], second["warmup_epoch"]) == ([4, 7], 1)
        assert second["max_epoch"] == 4


class TestMaxEpoch:
    @pytest.mark.parametrize("line", ["train.max_epoch 50", "train.max_epoch 50 train.scale 0.2"])
    def test_a_contradiction_names_the_ways_out(self, line):
        message = refused(MARKET, line)
        assert "command line: train.max_epoch 50 contradicts the stages" in message
        assert "train.scale" in message
        assert "stages.N.max_epoch" in message

    def test_the_sum_is_fine(self, write):
        assert load(MARKET, "train.max_epoch 500").train.max_epoch == 500
        assert load(MARKET, "train.max_epoch 50 train.scale 0.1").train.max_epoch == 50
        file = write(f"{TWO}train: {{max_epoch: 30}}\n")
        assert load(file, "stages.2.max_epoch 1").train.max_epoch == 21

    def test_in_a_file(self, write):
        message = refused(write(f"{TWO}train: {{max_epoch: 3}}\n"), "train.max_epoch 30")
        assert "a.yaml: train.max_epoch 3 contradicts" in message
        assert "20 + 10 = 30" in message

    def test_a_file_may_list_stages_over_the_max_epoch_of_its_base(self, write, tmp_path):
        (tmp_path / "base.yaml").write_text("train: {max_epoch: 7}\n")
        assert load(write(f"extends: base.yaml\n{TWO}")).train.max_epoch == 30
        (tmp_path / "base.yaml").write_text(TWO)
        message = refused(write("extends: base.yaml\ntrain: {max_epoch: 7}\n"))
        assert "a.yaml: train.max_epoch 7 contradicts" in message

    def test_without_stages_it_is_the_only_stages(self):
        assert load(DSA, "train.max_epoch 7 train.scale 0.5").stages[0]["max_epoch"] == 7
        assert load(DSA, "stages.1.max_epoch 7").train.max_epoch == 7
        assert "contradicts" in refused(DSA, "train.max_epoch 7 stages.2.max_epoch 3")


class TestKeep:
    def test_the_settings_are_those_of_the_stage_before(self, write):
        file = write(
            "stages: [{max_epoch: 9, lr: 0.5, stepsize: [4], lr_scheduler: multi_step},"
            " {max_epoch: 3, optimizer: keep, loss_weights: {sd: 1}},"
            " {max_epoch: 2, optimizer: keep}, {max_epoch: 1}]\n"
            "train: {lr_scheduler: cosine}\n"
        )
        stages = stage_settings(load(file))
        assert [stage["optimizer"] for stage in stages] == ["fresh", "keep", "keep", "fresh"]
        assert [stage["lr"] for stage in stages] == [0.5, 0.5, 0.5, 3e-4]
        assert [stage["stepsize"] for stage in stages] == [[4], [4], [4], [20]]
        assert [stage["loss_weights"] for stage in stages] == [{}, {"sd": 1.0}, {}, {}]
        assert [stage["max_epoch"] for stage in stages] == [9, 3, 2, 1]

    def test_keys_of_a_file_are_dropped_with_a_warning(self, caplog):
        with caplog.at_level(logging.WARNING):
            cfg = load(MARKET, "stages.2.optimizer keep")
        assert schedule(cfg)[1] == (40, 3.5e-4, 10, [40, 70])
        assert set(cfg.stages[1]) == {"max_epoch", "optimizer", "loss_weights"}
        (record,) = caplog.records
        assert (
            "of stage 1; lr, stepsize, warmup_epoch of stage 2 are not used" in record.getMessage()
        )
        caplog.clear()
        load(AUTHORS)
        assert not caplog.records

    @pytest.mark.parametrize(
        "pair",
        [
            *("lr 1e-3", "lr_scheduler cosine", "stepsize 5", "warmup_epoch 0", "optim sgd"),
            *("warmup_factor 0.5", "weight_decay 0", "staged_lr True", "new_layers a"),
            "base_lr_mult 0.5",
        ],
    )
    def test_typed_keys_without_effect_are_refused(self, pair):
        message = refused(AUTHORS, f"stages.2.{pair}")
        assert f"command line: stages.2.{pair.split()[0]}: has no effect" in message
        assert "add stages.2.optimizer fresh" in message
        load(AUTHORS, f"stages.2.{pair} stages.2.optimizer fresh")

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("stages.1.optimizer keep", "command line: stages.1.optimizer: keep expects a stage"),
            ("train.lr_scheduler cosine", "the cosine of stage 1 ends at 0; use fresh"),
            ("stages.1.lr_scheduler cosine", "authors.yaml: stages.2.optimizer: keep expects a le"),
            ("stages [{'max_epoch':1},{'max_epoch':1,'optimizer':'keep','lr':1}]", "no effect"),
        ],
    )
    def test_mistakes(self, line, message):
        assert message in refused(AUTHORS, line)
