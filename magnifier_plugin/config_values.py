"""The values of a configuration: the table of what each key accepts, and the reading of a value."""

import difflib
import math
from collections.abc import Iterable
from typing import Any

from magnifier_plugin.config_checks import (
    ABOVE_0,
    AMP,
    COUNT,
    DECAY,
    PATH,
    PATH_OR_NONE,
    SEED,
    SHARE,
    SIZE,
    SWITCH,
    TEXT,
    TEXTS,
    TRUTH,
    WEIGHT,
    WEIGHTS_OR_NONE,
    Check,
    list_of,
    number,
    one_of,
    optional,
    whole,
)
from magnifier_plugin.config_systems import VARIANTS
from magnifier_plugin.regions import BODY_REGIONS


class ConfigError(ValueError):
    """An invalid configuration; the message says what was expected, what was found, and where."""


# Key → the values it accepts. A key that is missing here accepts True or False if its default is
# one of these, else any text. Names of data sets, transforms, samplers and models are checked by
# the packages that define them.
CHECKS: dict[str, Check] = {
    **dict.fromkeys(("amp", "test.amp"), AMP),
    **dict.fromkeys(("channels_last", "train.fused"), SWITCH),
    **dict.fromkeys(("data.root", "data.save_dir", "masks.dir", "test.conditions"), PATH),
    **dict.fromkeys(("model.load_weights", "model.resume", "test.cache"), PATH_OR_NONE),
    "model.backbone_weights": WEIGHTS_OR_NONE,
    **dict.fromkeys(("data.cache_gb", "train.clip_grad"), WEIGHT),
    "train.accumulate": SIZE,
    "train.ema": DECAY,
    "data.type": one_of("image")._replace(expected="image; video data sets have no label maps"),
    **dict.fromkeys(("data.sources", "data.targets", "data.transforms"), TEXTS),
    **dict.fromkeys(("data.workers", "data.split_id"), COUNT),
    **dict.fromkeys(("data.height", "data.width"), SIZE),
    "data.k_tfm": whole(1, 1)._replace(expected="1; several views per image are not supported"),
    "data.norm_mean": list_of(number(-math.inf)._replace(expected="a number"), length=3),
    "data.norm_std": list_of(ABOVE_0, length=3),
    "sampler.num_instances": SIZE,
    **dict.fromkeys(("sampler.num_cams", "sampler.num_datasets"), COUNT),
    "train.optim": one_of("adam", "amsgrad", "sgd", "rmsprop", "radam"),
    "train.lr": ABOVE_0,
    "train.max_epoch": SIZE,
    "train.scale": ABOVE_0,
    "train.batch_size": SIZE,
    **dict.fromkeys(("train.start_epoch", "train.fixbase_epoch", "train.warmup_epoch"), COUNT),
    **dict.fromkeys(("train.open_layers", "train.new_layers"), TEXTS),
    **dict.fromkeys(("train.weight_decay", "train.base_lr_mult"), WEIGHT),
    "train.lr_scheduler": one_of("single_step", "multi_step", "cosine"),
    "train.stepsize": list_of(SIZE),
    "train.gamma": ABOVE_0,
    **dict.fromkeys(("train.print_freq", "train.checkpoint_freq"), SIZE),
    "train.checkpoint_minutes": WEIGHT,
    "train.keep_freq": COUNT,
    "train.seed": SEED,
    "train.warmup_factor": SHARE,
    "sgd.momentum": WEIGHT,
    **dict.fromkeys(("sgd.dampening", "rmsprop.alpha"), SHARE),
    **dict.fromkeys(("adam.beta1", "adam.beta2"), DECAY),
    "stages.N.optimizer": one_of("fresh", "keep"),
    "stages.N.loss_weights.NAME": WEIGHT,
    **dict.fromkeys(
        (f"loss.triplet.{name}" for name in ("margin", "weight_t", "weight_x")), WEIGHT
    ),
    "test.batch_size": SIZE,
    "test.dist_metric": one_of("euclidean", "cosine"),
    "test.ranks": list_of(SIZE, least=1),
    "test.eval_freq": whole(-1),
    "test.start_eval": COUNT,
    **dict.fromkeys(("test.rerank_k1", "test.rerank_k2", "test.visrank_topk"), SIZE),
    "test.rerank_lambda": SHARE,
    "test.same_camera": one_of("drop", "keep"),
    "test.rerank_form": one_of("torchreid", "paper"),
    "masks.max_missing": SHARE,
    "magnifier.variant": one_of(*VARIANTS),
    "magnifier.backbone": one_of("resnet18", "resnet34", "resnet50", "resnet101"),
    "magnifier.branches": list_of(one_of("G", "M", "SAB", "SFB"), least=1),
    "magnifier.sampling": one_of("torso", "baseline"),
    "magnifier.keep": whole(1, len(BODY_REGIONS)),
    "magnifier.fusion": one_of("gru", "lstm", "concat", "concat-reduced"),
    "magnifier.mask_rescaling": one_of("bilinear", "nearest", "nearest-corner"),
    "magnifier.deconvolution_init": one_of("kaiming", "normal"),
    **dict.fromkeys(("magnifier.mask_weight", "magnifier.region_weight"), WEIGHT),
    "dsa.backbone": one_of("resnet18", "resnet34", "resnet50", "resnet101"),
    "dsa.streams": list_of(one_of("MF", "DSAG"), least=1),
    "dsa.branches": list_of(one_of("global", "local"), least=1),
    "dsa.fusion": one_of("add", "concat"),
    "dsa.test_features": one_of("f", "z", "z_G", "z_L"),
    "dsa.width": number(0, 16, open_ends="low"),
    "dsa.textures": one_of("dsap", "csa"),
    "dsa.texture_size": whole(4, step=4),
    **dict.fromkeys(("dsa.weight_f", "dsa.weight_z", "dsa.weight_t"), WEIGHT),
    # SyntheticOptions checks their ranges.
    **{
        f"synthetic.{name}": optional(COUNT)
        for name in ("identities", "train_identities", "cameras", "images", "height", "width")
    },
    "synthetic.seed": optional(COUNT),
    "synthetic.twin_details": optional(one_of("any", "regions")),
    **{f"synthetic.{name}": optional(SHARE) for name in ("twins", "occlusion")},
    **dict.fromkeys(("report.rankings", "report.regions", "report.textures"), COUNT),
}


def read_value(value: Any, *, like: str, default: Any, key: str, origin: str) -> Any:
    """Convert a value to its key's type without loss: 1 → 1.0, "1e-3" → 0.001, "a,b" → a list.

    Args:
        value: the value from YAML, Python or the command line.
        like: the key in `CHECKS`, such as "stages.N.optimizer" for "stages.2.optimizer".
        default: the key's default; it decides between True/False and text if `like` is not in
            `CHECKS`.
        key: the key as written, for the error.
        origin: the file, or "command line", for the error.
    Raises:
        ConfigError: wrong type, out of range, or no such choice (the error suggests the nearest).
    """
    check = CHECKS.get(like) or (TRUTH if isinstance(default, bool) else TEXT)
    try:
        return check.read(value)
    except (TypeError, ValueError, OverflowError):
        pass
    words = value if isinstance(value, (list, tuple)) else str(value).split(",")
    wrong = [word for word in map(str.strip, map(str, words)) if word not in check.choices]
    hint = did_you_mean(wrong[0], check.choices) if wrong and check.choices else ""
    raise ConfigError(f"{origin}: {key}: expected {check.expected}, got {value!r}{hint}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of an error about a name, such as "; did you mean train.lr?"; "" if none is near."""
    by_lower_case = {name.lower(): name for name in known}
    nearest = difflib.get_close_matches(word.lower(), by_lower_case, n=1, cutoff=0.3)
    return f"; did you mean {by_lower_case[nearest[0]]}?" if nearest else ""
