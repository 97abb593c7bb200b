"""Every key of the configuration reaches the object that it configures: a row or more per key."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from options import DSA, Runs
from PIL import Image
from test_config_values import TREE

from magnifier_plugin.config_stages import STAGE_KEYS

ONE_VALUE = {"data.type", "data.k_tfm"}  # others are refused, see test_config_values.py
# The keys of a stage; "stages" itself is a list of these.
IN_STAGES = {f"stages.2.{name}" for name in (*STAGE_KEYS, "optimizer", "loss_weights.sd")}
OTHER = object()  # expected: any value but that of the base


class Row(NamedTuple):
    """A key set to another value: one attribute of one object gets the expected value."""

    key: str
    value: object
    see: Callable[[Any], Any]
    """The object → the attribute."""
    expected: Any
    also: str = ""
    """Pairs without which the key has no effect; the base has them too."""


# --- attributes of an engine before its run --------------------------------------------------


def group(name, index=-1):
    """A value of the first optimiser's parameter group."""

    def see(built):
        built.engine.state.begin(0)
        built.engine.state.enter(0)
        return built.engine.state.optimizer.param_groups[index][name]

    return see


def optimizer(built):
    group("lr")(built)
    return type(built.engine.state.optimizer).__name__


def network_kind(built):
    return type(built.engine.step.objective.network).__name__


def step_option(name):
    return lambda built: getattr(built.engine.step.options, name)


def stage(name, number=2):
    return lambda built: getattr(built.engine.state.stages[number - 1], name)


def stage_option(name, number=2):
    return lambda built: built.engine.state.stages[number - 1].optimizer_options[name]


def rates(built):
    """The learning rate of every epoch."""
    stages = built.engine.state.stages
    return [round(s.lr * s.lr_factor(e), 8) for s in stages for e in range(s.max_epoch)]


def option(name):
    return lambda built: getattr(built.engine.datamanager.options, name)


def steps(name, attribute):
    """An attribute of those steps of the training and test transforms that have it."""

    def see(built):
        manager = built.engine.datamanager
        found = [*manager.transform_tr.transforms, *manager.transform_te.transforms]
        return [getattr(s, attribute) for s in found if type(s).__name__ == name]

    return see


def transforms(built):
    return {type(step).__name__ for step in built.engine.datamanager.transform_tr.transforms}


def loaders(built):
    pairs = built.engine.test_loader.values()
    return [built.engine.train_loader, *(loader for pair in pairs for loader in pair.values())]


def opened(key, dataset="market1501"):
    """A keyword argument with which a data set was opened each time."""

    def see(built):
        (value,) = {arguments.get(key) for arguments in built.opened[dataset]}
        return value

    return see


def rendering(name):
    """An option with which the rendered data set was opened each time."""
    return lambda built: getattr(opened("options", "synthetic")(built), name, None)


def maps(name):
    """An attribute of the training images' maps."""
    return lambda built: getattr(built.engine.train_loader.dataset.parts[0][0], name)


def sampler(name):
    return lambda built: getattr(built.engine.train_loader.sampler.base, name)


def images(built):
    """Folders of all images, of training and test, above the data set's own."""
    return {
        record[0].partition("/market1501/")[0]
        for loader in loaders(built)
        for record in loader.dataset.data
    }


# --- attributes of a run, a network, a criterion ---------------------------------------------


def evaluator(name):
    return lambda ran: getattr(ran.evaluations[-1][0], name)


def evaluation_amp(ran):
    return evaluator("embed")(ran).keywords["precision"].amp


def argument(name):
    return lambda ran: ran.evaluations[-1][1][name]


def reranking(index):
    return lambda ran: ran.reranked[-1][0][index]


def exists(name):
    return lambda ran: (ran.folder / name).is_file()


def size_of(name):
    return lambda ran: Image.open(next(ran.folder.glob(name))).size


def pixels_of(name):
    return lambda ran: hash(Image.open(next(ran.folder.glob(name))).tobytes())


def written(ran):
    """The folder's name, if the results are in it."""
    return ran.folder.name if exists("results.json")(ran) else ""


def evaluations(ran):
    return len(ran.evaluations)


def epoch_lines(ran):
    return sum(line.startswith("epoch: [") for line in ran.log)


def weight(name):
    return lambda criterion: criterion.weights[name]


def attribute(name):
    def see(network):
        for part in name.split("."):
            network = getattr(network, part)
        return network

    return see


def kind(name):
    return lambda network: type(network.get_submodule(name)).__name__


def deviation(name):
    return lambda network: round(float(network.get_parameter(name).detach().std()), 3)


TWO = "stages.1.max_epoch 1 stages.2.max_epoch 3"
STEPS = "train.max_epoch 4 train.lr 0.01 train.lr_scheduler multi_step train.stepsize [2]"
STAGED = "train.staged_lr True train.new_layers branches"
TEST = "test.evaluate True"
RERANK = f"{TEST} test.rerank True"
LONG = "train.max_epoch 4"
SMALL_DSA = f"{DSA} dsa.width 0.125"
PLAIN = "sampler.train_sampler RandomSampler"
TEXTURES = f"{DSA} report.textures 1"

BUILT = [
    Row("use_gpu", False, option("use_gpu"), False),
    Row("amp", "on", lambda b: b.engine.precision.amp, torch.bfloat16),
    Row("amp", "fp16", lambda b: b.engine.step.scaler.is_enabled(), True),
    Row(
        *("channels_last", "on"),
        lambda b: b.engine.precision.memory_format,
        torch.channels_last,
    ),
    Row(
        *("model.load_weights", "{runs.checkpoint}"),
        lambda b: float(b.engine.model.backbone.conv1.bias.detach().mean()),
        7.0,
    ),
    Row("model.resume", "{runs.resumable}", lambda b: b.start_epoch, 1, "train.max_epoch 2"),
    Row(
        *("model.resume", "{runs.resumable}"),
        lambda b: len(b.engine.history),
        *(1, "train.max_epoch 2"),
    ),
    Row(
        "data.root",
        "{runs.other.root}",
        lambda b: [r.name for r in map(Path, images(b))],
        ["second"],
    ),
    Row("data.sources", "second", lambda b: b.engine.datamanager.sources, ["second"]),
    Row("data.sources", "second", lambda b: len(b.opened["second"]), OTHER),
    Row("data.targets", "second", lambda b: list(b.engine.test_loader), ["second"]),
    Row("data.workers", 2, lambda b: {loader.num_workers for loader in loaders(b)}, {2}),
    Row(
        *("data.cache_gb", 0.00001),
        lambda b: (cache := b.engine.train_loader.dataset.cache) and cache.slots,
        5,  # of 32 × 16 × (3 + 1) + 1 bytes in 10,737
    ),
    Row("data.split_id", 1, opened("split_id"), 1),
    Row("data.height", 48, steps("Resize", "size"), [(48, 16)] * 2),
    Row("data.width", 24, steps("Resize", "size"), [(32, 24)] * 2),
    Row("data.combineall", True, lambda b: len(b.engine.train_loader.dataset), 28),
    Row(
        "data.transforms",
        "random_erase",
        transforms,
        {"Resize", "ToTensor", "Normalize", "RandomErasing"},
    ),
    Row("data.norm_mean", "[0.1,0.2,0.3]", steps("Normalize", "mean"), [[0.1, 0.2, 0.3]] * 2),
    Row("data.norm_std", "[0.1,0.2,0.3]", steps("Normalize", "std"), [[0.1, 0.2, 0.3]] * 2),
    Row("market1501.use_500k_distractors", True, opened("market1501_500k"), True),
    Row("cuhk03.labeled_images", True, opened("cuhk03_labeled"), True),
    Row("cuhk03.classic_split", True, opened("cuhk03_classic_split"), True),
    Row(
        *("sampler.train_sampler", "RandomSampler"),
        lambda b: type(b.engine.train_loader.sampler.base).__name__,
        "RandomSampler",
    ),
    Row("sampler.num_instances", 3, sampler("num_instances"), 3, "train.batch_size 6"),
    Row(
        *("sampler.num_cams", 2, sampler("n_domain"), 2),
        "sampler.train_sampler RandomDomainSampler",
    ),
    Row(
        *("sampler.num_datasets", 2, sampler("n_dataset"), 2),
        "sampler.train_sampler RandomDatasetSampler data.sources market1501,second",
    ),
    Row("train.optim", "sgd", optimizer, "SGD"),
    Row("train.lr", 0.5, group("lr"), 0.5),
    Row("train.weight_decay", 0.5, group("weight_decay"), 0.5),
    Row("train.max_epoch", 3, stage("max_epoch", 1), 3),
    Row("train.scale", 3, lambda b: len(rates(b)), 3),
    Row("train.start_epoch", 1, lambda b: b.start_epoch, 1, "train.max_epoch 2"),
    Row("train.batch_size", 6, lambda b: loaders(b)[0].batch_size, 6),
    Row("train.batch_size", 6, lambda b: b.engine.train_loader.sampler.batch_size, 6),
    Row("train.staged_lr", True, group("lr", 0), 0.001, "train.new_layers branches train.lr 0.01"),
    Row(
        *("train.new_layers", "backbone", lambda b: len(group("params")(b)), 4, STAGED),
    ),
    Row("train.base_lr_mult", 0.5, group("lr", 0), 0.005, f"{STAGED} train.lr 0.01"),
    Row(
        "train.lr_scheduler",
        "single_step",
        rates,
        [0.01, 0.01, 1e-3, 1e-3],
        f"{STEPS} train.lr_scheduler cosine",
    ),
    Row("train.stepsize", "[1]", rates, [0.01, 1e-3, 1e-3, 1e-3], STEPS),
    Row("train.gamma", 0.5, rates, [0.01, 0.01, 0.005, 0.005], STEPS),
    Row("train.warmup_epoch", 2, rates, [1e-4, 0.00505, 1e-3, 1e-3], STEPS),
    Row(
        "train.warmup_factor",
        0.5,
        rates,
        [0.005, 0.0075, 1e-3, 1e-3],
        f"{STEPS} train.warmup_epoch 2",
    ),
    Row("train.checkpoint_minutes", 0.5, lambda b: b.engine.saving.minutes, 0.5),
    Row("train.keep_freq", 2, lambda b: b.engine.checkpoints.keep_freq, 2),
    Row("train.deterministic", True, lambda b: b.deterministic, True),
    Row("train.seed", 5, option("seed"), 5),
    Row("train.seed", 5, lambda b: b.engine.tester.record["seed"], 5),
    Row(
        "train.seed", 5, lambda b: float(b.engine.model.backbone.conv1.weight.detach().sum()), OTHER
    ),
    Row(
        *("ddp.sync_bn", True),
        lambda b: type(b.engine.model.branches["G"].head.neck).__name__,
        "AllReduceBatchNorm",
    ),
    Row("train.compile", True, network_kind, "OptimizedModule"),
    Row("train.fused", "off", group("fused"), None),
    Row("train.clip_grad", 0.5, step_option("clip_grad"), 0.5),
    Row("train.accumulate", 2, step_option("accumulate"), 2),
    Row("train.ema", 0.9, lambda b: getattr(b.engine.step.average, "decay", None), 0.9),
    Row("sgd.momentum", 0.5, group("momentum"), 0.5, "train.optim sgd"),
    Row("sgd.dampening", 0.5, group("dampening"), 0.5, "train.optim sgd"),
    Row("sgd.nesterov", True, group("nesterov"), True, "train.optim sgd"),
    Row("rmsprop.alpha", 0.5, group("alpha"), 0.5, "train.optim rmsprop"),
    Row("adam.beta1", 0.5, lambda b: group("betas")(b)[0], 0.5),
    Row("adam.beta2", 0.5, lambda b: group("betas")(b)[1], 0.5),
    Row("stages", "[{{'max_epoch':2}},{{'max_epoch':4}}]", lambda b: len(b.engine.state.stages), 2),
    Row("stages.2.max_epoch", 5, stage("max_epoch"), 5, TWO),
    Row("stages.2.optimizer", "keep", stage("optimizer"), "keep", TWO),
    Row("stages.2.loss_weights.sd", 0.5, stage("loss_weights"), {"sd": 0.5}, TWO),
    Row("stages.2.lr", 0.5, stage("lr"), 0.5, TWO),
    Row("stages.2.lr_scheduler", "cosine", stage("lr_scheduler"), "cosine", TWO),
    Row("stages.2.stepsize", "[1,2]", stage("stepsize"), [1, 2], TWO),
    Row("stages.2.warmup_epoch", 2, stage("warmup_epoch"), 2, TWO),
    Row("stages.2.warmup_factor", 0.5, stage("warmup_factor"), 0.5, TWO),
    Row("stages.2.optim", "sgd", stage_option("optim"), "sgd", TWO),
    Row("stages.2.weight_decay", 0.5, stage_option("weight_decay"), 0.5, TWO),
    Row("stages.2.staged_lr", True, stage_option("staged_lr"), True, TWO),
    Row("stages.2.new_layers", "branches", stage_option("new_layers"), ["branches"], TWO),
    Row("stages.2.base_lr_mult", 0.5, stage_option("base_lr_mult"), 0.5, TWO),
    Row("test.batch_size", 3, lambda b: {loader.batch_size for loader in loaders(b)[1:]}, {3}),
    Row(
        *("masks.dir", "{runs.other.masks_dir}"),
        lambda b: {
            file.parents[2].parent.name
            for file in b.engine.train_loader.dataset.files["labels"].values()
        },
        {"second"},
    ),
    Row("masks.label_set", "lip", maps("label_set"), "lip"),
    Row("test.same_camera", "keep", option("same_camera"), "keep"),
    Row(
        "test.same_camera",
        "keep",
        lambda b: len({r[2] for loader in loaders(b)[1:] for r in loader.dataset.data}),
        16,
    ),
    Row("masks.max_missing", 0.7, maps("max_missing"), 0.7),
    Row(
        *("dsa.textures", "csa"),
        lambda b: b.engine.train_loader.dataset.input_options["textures"]["kind"],
        *("csa", DSA),
    ),
    Row(
        *("dsa.texture_size", 8),
        lambda b: next(iter(b.engine.train_loader))["textures"].shape[1:],
        *((24, 3, 8, 8), DSA),
    ),
    *(
        Row(f"synthetic.{name}", value, rendering(name), value, f"data.{role} synthetic")
        for role in ("sources", "targets")
        for name, value in {
            **{"identities": 8, "cameras": 3, "images": 5, "twins": 0.5, "occlusion": 0.75},
            **{"train_identities": 2, "twin_details": "regions"},
            **{"height": 64, "width": 48, "seed": 7},
        }.items()
    ),
]
RAN = [
    Row("data.save_dir", "{runs.folder}/elsewhere", written, "elsewhere", TEST),
    Row("train.fixbase_epoch", 1, lambda r: r.trained[0], ["branches", "mask_module"]),
    Row(
        "train.open_layers",
        "branches",
        lambda r: r.trained[0],
        ["branches"],
        "train.fixbase_epoch 1",
    ),
    Row("train.print_freq", 1, epoch_lines, 3, PLAIN),
    Row(
        *("train.checkpoint_freq", 2, lambda r: r.saved),
        *([(2, False), (4, False), (4, True)], LONG),
    ),
    Row("test.evaluate", True, lambda r: len(r.engine.history), 0),
    Row("test.eval_freq", 2, evaluations, 2, LONG),
    Row("test.start_eval", 3, evaluations, 2, f"{LONG} test.eval_freq 1"),
    Row("test.dist_metric", "cosine", argument("metric"), "cosine", TEST),
    Row("test.normalize_feature", True, argument("normalize"), True, TEST),
    Row("test.ranks", "[2,3]", argument("ranks"), [2, 3], TEST),
    Row("cuhk03.use_metric_cuhk03", True, argument("cuhk03"), True, TEST),
    Row("test.rerank", True, lambda r: len(r.reranked), 1, TEST),
    Row(
        "test.rerank_during_training",
        True,
        lambda r: len(r.reranked),
        2,
        "train.max_epoch 2 test.eval_freq 1",
    ),
    Row("test.rerank_k1", 5, reranking(0), 5, RERANK),
    Row("test.rerank_k2", 4, reranking(1), 4, RERANK),
    Row("test.rerank_lambda", 0.9, reranking(2), 0.9, RERANK),
    Row("test.rerank_form", "paper", lambda r: r.reranked[-1][1]["form"], "paper", RERANK),
    Row("test.amp", "on", evaluation_amp, torch.bfloat16, TEST),
    Row(
        *("test.conditions", "{runs.folder}/conditions.csv"),
        *(lambda r: "weather" in (r.folder / "results.json").read_text(), True, TEST),
    ),
    Row("test.flip", True, evaluator("flip"), True, TEST),
    Row(
        "test.cache", "{runs.folder}/kept", lambda r: str(evaluator("cache")(r))[-4:], "kept", TEST
    ),
    Row(
        *("test.visrank", True, lambda r: len(list(r.folder.glob("visrank_market1501/*.jpg")))),
        *(8, TEST),
    ),
    Row(
        "test.visrank_topk",
        2,
        size_of("visrank_market1501/*.jpg"),
        OTHER,
        f"{TEST} test.visrank True",
    ),
    Row("report.untrained", True, exists("untrained/results.json"), True),
    Row("report.curves", True, exists("curves.png"), True),
    Row("report.rankings", 1, exists("rankings_market1501.png"), True, TEST),
    Row(
        "report.rankings", 2, size_of("rankings_market1501.png"), OTHER, f"{TEST} report.rankings 1"
    ),
    Row("report.regions", 1, exists("regions.png"), True, TEST),
    Row("report.regions", 2, pixels_of("regions.png"), OTHER, f"{TEST} report.regions 1"),
]
NETWORK = [
    Row(
        "model.name",
        "magnifiernet_resnet18",
        attribute("backbone.name"),
        "resnet18",
        "magnifier.backbone resnet34",
    ),
    Row("magnifier.backbone", "resnet34", attribute("backbone.name"), "resnet34"),
    Row("magnifier.variant", "authors", kind("branches.SFB.fusion.cell"), "LSTM"),
    Row("magnifier.stem_relu", False, kind("backbone.relu"), "Identity"),
    Row("magnifier.branches", "G,M", lambda n: list(n.branches), ["G"]),
    Row("magnifier.branches", "G", kind("mask_module"), "NoMaskModule"),
    Row("magnifier.sampling", "baseline", attribute("branches.SAB.sampling"), "baseline"),
    Row("magnifier.keep", 2, attribute("branches.SAB.keep"), 2),
    Row("magnifier.fusion", "lstm", kind("branches.SFB.fusion.cell"), "LSTM"),
    Row("magnifier.mask_rescaling", "nearest", attribute("mask_module.rescaling"), "nearest"),
    Row(
        *("magnifier.deconvolution_init", "normal"),
        *(deviation("mask_module.head.upsample.weight"), 0.001),
    ),
    Row(
        *("magnifier.authors_bias", True),
        *(lambda n: n.branches["G"].head.classifier.bias is not None, True),
    ),
    Row("loss.name", "triplet", attribute("loss"), "triplet"),
    Row("dsa.backbone", "resnet34", attribute("backbone.name"), "resnet34", SMALL_DSA),
    Row("dsa.streams", "MF", attribute("streams"), ("MF",), SMALL_DSA),
    Row("dsa.branches", "global", attribute("branches"), ("G",), SMALL_DSA),
    Row("dsa.fusion", "concat", kind("fusion"), "ConcatFusion", SMALL_DSA),
    Row("dsa.test_features", "z_G", attribute("test_features"), "z_G", SMALL_DSA),
    Row("dsa.width", 0.25, lambda n: n.guiding_stream.conv1[0].out_channels, 24 * 8, SMALL_DSA),
    Row("dsa.pretrained_head", True, attribute("pretrained_head"), True, SMALL_DSA),
]
PRETRAINED = [
    Row("model.pretrained", True, lambda files: files, [""]),
    Row(
        *("model.backbone_weights", "w.pth", lambda files: files, ["w.pth"]),
        "model.pretrained True",
    ),
]
CRITERION = [
    Row("loss.name", "triplet", lambda c: type(c).__name__, "ClassificationCriterion"),
    Row("loss.name", "softmax", attribute("weights"), {"cls": 1.0}),
    *(
        row
        for also in ("", "loss.name triplet", DSA)
        for row in (
            Row("loss.softmax.label_smooth", False, attribute("label_smoothing"), 0.0, also),
            Row("loss.triplet.margin", 0.9, attribute("margin"), 0.9, also),
        )
    ),
    *(
        Row(f"loss.triplet.weight_{key}", 0.5, weight(term), 0.5, also)
        for key, term, also in (
            ("t", "tri_G", ""),
            ("x", "cls_SFB", ""),
            ("t", "tri", "loss.name triplet"),
            ("x", "cls", "loss.name triplet"),
        )
    ),
    *(
        Row("ddp.gather", True, lambda c: type(c.gathering).__name__, "GatheredBatch", also)
        for also in ("", "loss.name triplet", DSA)
    ),
    Row("magnifier.mask_weight", 0.5, weight("mask"), 0.5),
    Row("magnifier.class_balanced_mask", False, attribute("class_balanced_mask"), False),
    Row("magnifier.region_weight", 0.5, weight("cls_regions"), 0.5),
    Row("magnifier.sab_triplet", False, weight("tri_SAB"), 0.0),
    Row("magnifier.sd_floor", True, attribute("diversity.floor"), True),
    Row("magnifier.share_weighted", True, attribute("share_weighted"), True),
    Row("dsa.weight_f", 0.25, weight("cls_f_L"), 0.25, DSA),
    Row("dsa.weight_z", 0.25, weight("cls_z_G"), 0.25, DSA),
    Row("dsa.weight_t", 0.25, weight("tri_z_G"), 0.25, DSA),
]
TEXTURE_PICTURE = [
    Row("report.textures", 3, lambda drawn: drawn.count, 3, DSA),
    Row("dsa.textures", "csa", lambda drawn: drawn.options["kind"], "csa", TEXTURES),
    Row("dsa.texture_size", 8, lambda drawn: drawn.options["size"], 8, TEXTURES),
]
TABLE = [
    *(("built", row) for row in BUILT),
    *(("ran", row) for row in RAN),
    *(("network", row) for row in NETWORK),
    *(("pretrained", row) for row in PRETRAINED),
    *(("criterion", row) for row in CRITERION),
    *(("texture_picture", row) for row in TEXTURE_PICTURE),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("options"))


@pytest.mark.parametrize(
    ("through", "row"), TABLE, ids=[f"{row.key}-{n}" for n, (_, row) in enumerate(TABLE)]
)
def test_a_key_arrives(runs, through, row):
    look = getattr(runs, through)
    before, after = look(row.also), look(f"{row.also} {row.key} {row.value}")
    assert row.see(after) != row.see(before)
    if row.expected is not OTHER:
        assert row.see(after) == row.expected


def test_the_table_has_every_key():
    listed = {row.key for _, row in TABLE}
    assert listed == (set(TREE) - ONE_VALUE) | IN_STAGES


def test_the_configuration_of_a_run_is_in_its_results(runs):
    ran = runs.ran(TEST)
    saved = json.loads((ran.folder / "results.json").read_text())["configuration"]
    assert "evaluate: true" in saved
