"""The values that each key of the configuration takes, and the errors for others."""

import math
from pathlib import Path

import pytest
import torchreid

from magnifier_plugin.catalogue.numbering import SAME_CAMERA
from magnifier_plugin.config import ConfigError, load_config
from magnifier_plugin.config_systems import VARIANTS
from magnifier_plugin.config_tree import default_config
from magnifier_plugin.config_values import CHECKS
from magnifier_plugin.engine.stages import SCHEDULERS
from magnifier_plugin.evaluation.distances import METRICS
from magnifier_plugin.evaluation.rerank import FORMS
from magnifier_plugin.models.backbone import BACKBONES
from magnifier_plugin.models.branches import FUSIONS
from magnifier_plugin.models.sampling import SAMPLINGS

MARKET = Path(__file__).parents[1] / "configs" / "magnifier_market.yaml"
PATH_KEYS = (
    *("data.root", "data.save_dir", "masks.dir", "test.conditions", "test.cache"),
    *("model.load_weights", "model.resume", "model.backbone_weights"),
)
STAGE_CHECKS = {"stages.N.optimizer", "stages.N.loss_weights.NAME"}

WHOLE = "a whole number of at least"
REFUSED = [
    ("amp", "fp8", "one of on, off, auto, bf16, fp16"),
    ("train.fused", "yes", "one of on, off, auto"),
    ("train.clip_grad", -1, "a number of at least 0"),
    ("train.accumulate", 0, f"{WHOLE} 1"),
    ("train.ema", 1, "of at least 0 and below 1"),
    ("train.compile", "yes", "True or False"),
    ("ddp.gather", "yes", "True or False"),
    ("ddp.sync_bn", "yes", "True or False"),
    ("train.checkpoint_freq", 0, f"{WHOLE} 1"),
    ("train.checkpoint_freq", "often", f"{WHOLE} 1"),
    ("train.checkpoint_minutes", -1, "a number of at least 0"),
    ("train.keep_freq", -1, f"{WHOLE} 0"),
    ("train.deterministic", "yes", "True or False"),
    ("train.print_freq", 0, f"{WHOLE} 1"),
    ("train.print_freq", "x", f"{WHOLE} 1"),
    ("train.print_freq", 2.5, f"{WHOLE} 1"),
    ("sampler.num_instances", 0, f"{WHOLE} 1"),
    ("sampler.num_instances", "four", f"{WHOLE} 1"),
    ("train.stepsize", 0, f"each {WHOLE} 1"),
    ("train.stepsize", "often", f"each {WHOLE} 1"),
    ("train.stepsize", [40, 0], f"each {WHOLE} 1"),
    ("train.stepsize", [40, 2.5], f"each {WHOLE} 1"),
    ("train.optim", 0, "one of adam, amsgrad, sgd, rmsprop, radam"),
    ("train.optim", "adamw", "did you mean adam?"),
    ("train.lr", 0, "a number above 0"),
    ("train.lr", "fast", "a number above 0"),
    ("train.lr", math.nan, "a number above 0"),
    ("train.lr", math.inf, "a number above 0"),
    ("train.lr", True, "a number above 0"),
    ("test.same_camera", "never", "one of drop, keep"),
    ("test.cache", True, "a path, or none"),
    ("data.height", 0, f"{WHOLE} 1"),
    ("data.height", "tall", f"{WHOLE} 1"),
    ("data.width", -1, f"{WHOLE} 1"),
    ("data.width", "x", f"{WHOLE} 1"),
    ("data.workers", -1, f"{WHOLE} 0"),
    ("data.workers", "all", f"{WHOLE} 0"),
    ("data.workers", True, f"{WHOLE} 0"),
    ("data.type", "video", "video data sets have no label maps"),
    ("data.k_tfm", 2, "expected 1; several views"),
    ("data.norm_mean", [0.5], "a list of 3 entries, each a number"),
    ("data.norm_std", [0.5, 0.5, 0], "a number above 0"),
    ("data.root", None, "expected a path, got None"),
    ("data.sources", [1], "each text"),
    ("data", "x", "expected keys below it, such as data.type"),
    ("train.batch_size", 0, f"{WHOLE} 1"),
    ("train.seed", 2**32, "from 0 to 4294967295"),
    ("train.scale", 0, "a number above 0"),
    ("train.warmup_factor", 1.5, "a number from 0 to 1"),
    ("train.lr_scheduler", "multistep", "did you mean multi_step?"),
    ("adam.beta1", 1, "of at least 0 and below 1"),
    ("use_gpu", 1, "expected True or False, got 1"),
    ("amp", "maybe", "one of on, off, auto"),
    ("test.dist_metric", "cosin", "did you mean cosine?"),
    ("test.ranks", [], "at least one entry"),
    ("test.ranks", [0], f"{WHOLE} 1"),
    ("test.eval_freq", -2, f"{WHOLE} -1"),
    ("test.rerank_lambda", 1.1, "from 0 to 1"),
    ("test.rerank_form", "Paper", "did you mean paper?"),
    ("loss.triplet.margin", -1, "a number of at least 0"),
    ("masks.max_missing", 30, "a number from 0 to 1"),
    ("magnifier.variant", "author", "did you mean authors?"),
    ("magnifier.branches", ["G", "sab"], "did you mean SAB?"),
    ("magnifier.keep", 8, "from 1 to 7"),
    ("magnifier.fusion", "LSTM", "did you mean lstm?"),
    ("dsa.textures", "dsa", "did you mean dsap?"),
    ("dsa.texture_size", 30, "a multiple of 4 of at least 4"),
    ("dsa.width", 0, "a number above 0, at most 16"),
    ("dsa.width", 16.5, "a number above 0, at most 16"),
    ("dsa.streams", [], "at least one entry"),
    ("dsa.weight_t", "x", "a number of at least 0"),
    ("synthetic.identities", "many", f"{WHOLE} 0, or None"),
    ("report.rankings", -1, f"{WHOLE} 0"),
    ("train.lrr", 1, "unknown configuration key train.lrr; did you mean train.lr?"),
    ("magnifer.keep", 2, "did you mean magnifier.keep?"),
    ("stage.2.lr", 1, "did you mean stages.2.lr?"),
]


def leaves(tree, prefix=""):
    for key, value in tree.items():
        if hasattr(value, "items"):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


TREE = dict(leaves(default_config()))


def test_nothing_is_suggested_if_nothing_is_near():
    with pytest.raises(ConfigError, match="each one of G, M, SAB, SFB, got 'G,X'$"):
        load_config(MARKET, {"magnifier.branches": "G,X"})


@pytest.mark.parametrize(("key", "value", "expected"), REFUSED)
def test_refused_values(tmp_path, key, value, expected):
    file = tmp_path / "a.yaml"
    file.write_text(f"{key}: {value!r}\n".replace("inf", ".inf").replace("nan", ".nan"))
    for origin, arguments in (
        ("command line", (MARKET, {key: value})),
        ("command line", (MARKET, {}, [key, str(value)])),
        (str(file), (file,)),
    ):
        if value is None and origin == str(file):
            file.write_text(f"{key}:\n")
        if value is None and len(arguments) == 3:
            continue  # the word None is text
        with pytest.raises(ConfigError) as caught:
            load_config(*arguments)
        message = str(caught.value)
        assert message.startswith(f"{origin}: ")
        assert key in message
        assert expected in message


def test_accepted_values():
    line = (
        "train.lr 1e-3 magnifier.mask_weight 1 data.sources a,b amp False data.transforms x "
        "train.stepsize 40,70 use_gpu false magnifier.branches G,M synthetic.twins 0 "
        "data.save_dir 2024 data.workers 0 test.eval_freq -1 train.new_layers []"
    )
    cfg = load_config(None, {}, line.split())
    assert (cfg.train.lr, cfg.magnifier.mask_weight, cfg.amp) == (1e-3, 1.0, "off")
    assert isinstance(cfg.magnifier.mask_weight, float)
    assert (cfg.data.sources, cfg.data.transforms) == (["a", "b"], ["x"])
    assert (cfg.train.stepsize, cfg.use_gpu) == ([40, 70], False)
    assert (cfg.magnifier.branches, cfg.synthetic.twins) == (["G", "M"], 0.0)
    assert (cfg.data.save_dir, cfg.data.workers, cfg.test.eval_freq) == ("2024", 0, -1)
    assert cfg.train.new_layers == []
    assert cfg.synthetic.identities is None


@pytest.mark.parametrize("word", ["none", "None", "NONE", " none ", ""])
@pytest.mark.parametrize("key", ["test.cache", "model.load_weights", "model.resume"])
def test_none_is_no_file_and_no_folder(tmp_path, key, word):
    """As in `model.backbone_weights none`; formerly a folder named none was made."""
    section, name = key.split(".")
    for value in (word, None):
        file = tmp_path / "a.yaml"
        file.write_text(f"{key}: {'' if value is None else repr(value)}\n")
        tested = [load_config(None, {}, [key, word]), load_config(file)]
        tested.append(load_config(None, {key: value}))
        assert [cfg[section][name] for cfg in tested] == ["", "", ""]
    assert load_config(None, {}, [key, "none/x"])[section][name] == "none/x"
    assert load_config(None, {}, ["model.backbone_weights", word]).model.backbone_weights == (
        "none" if word else ""
    )


@pytest.mark.parametrize("key", PATH_KEYS)
def test_tilde_is_the_home_folder(tmp_path, monkeypatch, key):
    """In a YAML file no shell replaces it; formerly a folder named ~ was made."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))  # Windows
    section, name = key.split(".")
    file = tmp_path / "a.yaml"
    file.write_text(f"{key}: ~/x\n")
    assert load_config(file)[section][name] == str(tmp_path / "x")
    file.write_text(f"{key}: a/~/x\n")
    assert load_config(file)[section][name] == "a/~/x"


def test_text_that_yaml_makes_of_numbers(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("train: {lr: 1e-3, stepsize: '40,70'}\ndata: {workers: '2'}\n")
    cfg = load_config(file)
    assert (cfg.train.lr, cfg.train.stepsize, cfg.data.workers) == (1e-3, [40, 70], 2)


def test_the_table_covers_every_number_list_and_optional_key():
    assert set(CHECKS) - STAGE_CHECKS <= set(TREE)
    plain = {key for key, value in TREE.items() if isinstance(value, (bool, str))}
    assert set(TREE) - plain - {"stages"} <= set(CHECKS)


@pytest.mark.parametrize("key", sorted(set(CHECKS) - STAGE_CHECKS))
def test_defaults_pass_their_own_check(key):
    default = TREE[key]
    value = CHECKS[key].read(default)
    assert value == default
    assert type(value) is type(default)


def test_what_a_variant_sets_is_known_and_differs_from_the_default():
    for key, value in VARIANTS["authors"].items():
        assert TREE[key] != value
        assert key not in CHECKS or CHECKS[key].read(value) == value


@pytest.mark.parametrize(
    ("key", "choices"),
    [
        ("train.lr_scheduler", SCHEDULERS),
        ("train.optim", torchreid.optim.optimizer.AVAI_OPTIMS),
        ("test.dist_metric", METRICS),
        ("test.rerank_form", FORMS),
        ("test.same_camera", SAME_CAMERA),
        ("magnifier.backbone", BACKBONES),
        ("magnifier.fusion", FUSIONS),
        ("magnifier.sampling", SAMPLINGS),
        ("dsa.backbone", BACKBONES),
    ],
)
def test_choices_are_those_of_the_code(key, choices):
    assert sorted(CHECKS[key].choices) == sorted(choices)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "expected keys and values"),
        ("a: [\n", "expected YAML in UTF-8"),
        ("a: &b [1]\nc: *b\n", "aliases are not supported; write the value out"),
        ("train: {lr: 1}\ndata: {}\ntrain: {max_epoch: 2}\n", "the key 'train' is repeated"),
        (
            "train: {lr: 1}\ntrain.lr: 2\n",
            "train.lr: expected once, found in its section and dotted",
        ),
        *(
            (f"a: {value}\n", "are not supported; write the plain value")
            for value in (
                "!!bool maybe",
                "!!timestamp abc",
                '!!int ""',
                "!!binary aGk=",
                "!!set {x}",
                "! x",
                "!!seq [1]",
            )
        ),
        ("data:\n", "data: expected keys below it, such as data.type, got None"),
        ("train: {lrr: 1}\n", "did you mean train.lr?"),
    ],
)
def test_mistakes_in_a_file(tmp_path, text, message):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert message in str(caught.value)
