"""The configuration files, how they extend each other, and which values take precedence."""

import ast
from pathlib import Path

import pytest

from magnifier_plugin import config_tree
from magnifier_plugin.config import ConfigError, load_config, parse_pairs, stage_settings
from magnifier_plugin.engine.stages import Stage

CONFIGS = {path.stem: path for path in (Path(__file__).parents[1] / "configs").glob("*.yaml")}
AUTHORS = sorted(name for name in CONFIGS if name.endswith("_authors"))
MAGNIFIER = sorted(
    name
    for name in CONFIGS
    if name.startswith("magnifier_") and name not in (*AUTHORS, "magnifier_demo")
)
DSA = sorted(name for name in CONFIGS if name.startswith("dsa_") and name != "dsa_demo")
MARKET = CONFIGS["magnifier_market"]
VARIANT = {
    "magnifier.stem_relu": (True, False),
    "magnifier.mask_rescaling": ("bilinear", "nearest-corner"),
    "magnifier.fusion": ("gru", "lstm"),
    "magnifier.sab_triplet": (True, False),
    "magnifier.share_weighted": (False, True),
    "magnifier.sd_floor": (False, True),
    "magnifier.authors_bias": (False, True),
    "magnifier.deconvolution_init": ("kaiming", "normal"),
    "test.rerank_form": ("torchreid", "paper"),
}


def schedule(cfg):
    keys = ("max_epoch", "lr", "warmup_epoch", "stepsize", "optimizer", "loss_weights")
    return [tuple(stage[key] for key in keys) for stage in stage_settings(cfg)]


def value_of(cfg, key):
    for name in key.split("."):
        cfg = cfg[name]
    return cfg


def write(folder, **files):
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder / f"{next(iter(files))}.yaml"


class TestFiles:
    @pytest.mark.parametrize("name", sorted(CONFIGS))
    def test_every_file_loads_and_its_dump_loads_as_the_same(self, name, tmp_path):
        cfg = load_config(CONFIGS[name], {}, ["train.scale", "0.3"])
        assert cfg.test.normalize_feature
        assert cfg.train.max_epoch == sum(stage["max_epoch"] for stage in cfg.stages)
        assert load_config(write(tmp_path, dump=cfg.dump())) == cfg

    @pytest.mark.parametrize("name", MAGNIFIER)
    def test_magnifiernet_has_the_papers_numbers(self, name):
        cfg = load_config(CONFIGS[name])
        assert schedule(cfg) == [
            (460, 3.5e-4, 10, [40, 70], "fresh", {}),
            (40, 1e-3, 0, [], "fresh", {"sd": 2e-3}),
        ]
        assert (cfg.model.name, cfg.loss.name) == ("magnifiernet", "magnifier")
        assert (cfg.data.height, cfg.data.width) == (384, 192)
        assert (cfg.train.batch_size, cfg.sampler.num_instances) == (64, 4)
        assert cfg.sampler.train_sampler == "RandomIdentitySampler"
        assert cfg.data.transforms == ["random_flip", "pad_crop", "random_erase"]
        assert (cfg.train.optim, cfg.train.weight_decay, cfg.train.gamma) == ("adam", 5e-4, 0.1)
        assert (cfg.train.lr_scheduler, cfg.train.warmup_factor) == ("multi_step", 0.01)
        assert (cfg.loss.softmax.label_smooth, cfg.loss.triplet.margin) == (True, 0.3)
        assert (cfg.magnifier.keep, cfg.magnifier.sampling) == (4, "torso")
        assert (cfg.magnifier.mask_weight, cfg.magnifier.region_weight) == (2.0, 0.0125)
        assert (cfg.test.eval_freq, cfg.test.rerank) == (20, True)
        assert {key: value_of(cfg, key) for key in VARIANT} == {k: v[0] for k, v in VARIANT.items()}

    @pytest.mark.parametrize("name", DSA)
    def test_dsa_reid_has_the_papers_numbers(self, name):
        cfg = load_config(CONFIGS[name])
        steps = [60, 100, 140, 180, 220, 260, 300]
        assert schedule(cfg) == [(320, 8e-4, 20, steps, "fresh", {})]
        assert cfg.train.lr * cfg.train.warmup_factor == pytest.approx(8e-6)
        assert (cfg.train.optim, cfg.train.weight_decay, cfg.train.gamma) == ("adam", 5e-4, 0.5)
        assert (cfg.model.name, cfg.loss.name) == ("dsa_reid", "dsa")
        assert (cfg.data.height, cfg.data.width) == (256, 128)
        assert (cfg.train.batch_size, cfg.sampler.num_instances) == (64, 4)
        assert cfg.data.transforms == ["random_flip", "random_crop", "random_erase"]
        assert (cfg.loss.softmax.label_smooth, cfg.loss.triplet.margin) == (True, 0.3)
        assert (cfg.dsa.weight_f, cfg.dsa.weight_z, cfg.dsa.weight_t) == (0.5, 1.0, 1.5)
        assert (cfg.dsa.streams, cfg.dsa.branches) == (["MF", "DSAG"], ["global", "local"])
        assert (cfg.dsa.textures, cfg.dsa.texture_size, cfg.dsa.fusion) == ("dsap", 32, "add")
        assert (cfg.dsa.test_features, cfg.dsa.width, cfg.dsa.pretrained_head) == ("f", 1.0, False)

    @pytest.mark.parametrize("name", sorted(set(CONFIGS) - {"magnifier_base", "dsa_base"}))
    def test_each_file_has_its_own_data_set_and_folder(self, name):
        cfg = load_config(CONFIGS[name])
        word = name.split("_")[-1 if name == "world" else 1]
        rendered = dict.fromkeys(("demo", "world"), "synthetic")
        source = {"market": "market1501", **rendered}.get(word, word)
        assert (cfg.data.sources, cfg.data.targets) == ([source], [source])
        assert cfg.data.save_dir == f"log/{name}"
        assert cfg.cuhk03.labeled_images == ("_labeled" in name)

    def test_the_demos_are_small(self):
        magnifier, dsa = (load_config(CONFIGS[f"{name}_demo"]) for name in ("magnifier", "dsa"))
        assert schedule(magnifier)[0][:3] == (25, 1e-3, 4)
        assert schedule(magnifier)[1][:3] == (5, 3e-4, 1)
        assert magnifier.stages[1]["loss_weights"] == {"sd": 1.0}
        assert (dsa.dsa.backbone, dsa.dsa.texture_size, dsa.dsa.width) == ("resnet18", 16, 0.25)
        for cfg, epochs in ((magnifier, 30), (dsa, 24)):
            assert (cfg.train.max_epoch, cfg.train.lr_scheduler) == (epochs, "cosine")
            assert (cfg.data.height, cfg.train.batch_size) == (96, 32)
            assert (cfg.model.pretrained, cfg.synthetic.identities) == (False, 160)

    def test_the_world_has_few_people_and_many_epochs(self):
        cfg = load_config(CONFIGS["world"])
        assert [stage["max_epoch"] for stage in cfg.stages] == [60, 15]
        assert (cfg.synthetic.identities, cfg.data.height) == (160, 192)
        assert (cfg.synthetic.twins, cfg.synthetic.twin_details) == (0.5, "regions")
        assert (cfg.model.name, cfg.model.pretrained, cfg.test.eval_freq) == (
            *("magnifiernet", False),
            -1,
        )


class TestAuthors:
    @pytest.mark.parametrize(
        ("name", "epochs", "steps", "gamma", "last"),
        [
            ("magnifier_market_authors", 460, [40, 70], 1e-2, 3.5e-6),
            ("magnifier_cuhk03_labeled_authors", 560, [40], 1e-2, 3.5e-5),
            ("magnifier_cuhk03_detected_authors", 560, [40], 1e-3, 3.5e-5),
        ],
    )
    def test_learning_rate_of_every_epoch(self, name, epochs, steps, gamma, last):
        cfg = load_config(CONFIGS[name])
        first, second = stage_settings(cfg)
        assert (first["max_epoch"], second["max_epoch"]) == (epochs, 40)
        assert (first["loss_weights"], second["loss_weights"]) == ({}, {"sd": gamma})
        assert (first["optimizer"], second["optimizer"]) == ("fresh", "keep")
        keys = ("max_epoch", "lr", "lr_scheduler", "stepsize", "warmup_epoch", "warmup_factor")
        stage = Stage(**{key: second[key] for key in keys}, lr_gamma=second["gamma"])
        for epoch in range(epochs + 40):
            ticks = epoch + 1  # their scheduler steps at the start of an epoch
            warm = min(1.0, 0.01 + 0.99 * ticks / 10)
            theirs = 3.5e-4 * warm * 0.1 ** sum(ticks >= step for step in steps)
            assert stage.lr * stage.lr_factor(epoch) == pytest.approx(theirs)
        assert stage.lr * stage.lr_factor(epochs) == pytest.approx(last)

    @pytest.mark.parametrize("name", AUTHORS)
    def test_the_variant_decides_and_explicit_keys_win(self, name):
        cfg = load_config(CONFIGS[name])
        assert {key: value_of(cfg, key) for key in VARIANT} == {k: v[1] for k, v in VARIANT.items()}
        for key, (paper, _) in VARIANT.items():
            assert value_of(load_config(CONFIGS[name], {}, [key, str(paper)]), key) == paper
            assert value_of(load_config(CONFIGS[name], {key: paper}), key) == paper

    def test_keys_in_files_win_whichever_file_chooses_the_variant(self, tmp_path):
        child = write(
            tmp_path,
            child="extends: base.yaml\nmagnifier: {variant: authors, sd_floor: False}\n",
            base="magnifier: {fusion: concat}\n",
        )
        magnifier = load_config(child).magnifier
        assert (magnifier.fusion, magnifier.sd_floor) == ("concat", False)
        assert (magnifier.authors_bias, magnifier.stem_relu) == (True, False)
        assert load_config(child, {}, ["magnifier.variant", "paper"]).magnifier.stem_relu

    def test_on_the_command_line(self):
        cfg = load_config(MARKET, {}, ["magnifier.variant", "authors"])
        assert (cfg.magnifier.fusion, cfg.test.rerank_form) == ("lstm", "paper")
        with pytest.raises(ConfigError, match="paper, authors, got 'author'; did you mean authors"):
            load_config(MARKET, {}, ["magnifier.variant", "author"])


class TestExtends:
    def test_mappings_merge_and_lists_are_replaced(self, tmp_path):
        (tmp_path / "sub").mkdir()
        write(tmp_path, base="data: {root: a, width: 64, sources: [x, y]}\ntrain: {lr: 0.5}\n")
        write(
            tmp_path / "sub",
            middle="extends: ../base.yaml\ndata: {width: 32}\nstages: [{max_epoch: 3, lr: 0.25}]\n",
        )
        file = write(
            tmp_path,
            file="extends: sub/middle.yaml\ndata: {sources: [z]}\nstages: [{max_epoch: 7}]\n",
        )
        cfg = load_config(file)
        assert (cfg.data.root, cfg.data.width, cfg.data.sources) == ("a", 32, ["z"])
        assert [stage[:2] for stage in schedule(cfg)] == [(7, 0.5)]

    def test_stages_as_a_mapping_are_merged(self, tmp_path):
        base = "stages: [{max_epoch: 3}, {max_epoch: 4, lr: 0.5}]\n"
        child = "extends: base.yaml\nstages: {2: {max_epoch: 9, loss_weights: {sd: 1}}}\n"
        cfg = load_config(write(tmp_path, child=child, base=base))
        assert [stage[:2] for stage in schedule(cfg)] == [(3, 3e-4), (9, 0.5)]
        assert cfg.stages[1]["loss_weights"] == {"sd": 1.0}

    @pytest.mark.parametrize(
        ("files", "parts"),
        [
            ({"a": "extends: b.yaml\n"}, ("a.yaml", "b.yaml: expected a config", "found none")),
            ({"a": "extends: b.yaml\n", "b": "extends: a.yaml\n"}, ("a.yaml", "b.yaml", "circle")),
            ({"a": "extends: a.yaml\n"}, ("a.yaml →", "circle")),
            (
                {"a": "extends: b.yaml\n", "b": "extends: [c.yaml]\n"},
                ("a.yaml →", "b.yaml: extends: expected the path of one file, got ['c.yaml']"),
            ),
            ({"a": "extends:\n"}, ("a.yaml: extends: expected the path of one file, got None",)),
            ({"a": "extends: b.yaml\n", "b": "train: {lrr: 1}\n"}, ("b.yaml: unknown", "train.lr")),
        ],
    )
    def test_mistakes(self, tmp_path, files, parts):
        with pytest.raises(ConfigError) as caught:
            load_config(write(tmp_path, **files))
        for part in parts:
            assert part in str(caught.value)


def test_every_key_is_explained():
    source = Path(config_tree.__file__).read_text(encoding="utf-8")
    lines = source.splitlines()
    self_explaining = ("lr", "weight_decay", "batch_size", "momentum", "dampening", "nesterov")
    self_explaining += ("alpha", "beta1", "beta2", "norm_std", "base_lr_mult", "seed", "topk")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
            key, line, before = node.targets[0].attr, lines[node.lineno - 1], lines[node.lineno - 2]
            explained = "#" in line or before.strip().startswith("#")
            section = isinstance(node.value, ast.Call)
            assert explained or section or key.endswith(self_explaining), line


def test_later_arguments_win(tmp_path):
    file = write(tmp_path, a="data: {root: file, width: 64, height: 96}\n")
    cfg = load_config(file, {"data.root": "flag", "data.width": 32}, ["data.root", "pair"])
    assert (cfg.data.root, cfg.data.width, cfg.data.height) == ("pair", 32, 96)
    assert cfg.is_frozen()


def test_parse_pairs():
    line = "train.lr 1e-3 train.stepsize [4,7] data.sources a,b amp on data.save_dir 007 x.y True"
    assert parse_pairs(line.split()) == {
        **{"train.lr": 1e-3, "train.stepsize": [4, 7], "data.sources": "a,b", "amp": "on"},
        **{"data.save_dir": "007", "x.y": True},
    }
    assert parse_pairs("data.save_dir 2024 train.lr 1 train.lr 2".split()) == {
        **{"data.save_dir": "2024", "train.lr": 2},
    }
    with pytest.raises(ConfigError, match="KEY VALUE pairs"):
        parse_pairs(["train.lr"])


def test_no_file_runs_code(tmp_path):
    with pytest.raises(ConfigError, match="expected YAML in UTF-8"):
        load_config(write(tmp_path, bad="model: !!python/object/apply:os.system ['touch gone']\n"))
    with pytest.raises(FileNotFoundError, match="expected a configuration file"):
        load_config(tmp_path / "missing.yaml")


def test_a_missing_file_suggests_one_of_a_similar_name():
    hint = r"found none; did you mean \S*/magnifier_market.yaml\?$"
    with pytest.raises(FileNotFoundError, match=hint):
        load_config(MARKET.with_suffix(".yml"))
    with pytest.raises(FileNotFoundError, match="found none$"):
        load_config(MARKET.with_name("x"))
