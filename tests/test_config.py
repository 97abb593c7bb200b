"""The configuration: files, flags, pairs, stages, and what is said about mistakes."""

import ast
from pathlib import Path

import pytest

from magnifier_plugin import config_tree
from magnifier_plugin.config import ConfigError, load_config, stage_settings

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
MARKET = next(path for path in CONFIGS if path.stem == "magnifier_market")


def schedule(cfg):
    keys = ("max_epoch", "lr", "warmup_epoch", "stepsize")
    return [tuple(stage[key] for key in keys) for stage in stage_settings(cfg)]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_file_loads(path):
    cfg = load_config(path)
    assert cfg.test.normalize_feature
    assert cfg.train.max_epoch == sum(stage["max_epoch"] for stage in cfg.stages)


@pytest.mark.parametrize("path", [p for p in CONFIGS if p.stem != "magnifier_demo"], ids=str)
def test_the_papers_numbers(path):
    cfg = load_config(path)
    assert schedule(cfg) == [(460, 3.5e-4, 10, [40, 70]), (40, 1e-3, 0, [])]
    assert (cfg.data.height, cfg.data.width) == (384, 192)
    assert (cfg.train.batch_size, cfg.sampler.num_instances) == (64, 4)
    assert (cfg.magnifier.gamma, cfg.magnifier.mask_weight) == (2e-3, 2.0)
    assert cfg.data.transforms == ["random_flip", "pad_crop", "random_erase"]
    assert (cfg.train.weight_decay, cfg.train.gamma, cfg.train.warmup_factor) == (5e-4, 0.1, 0.01)


def test_every_key_is_explained():
    source = Path(config_tree.__file__).read_text(encoding="utf-8")
    lines = source.splitlines()
    plain = [
        "".join(lines[node.lineno - 2 : node.lineno])
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Assign)
        and not isinstance(node.value, ast.Call)
        and isinstance(node.targets[0], ast.Attribute)
    ]
    self_explaining = ("lr", "weight_decay", "batch_size", "momentum", "dampening", "nesterov")
    self_explaining += ("alpha", "beta1", "beta2", "norm_std", "base_lr_mult", "seed", "topk")
    for line in plain:
        key = line.split("=")[-2].strip()
        assert "#" in line or key.endswith(self_explaining), line


def test_later_arguments_win(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("data:\n  root: file\n  width: 64\n  height: 96\n")
    cfg = load_config(file, {"data.root": "flag", "data.width": 32}, ["data.root", "pair"])
    assert (cfg.data.root, cfg.data.width, cfg.data.height) == ("pair", 32, 96)
    assert cfg.is_frozen()


def test_values_come_to_their_type():
    pairs = "train.lr 1e-3 magnifier.mask_weight 1 data.sources a,b amp False data.transforms x"
    cfg = load_config(None, {}, pairs.split())
    assert (cfg.train.lr, cfg.magnifier.mask_weight, cfg.amp) == (1e-3, 1.0, "off")
    assert isinstance(cfg.magnifier.mask_weight, float)
    assert cfg.data.sources == ["a", "b"]
    assert cfg.data.transforms == ["x"]


class TestStages:
    def test_one_stage_is_torchreids(self):
        cfg = load_config(None, {}, ["train.max_epoch", "7", "train.lr", "0.1"])
        assert schedule(cfg) == [(7, 0.1, 0, [20])]

    def test_stage_keys_on_the_command_line(self):
        cfg = load_config(MARKET, {}, ["stages.2.lr", "5e-4", "stages.1.max_epoch", "100"])
        assert schedule(cfg) == [(100, 3.5e-4, 10, [40, 70]), (40, 5e-4, 0, [])]
        assert cfg.train.max_epoch == 140

    def test_a_third_stage_is_one_more_entry(self):
        cfg = load_config(MARKET, {}, ["stages.3.max_epoch", "10", "stages.3.lr", "1e-5"])
        assert schedule(cfg)[2] == (10, 1e-5, 10, [40, 70])
        assert cfg.train.max_epoch == 510

    def test_max_epoch_scales_the_stages(self):
        cfg = load_config(MARKET, {}, ["train.max_epoch", "50"])
        assert schedule(cfg) == [(46, 3.5e-4, 1, [4, 7]), (4, 1e-3, 0, [])]
        cfg = load_config(MARKET, {}, ["train.max_epoch", "2"])
        assert [stage[0] for stage in schedule(cfg)] == [1, 1]

    def test_typed_steps_are_not_scaled(self):
        pairs = ["train.max_epoch", "50", "train.stepsize", "[9]", "stages.1.warmup_epoch", "3"]
        assert schedule(load_config(MARKET, {}, pairs))[0] == (46, 3.5e-4, 3, [9])


class TestMistakes:
    @pytest.mark.parametrize(
        ("pairs", "message"),
        [
            (["train.lrr", "1"], "did you mean train.lr?"),
            (["magnifer.keep", "2"], "did you mean magnifier.keep?"),
            (["model", "x"], "unknown configuration key model"),
            (["stages.1.lrr", "1"], "did you mean stages.1.lr?"),
            (["stages.4.lr", "1"], "N from 1 to 3"),
            (["stages.0.lr", "1"], "N from 1 to 3"),
            (["train.lr", "fast"], "expected float as in 0.00035, got str 'fast'"),
            (["train.batch_size", "2.5"], "expected int"),
            (["amp", "maybe"], "on, off or auto"),
            (["train.lr"], "KEY VALUE pairs"),
            (["train.max_epoch", "1"], "at least an epoch each"),
            (["stages", "3"], "expected a list of entries"),
        ],
    )
    def test_on_the_command_line(self, pairs, message):
        with pytest.raises(ConfigError) as caught:
            load_config(MARKET, {}, pairs)
        assert message in str(caught.value)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("train:\n  lrr: 1\n", "did you mean train.lr?"),
            ("- a\n", "expected keys and values"),
            ("a: [\n", "not readable as YAML"),
            ("stages:\n  - lr: 1\n  - lr: 2\n", "stages.1.max_epoch"),
            ("stages:\n  - max_epoch: 0\n", "at least one epoch"),
            (
                "train:\n  max_epoch: 3\nstages:\n  - max_epoch: 1\n  - max_epoch: 2\n",
                "leave it out of the file",
            ),
        ],
    )
    def test_in_a_file(self, tmp_path, text, message):
        file = tmp_path / "bad.yaml"
        file.write_text(text)
        with pytest.raises(ConfigError) as caught:
            load_config(file)
        assert message in str(caught.value)

    def test_no_file_runs_code(self, tmp_path):
        file = tmp_path / "bad.yaml"
        file.write_text("model: !!python/object/apply:os.system ['touch gone']\n")
        with pytest.raises(ConfigError, match="not readable"):
            load_config(file)
        with pytest.raises(FileNotFoundError, match="expected a configuration file"):
            load_config(tmp_path / "missing.yaml")
