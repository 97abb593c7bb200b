"""torchreid's own configuration files, as in the folder configs of its repository.

They are written here by the keys and values of its documentation: nothing is downloaded.
"""

import json

import pytest
import yaml
from test_main import MARKET, run

from magnifier_plugin.builders import build_stages, find_system
from magnifier_plugin.config import ConfigError, load_config, stage_settings
from magnifier_plugin.models.magnifier_options import warn_no_masks_are_learnt
from magnifier_plugin.recipe import check_options

IMAGES = {
    "type": "image",
    "sources": ["market1501"],
    "targets": ["market1501"],
    "height": 256,
    "width": 128,
    "combineall": False,
}
SOFTMAX = {"name": "softmax", "softmax": {"label_smooth": True}}
TEST = {
    "batch_size": 100,
    "dist_metric": "euclidean",
    "normalize_feature": False,
    "evaluate": False,
    "eval_freq": -1,
    "rerank": False,
}
STEPS = {
    "optim": "amsgrad",
    "lr": 0.0003,
    "max_epoch": 60,
    "batch_size": 32,
    "fixbase_epoch": 5,
    "open_layers": ["classifier"],
    "lr_scheduler": "single_step",
    "stepsize": [20],
}
COSINE = {
    "optim": "amsgrad",
    "lr": 0.0015,
    "max_epoch": 250,
    "batch_size": 64,
    "fixbase_epoch": 10,
    "open_layers": ["classifier"],
    "lr_scheduler": "cosine",
}


def configuration(name, transforms, train, **test):
    return {
        "model": {"name": name, "pretrained": True},
        "data": {**IMAGES, "transforms": transforms, "save_dir": f"log/{name}_market1501_softmax"},
        "loss": SOFTMAX,
        "train": train,
        "test": {**TEST, **test},
    }


OSNET = "im_osnet_x1_0_softmax_256x128_amsgrad_cosine"
STOCK = {
    "im_r50_softmax_256x128_amsgrad": configuration("resnet50", ["random_flip"], STEPS),
    "im_r50fc512_softmax_256x128_amsgrad": configuration("resnet50_fc512", ["random_flip"], STEPS),
    "im_osnet_x1_0_softmax_256x128_amsgrad": configuration(
        *(
            "osnet_x1_0",
            ["random_flip"],
            {**STEPS, "lr": 0.0015, "max_epoch": 150, "stepsize": [60]},
        ),
        batch_size=300,
    ),
    OSNET: configuration("osnet_x1_0", ["random_flip", "random_erase"], COSINE, batch_size=300),
    "im_osnet_ain_x1_0_softmax_256x128_amsgrad_cosine": configuration(
        "osnet_ain_x1_0",
        ["random_flip", "color_jitter"],
        {**COSINE, "max_epoch": 100},
        batch_size=300,
        dist_metric="cosine",
    ),
}
SMALL = (
    "data.height 32 data.width 16 data.workers 0 train.batch_size 4 model.pretrained False "
    "train.max_epoch 2 amp off"
).split()


@pytest.fixture
def stock(tmp_path):
    """The path of one of the files."""

    def write(name):
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(STOCK[name]))
        return file

    return write


@pytest.fixture
def train(stock, market_folder, tmp_path):
    """Trains two epochs with a file and further arguments; returns the exit status."""

    def start(name, *more):
        arch = more[:2] if more[:1] == ("-a",) else ()
        where = "--root", market_folder.root, "data.save_dir", tmp_path / "log"
        return run(*arch, *where, *SMALL, *more[len(arch) :], config=stock(name))

    return start


@pytest.mark.parametrize("name", STOCK)
def test_every_value_arrives(stock, name):
    cfg = load_config(stock(name))
    for section, values in STOCK[name].items():
        for key, value in values.items():
            assert cfg[section][key] == value
    (stage,) = stage_settings(cfg)
    for key in ("lr", "lr_scheduler", "max_epoch", "optim"):
        assert stage[key] == STOCK[name]["train"][key]


@pytest.mark.parametrize("name", ["im_r50_softmax_256x128_amsgrad", OSNET])
def test_torchreids_models_train(train, tmp_path, name):
    """The first epoch trains only the classifier, the second all layers."""
    assert train(name, "train.fixbase_epoch", "1") == 0
    results = json.loads((tmp_path / "log" / "results.json").read_text())["results"]
    assert 0 < results["market1501"]["mAP"] <= 1


@pytest.mark.parametrize("arch", ["magnifiernet_resnet18", "dsa_reid_resnet18"])
def test_the_layer_that_these_models_lack_is_refused_with_what_to_add(train, capsys, arch):
    assert train("im_r50_softmax_256x128_amsgrad", "-a", arch) == 2
    error = capsys.readouterr().err
    assert f"error: train.open_layers: {arch} has no layer classifier, expected some of " in error
    assert "; train.fixbase_epoch 0 trains all layers from the first epoch on" in error


@pytest.mark.parametrize(
    "words", ["train.fixbase_epoch 0", "train.fixbase_epoch 1 train.open_layers branches"]
)
def test_with_the_keys_of_the_readme_they_train(train, market_folder, words, recwarn):
    words = *words.split(), "loss.name", "magnifier", "masks.dir", market_folder.masks_dir
    assert train(OSNET, "-a", "magnifiernet_resnet18", *words) == 0
    assert not [found for found in recwarn if "mask loss" in str(found.message)]


def test_with_the_loss_of_the_file_a_warning_says_that_masks_are_not_learnt(train):
    warn_no_masks_are_learnt.cache_clear()
    with pytest.warns(UserWarning, match="without its mask loss.*scripts/main.py with loss.name"):
        assert train(OSNET, "-a", "magnifiernet_resnet18", "train.fixbase_epoch", "0") == 0


@pytest.mark.parametrize(
    ("section", "values", "reason"),
    [
        ("data", {"load_train_targets": False}, "there is no training on targets"),
        ("sampler", {"train_sampler_t": "RandomSampler"}, "there is no training on targets"),
        ("video", {"seq_len": 15}, "no video data sets"),
    ],
)
def test_keys_of_torchreid_that_are_not_accepted(tmp_path, section, values, reason):
    file = tmp_path / "all.yaml"
    file.write_text(yaml.safe_dump({section: values}))
    key = f"{section}.{next(iter(values))}"
    message = rf"all\.yaml: {key}: torchreid's key is not supported: .*{reason}.*; leave"
    with pytest.raises(ConfigError, match=message):
        load_config(file)


@pytest.mark.parametrize(
    "line",
    [
        "loss.name softmax",
        "loss.name triplet",
        "loss.name softmax model.name resnet50",
        "loss.name triplet model.name resnet50",
        "loss.name dsa model.name dsa_reid",
        "loss.name triplet model.name dsa_reid",
    ],
)
def test_a_systems_stages_with_another_loss(line):
    """Its second stage weights a loss term that other losses do not have."""
    cfg = load_config(MARKET, {}, line.split())
    check_options(cfg, find_system(cfg), line.split()[::2])
    assert [stage.loss_weights for stage in build_stages(cfg, find_system(cfg))] == [{}, {}]


def test_a_typed_weight_of_another_systems_term_is_refused():
    line = "loss.name triplet model.name resnet50 stages.2.loss_weights.sd 0.1".split()
    cfg = load_config(MARKET, {}, line)
    message = "stages.2.loss_weights.sd: has no effect, resnet50 is not a magnifiernet"
    with pytest.raises(ConfigError, match=message):
        check_options(cfg, find_system(cfg), line[::2])
