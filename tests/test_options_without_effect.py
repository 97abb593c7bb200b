"""A typed key is refused if it has no effect because of other options."""

import logging
from dataclasses import replace

import pytest
from mask_inputs import PROJECT

from magnifier_plugin.builders import find_system
from magnifier_plugin.config import ConfigError, load_config
from magnifier_plugin.effects import NEEDS, TORCHREIDS_NEEDS
from magnifier_plugin.models.backbone import WEIGHTS_VARIABLE
from magnifier_plugin.recipe import check_options
from magnifier_plugin.systems import MAGNIFIER_CRITERION, SYSTEMS

MAGNIFIER, DSA = "magnifier_market", "dsa_market"
RESNET = ("model.name", "resnet50", "loss.name", "softmax", "stages", "[]", "train.max_epoch", "9")
SOFTMAX = ("loss.name", "softmax", "stages", "[]", "train.max_epoch", "9")
RENDERING = {
    **{f"synthetic.{key}": "8" for key in ("identities", "images", "seed")},
    **{"synthetic.train_identities": "4", "synthetic.cameras": "2"},
    **{f"synthetic.{key}": "0.5" for key in ("twins", "occlusion")},
    **{"synthetic.twin_details": "any", "synthetic.height": "64", "synthetic.width": "32"},
}
# Options → the keys that have no effect with them, and the reason.
LEFT = [
    (
        (MAGNIFIER, "magnifier.branches", "G,M,SFB"),
        ("magnifier.sampling", "magnifier.keep", "magnifier.sab_triplet"),
        "magnifier.branches G,M,SFB builds no SAB",
    ),
    (
        (MAGNIFIER, "magnifier.branches", "G,M,SAB"),
        ("magnifier.fusion", "magnifier.region_weight", "magnifier.sd_floor"),
        "magnifier.branches G,M,SAB builds no SFB",
    ),
    (
        (MAGNIFIER, "magnifier.branches", "G"),
        (
            *("magnifier.deconvolution_init", "magnifier.mask_weight"),
            *("magnifier.class_balanced_mask", "report.regions"),
        ),
        "magnifier.branches G builds no M",
    ),
    (
        (MAGNIFIER, "magnifier.branches", "G,M"),
        ("magnifier.mask_rescaling", "magnifier.share_weighted"),
        "magnifier.branches G,M builds no SAB or SFB",
    ),
    (
        (MAGNIFIER, "model.name", "magnifiernet_resnet18", "magnifier.backbone", "resnet34"),
        ("magnifier.backbone",),
        "magnifiernet_resnet18 has the backbone resnet18; set model.name magnifiernet",
    ),
    (
        (MAGNIFIER, "model.backbone_weights", "w.pth"),
        ("model.backbone_weights",),
        "model.pretrained False loads no ImageNet weights",
    ),
    (
        (MAGNIFIER, *SOFTMAX, "loss.triplet.weight_x", "0.5"),
        ("loss.triplet.margin", "loss.triplet.weight_t", "loss.triplet.weight_x"),
        "loss.name softmax is the cross entropy alone, with weight 1",
    ),
    ((MAGNIFIER,), ("report.textures",), "magnifiernet is not a dsa_reid"),
    ((DSA,), ("report.regions",), "dsa_reid is not a magnifiernet"),
    (
        (DSA, "model.name", "dsa_reid_resnet18", "dsa.backbone", "resnet50"),
        ("dsa.backbone",),
        "dsa_reid_resnet18 has the backbone resnet18; set model.name dsa_reid",
    ),
    (
        (DSA, "dsa.pretrained_head", "True"),
        ("dsa.pretrained_head",),
        "model.pretrained False loads no ImageNet weights",
    ),
    (
        (DSA, "dsa.streams", "MF"),
        ("dsa.fusion", "dsa.width", "dsa.textures", "dsa.texture_size", "report.textures"),
        "dsa.streams MF builds no DSAG-Stream",
    ),
    (
        (DSA, "dsa.streams", "DSAG", "dsa.test_features", "z"),
        ("dsa.weight_f", "model.backbone_weights"),
        "dsa.streams DSAG builds no MF-Stream",
    ),
    (
        (DSA, "loss.name", "triplet"),
        ("dsa.fusion", "dsa.width", "dsa.textures", "dsa.texture_size", "report.textures"),
        "loss.name triplet builds no DSAG-Stream",
    ),
    (
        (DSA, "dsa.streams", "MF,DSAG"),
        ("loss.triplet.weight_t", "loss.triplet.weight_x"),
        "loss.name dsa uses dsa.weight_f, dsa.weight_z and dsa.weight_t instead",
    ),
    (
        (MAGNIFIER, "loss.name", "triplet", "stages", "[]", "train.max_epoch", "9"),
        tuple(f"magnifier.{key}" for key in MAGNIFIER_CRITERION),
        "loss.name triplet does not use it, magnifier does",
    ),
    (
        (DSA, "loss.name", "softmax"),
        ("dsa.streams", "dsa.weight_f", "dsa.weight_z", "dsa.weight_t"),
        "loss.name softmax does not use it, dsa does",
    ),
    (
        (MAGNIFIER, "stages.2.optim", "amsgrad"),
        ("sgd.momentum", "sgd.dampening", "sgd.nesterov", "rmsprop.alpha"),
        "train.optim adam and amsgrad, expected .*",
    ),
    (
        (MAGNIFIER, "train.optim", "rmsprop"),
        ("adam.beta1", "adam.beta2", "sgd.dampening", "sgd.nesterov"),
        "train.optim rmsprop, expected .*",
    ),
    (
        (MAGNIFIER, "sampler.train_sampler", "RandomSampler"),
        ("sampler.num_instances", "sampler.num_cams", "sampler.num_datasets"),
        "sampler.train_sampler RandomSampler, expected Random.*Sampler",
    ),
    (
        (MAGNIFIER, "train.fixbase_epoch", "0"),
        ("train.open_layers",),
        "train.fixbase_epoch 0 trains all layers",
    ),
    (
        (MAGNIFIER, "test.rerank", "False", "test.evaluate", "True"),
        ("test.rerank_k1", "test.rerank_k2", "test.rerank_lambda", "test.rerank_form"),
        "test.rerank False re-ranks nothing",
    ),
    (
        (MAGNIFIER, "test.evaluate", "True", "report.untrained", "True", "report.curves", "True"),
        ("report.untrained", "report.curves"),
        "test.evaluate True trains nothing",
    ),
    (
        (DSA, "test.evaluate", "True"),
        ("report.textures",),
        "test.evaluate True trains nothing",
    ),
    (
        (
            *(MAGNIFIER, "data.targets", "dukemtmcreid"),
            *(word for key, value in RENDERING.items() for word in (key, value)),
        ),
        tuple(RENDERING),
        "no data set is synthetic, only market1501, dukemtmcreid",
    ),
]
# Of a stage: options → the keys without effect, and the reason. Some stage has no such key.
STAGE_LEFT = [
    ("magnifier_demo", ("train.stepsize", "train.gamma"), "lr_scheduler cosine has no steps"),
    (
        "magnifier_market stages.2.lr_scheduler cosine stages.2.stepsize [9]",
        ("stages.2.stepsize",),
        "lr_scheduler cosine has no steps",
    ),
    (
        "magnifier_market train.warmup_epoch 0 stages.2.warmup_factor 0.5",
        ("train.warmup_factor", "stages.2.warmup_factor"),
        "warmup_epoch 0 is no warm-up",
    ),
    (
        "magnifier_market_authors train.warmup_epoch 0",
        ("train.warmup_factor",),
        "warmup_epoch 0 is no warm-up",
    ),
    (
        "magnifier_market stages.2.new_layers branches",
        ("train.new_layers", "train.base_lr_mult", "stages.2.new_layers"),
        "staged_lr False gives all layers the same learning rate",
    ),
]


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv(WEIGHTS_VARIABLE, raising=False)


def check(file, *pairs, typed=()):
    """`check_options` of a configuration with some keys changed and both reports wanted."""
    pairs = ["model.pretrained", "False", "report.regions", "3", "report.textures", "3", *pairs]
    cfg = load_config(PROJECT / "configs" / f"{file}.yaml", {}, pairs)
    check_options(cfg, find_system(cfg), typed)


@pytest.mark.parametrize(
    ("options", "key", "reason"),
    [(options, key, reason) for options, keys, reason in LEFT for key in keys],
)
def test_it_is_refused(options, key, reason):
    with pytest.raises(ConfigError, match=rf"^{key}: has no effect, {reason}$"):
        check(*options, typed=(key,))


@pytest.mark.parametrize(("options", "reported"), [(row[0], row[1][-1]) for row in LEFT])
def test_from_a_file_it_is_skipped(options, reported, caplog):
    with caplog.at_level(logging.INFO, "magnifier_plugin.option_checks"):
        check(*options)
    skipped = [record.args[0] for record in caplog.records if "is skipped" in record.msg]
    assert (reported in skipped) == reported.startswith("report.")


def test_it_is_accepted_where_it_has_an_effect():
    keys = [key for _, keys, _ in LEFT for key in keys if not key.startswith("loss.")]
    for file, section in ((MAGNIFIER, "magnifier"), (DSA, "dsa")):
        own = [key for key in keys if key in SYSTEMS[find(section)].needs]
        assert own
        options = ("magnifier.branches", "G,M,SAB,SFB"), ("dsa.streams", "MF,DSAG")
        check(file, *options[section == "dsa"], typed=own)


def test_torchreids_weights_count_with_torchreids_losses():
    keys = "loss.triplet.weight_t", "loss.triplet.weight_x"
    check(DSA, "loss.name", "triplet", typed=keys)
    check(MAGNIFIER, "loss.name", "magnifier", typed=keys)


@pytest.mark.parametrize(
    "options",
    [
        (MAGNIFIER, "model.name", "magnifiernet_resnet18", "magnifier.backbone", "resnet18"),
        (MAGNIFIER, "model.backbone_weights", "none"),
        (MAGNIFIER, "model.pretrained", "True", "model.backbone_weights", "w.pth"),
        (MAGNIFIER, *SOFTMAX, "loss.triplet.weight_x", "1.0", "loss.triplet.weight_t", "0.0"),
        (MAGNIFIER, "report.textures", "0"),
        (DSA, "report.regions", "0"),
        (DSA, "dsa.pretrained_head", "False"),
        (DSA, "dsa.pretrained_head", "True", "model.pretrained", "True"),
        (MAGNIFIER, *RESNET, "model.backbone_weights", ""),
    ],
)
def test_a_value_that_is_in_effect_anyway_is_accepted(options):
    check(*options, typed=options[1::2])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            (MAGNIFIER, *RESNET, "model.pretrained", "True", "model.backbone_weights", "w.pth"),
            "model.backbone_weights: has no effect, resnet50 is torchreid's, which loads its own",
        ),
        (
            (MAGNIFIER, *RESNET, "report.regions", "1"),
            "report.regions: has no effect, resnet50 is not a magnifiernet",
        ),
        (
            (
                *(DSA, "dsa.pretrained_head", "True", "model.pretrained", "True"),
                *("model.backbone_weights", "none"),
            ),
            "dsa.pretrained_head: has no effect, model.backbone_weights none loads no ImageNet",
        ),
    ],
)
def test_other_combinations_are_refused(options, reason):
    with pytest.raises(ConfigError, match=f"^{reason}"):
        check(*options, typed=options[1::2])


@pytest.mark.parametrize(
    ("line", "key", "reason"), [(line, key, why) for line, keys, why in STAGE_LEFT for key in keys]
)
def test_a_setting_that_no_stage_uses_is_refused(line, key, reason):
    with pytest.raises(ConfigError, match=rf"^{key}: has no effect, {reason}$"):
        check(*line.split(), typed=(key,))
    check(*line.split())


@pytest.mark.parametrize(
    ("line", "keys"),
    [
        ("magnifier_market", "train.stepsize train.gamma train.warmup_factor stages.2.stepsize"),
        (
            "magnifier_demo train.stepsize [] stages.2.stepsize []",
            "train.stepsize stages.2.stepsize",
        ),
        ("magnifier_demo stages.2.lr_scheduler multi_step", "train.stepsize train.gamma"),
        ("magnifier_demo stages.1.lr_scheduler multi_step", "train.stepsize train.gamma"),
        ("magnifier_market_authors", "train.stepsize train.gamma train.warmup_factor"),
        ("magnifier_market stages.2.staged_lr True", "train.new_layers train.base_lr_mult"),
        ("magnifier_market stages.2.optim sgd", "sgd.momentum sgd.nesterov sgd.dampening"),
        ("magnifier_market stages.2.optim sgd", "adam.beta1 adam.beta2"),
        ("magnifier_market train.optim radam", "adam.beta1 adam.beta2"),
        ("magnifier_market train.optim amsgrad", "adam.beta1 adam.beta2"),
        ("magnifier_market stages.1.optim rmsprop", "sgd.momentum rmsprop.alpha"),
        ("magnifier_market", "sampler.num_instances"),
        ("magnifier_market sampler.train_sampler RandomDomainSampler", "sampler.num_cams"),
        ("magnifier_market sampler.train_sampler RandomDatasetSampler", "sampler.num_datasets"),
        ("magnifier_market train.fixbase_epoch 1", "train.open_layers"),
        ("magnifier_market test.evaluate True", "test.rerank_k1"),
        # A training run records them for scripts/search.py.
        ("magnifier_market test.rerank False", "test.rerank_k1 test.rerank_form"),
        (
            "dsa_market test.evaluate True test.rerank_during_training True",
            "test.rerank_k1 test.rerank_lambda",
        ),
        ("magnifier_market data.targets synthetic synthetic.seed 3", "synthetic.seed"),
        ("magnifier_market data.sources a,synthetic_masked synthetic.seed 3", "synthetic.seed"),
        ("magnifier_market synthetic.seed None", "synthetic.seed"),
    ],
)
def test_a_setting_that_is_used_is_accepted(line, keys):
    check(*line.split(), typed=keys.split())


def test_the_environment_may_load_no_weights(monkeypatch):
    options = DSA, "dsa.pretrained_head", "True", "model.pretrained", "True"
    monkeypatch.setenv(WEIGHTS_VARIABLE, "none")
    reason = f"^dsa.pretrained_head: has no effect, {WEIGHTS_VARIABLE}=none loads no ImageNet"
    with pytest.raises(ConfigError, match=reason):
        check(*options, typed=options[1::2])
    check(*options, "model.backbone_weights", "w.pth", typed=options[1::2])


BUILT = {
    MAGNIFIER: ("magnifier.branches", "G,M,SAB,SFB"),
    DSA: ("dsa.branches", "global,local"),
}
# Configuration, the branches that are built, the terms without effect, and the branch they need.
TERMS = [
    (MAGNIFIER, "M,SAB,SFB", ("cls_G", "tri_G"), "G"),
    (MAGNIFIER, "G,M,SFB", ("cls_SAB", "tri_SAB"), "SAB"),
    (MAGNIFIER, "G,M,SAB", ("cls_SFB", "tri_SFB", "cls_regions", "sd"), "SFB"),
    (MAGNIFIER, "G", ("mask",), "M"),
    (DSA, "local", ("cls_f_G", "cls_z_G", "tri_z_G"), "global branch"),
    (DSA, "global", ("cls_f_L", "cls_z_L", "tri_z_L"), "local branch"),
]
TERM_CASES = [
    (file, branches, term, needed) for file, branches, terms, needed in TERMS for term in terms
]


@pytest.mark.parametrize(("file", "branches", "term", "needed"), TERM_CASES)
@pytest.mark.parametrize("number", [1, 2])
def test_the_weight_of_a_term_that_is_not_built_is_refused(file, branches, term, needed, number):
    options = [BUILT[file][0], branches]
    if file == DSA:
        options += ["stages", "[{'max_epoch': 2}, {'max_epoch': 1}]", "dsa.test_features", "z"]
    weight = f"stages.{number}.loss_weights.{term}"
    reason = rf"^{weight}: has no effect, .*branches {branches} builds no {needed}$"
    with pytest.raises(ConfigError, match=reason):
        check(file, *options, weight, "0.5", typed=(weight,))
    check(file, *options, weight, "0", typed=(weight,))
    check(file, *options[2:], *BUILT[file], weight, "0.5", typed=(weight,))


@pytest.mark.parametrize(
    ("options", "stage", "computed"),
    [
        (
            (
                *(MAGNIFIER, "magnifier.branches", "G"),
                *("stages.2.loss_weights.cls_G", "0", "stages.2.loss_weights.tri_G", "0"),
            ),
            *(2, "cls_G, tri_G"),
        ),
        (
            (
                *(DSA, "dsa.streams", "DSAG", "dsa.test_features", "z"),
                *("dsa.weight_z", "0", "dsa.weight_t", "0"),
            ),
            *(1, "cls_z_G, cls_z_L, tri_z_G, tri_z_L"),
        ),
    ],
)
def test_a_stage_without_a_loss_is_refused(options, stage, computed):
    """Weights of terms that are not computed do not count."""
    with pytest.raises(ValueError, match=rf"^stages\.{stage}\.loss_weights: .*one of {computed},"):
        check(*options)


def test_a_name_that_two_systems_use_is_the_runs_own(monkeypatch):
    monkeypatch.setitem(
        SYSTEMS,
        "other",
        replace(
            SYSTEMS["dsa_reid"],
            needs={
                "loss_weights.sd": lambda cfg: "not built",
            },
        ),
    )
    check(MAGNIFIER, "stages.2.loss_weights.sd", "0.1", typed=("stages.2.loss_weights.sd",))


def find(section):
    return next(name for name, system in SYSTEMS.items() if system.section == section)


def test_every_key_is_in_the_table():
    listed = {key for _, keys, _ in LEFT for key in keys}
    listed |= {f"loss_weights.{term}" for _, _, term, _ in TERM_CASES}
    own = (system.needs for system in SYSTEMS.values())
    assert listed == {key for needs in (NEEDS, TORCHREIDS_NEEDS, *own) for key in needs}
