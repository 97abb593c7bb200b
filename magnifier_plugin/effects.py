"""Why a configuration key has no effect with the values of other keys."""

from collections.abc import Callable, Mapping
from typing import Any

from yacs.config import CfgNode

from magnifier_plugin.catalogue.names import plain_name
from magnifier_plugin.config import stage_settings
from magnifier_plugin.config_tree import default_config
from magnifier_plugin.data.samplers import IDENTITY_SAMPLER
from magnifier_plugin.models.backbone import WEIGHTS_VARIABLE, default_weights

Reason = Callable[[CfgNode], str]
"""Configuration → why a key has no effect with it; "" if it has, or if its value changes nothing
anyway, such as a backbone that the model's name includes too."""


def needs_branch(*branches: str) -> Reason:
    """For keys of some of MagnifierNet's branches: one of them must be built."""

    def reason(cfg: CfgNode) -> str:
        built = cfg.magnifier.branches
        if set(branches) & set(built):
            return ""
        return f"magnifier.branches {','.join(built)} builds no {' or '.join(branches)}"

    return reason


def needs_loss(loss: str, other: Reason = lambda cfg: "") -> Reason:
    """For keys of a system's criterion: `loss.name` must be the system's; then `other` decides."""

    def reason(cfg: CfgNode) -> str:
        if cfg.loss.name == loss:
            return other(cfg)
        return f"loss.name {cfg.loss.name} does not use it, {loss} does"

    return reason


def needs_other_loss(cfg: CfgNode) -> str:
    """For the weights of torchreid's losses, which DSA-reID's own loss replaces."""
    if cfg.loss.name != "dsa":
        return ""
    return "loss.name dsa uses dsa.weight_f, dsa.weight_z and dsa.weight_t instead"


def needs_guiding(cfg: CfgNode) -> str:
    """For keys of DSA-reID's DSAG-Stream."""
    if cfg.loss.name != "dsa":
        return f"loss.name {cfg.loss.name} builds no DSAG-Stream"
    streams = ",".join(cfg.dsa.streams)
    return "" if "DSAG" in cfg.dsa.streams else f"dsa.streams {streams} builds no DSAG-Stream"


def needs_dsa_branch(branch: str) -> Reason:
    """For loss terms of one of DSA-reID's branches."""

    def reason(cfg: CfgNode) -> str:
        if branch in cfg.dsa.branches:
            return ""
        return f"dsa.branches {','.join(cfg.dsa.branches)} builds no {branch} branch"

    return reason


def needs_main_stream(other: Reason = lambda cfg: "") -> Reason:
    """For keys of DSA-reID's MF-Stream: it must be built; then `other` decides."""

    def reason(cfg: CfgNode) -> str:
        if cfg.loss.name == "dsa" and "MF" not in cfg.dsa.streams:
            return f"dsa.streams {','.join(cfg.dsa.streams)} builds no MF-Stream"
        return other(cfg)

    return reason


def needs_unnamed_backbone(section: str) -> Reason:
    """For a section's `backbone`, which a model's name replaces (`magnifiernet_resnet18`)."""

    def reason(cfg: CfgNode) -> str:
        family, _, depth = cfg.model.name.partition("_resnet")
        if not depth or cfg[section].backbone == f"resnet{depth}":
            return ""
        return f"{cfg.model.name} has the backbone resnet{depth}; set model.name {family}"

    return reason


def needs_imagenet_head(cfg: CfgNode) -> str:
    """For `dsa.pretrained_head`."""
    return _loads_no_weights(cfg) if cfg.dsa.pretrained_head else ""


def _loads_no_weights(cfg: CfgNode) -> str:
    if not cfg.model.pretrained:
        return "model.pretrained False loads no ImageNet weights"
    if cfg.model.backbone_weights.lower() == "none":
        return "model.backbone_weights none loads no ImageNet weights"
    if not cfg.model.backbone_weights and default_weights().lower() == "none":
        return f"{WEIGHTS_VARIABLE}=none loads no ImageNet weights"
    return ""


def needs_pretrained(cfg: CfgNode) -> str:
    """For `model.backbone_weights`."""
    is_file = cfg.model.backbone_weights.lower() not in ("", "none")
    return _loads_no_weights(cfg) if is_file else ""


def _needs_own_backbone(cfg: CfgNode) -> str:
    """For `model.backbone_weights` with torchreid's models."""
    given = cfg.model.pretrained and cfg.model.backbone_weights
    return f"{cfg.model.name} is torchreid's, which loads its own ImageNet weights" * bool(given)


def _needs_triplets(key: str, in_effect: float | None) -> Reason:
    """For torchreid's keys of the triplet loss; `in_effect` is the value that softmax implies."""

    def reason(cfg: CfgNode) -> str:
        if cfg.loss.name != "softmax" or cfg.loss.triplet[key] == in_effect:
            return ""
        return "loss.name softmax is the cross entropy alone, with weight 1"

    return reason


def _needs_optimizer(*kinds: str) -> Reason:
    """For the settings of some of torchreid's optimisers: a stage must use one of them."""

    def reason(cfg: CfgNode) -> str:
        used = dict.fromkeys(stage["optim"] for stage in stage_settings(cfg))
        if used.keys() & set(kinds):
            return ""
        return f"train.optim {' and '.join(used)}, expected {' or '.join(kinds)}"

    return reason


def _needs_sampler(sampler: str) -> Reason:
    """For the settings of one of torchreid's samplers."""

    def reason(cfg: CfgNode) -> str:
        used = cfg.sampler.train_sampler
        return "" if used == sampler else f"sampler.train_sampler {used}, expected {sampler}"

    return reason


def _needs_first_epochs(cfg: CfgNode) -> str:
    """For `train.open_layers`."""
    return "" if cfg.train.fixbase_epoch else "train.fixbase_epoch 0 trains all layers"


def needs_training(cfg: CfgNode) -> str:
    """For reports about training."""
    return "test.evaluate True trains nothing" if cfg.test.evaluate else ""


def _needs_reranking(cfg: CfgNode) -> str:
    """For the parameters of re-ranking. A training run records them for scripts/search.py."""
    if not cfg.test.evaluate or cfg.test.rerank or cfg.test.rerank_during_training:
        return ""
    return "test.rerank False re-ranks nothing"


def _needs_rendering(key: str) -> Reason:
    """For the rendered data set's options; None is their default."""

    def reason(cfg: CfgNode) -> str:
        words = (*cfg.data.sources, *cfg.data.targets)
        if cfg.synthetic[key] is None or "synthetic" in map(plain_name, words):
            return ""
        return f"no data set is synthetic, only {', '.join(dict.fromkeys(words))}"

    return reason


NEEDS: Mapping[str, Reason] = {
    "model.backbone_weights": needs_pretrained,
    "loss.triplet.margin": _needs_triplets("margin", None),
    "loss.triplet.weight_t": _needs_triplets("weight_t", 0),
    "loss.triplet.weight_x": _needs_triplets("weight_x", 1),
    "sgd.momentum": _needs_optimizer("sgd", "rmsprop"),
    **dict.fromkeys(("sgd.dampening", "sgd.nesterov"), _needs_optimizer("sgd")),
    "rmsprop.alpha": _needs_optimizer("rmsprop"),
    **dict.fromkeys(("adam.beta1", "adam.beta2"), _needs_optimizer("adam", "amsgrad", "radam")),
    "sampler.num_instances": _needs_sampler(IDENTITY_SAMPLER),
    "sampler.num_cams": _needs_sampler("RandomDomainSampler"),
    "sampler.num_datasets": _needs_sampler("RandomDatasetSampler"),
    "train.open_layers": _needs_first_epochs,
    **{f"test.rerank_{key}": _needs_reranking for key in ("k1", "k2", "lambda", "form")},
    **{f"synthetic.{key}": _needs_rendering(key) for key in default_config().synthetic},
    **dict.fromkeys(("report.untrained", "report.curves"), needs_training),
}
"""Key → why it has no effect, for every model."""

TORCHREIDS_NEEDS: Mapping[str, Reason] = {"model.backbone_weights": _needs_own_backbone}
"""Key → why it has no effect, for torchreid's own models."""


def _needs_steps(stage: Mapping[str, Any]) -> str:
    return "lr_scheduler cosine has no steps" if stage["lr_scheduler"] == "cosine" else ""


def _needs_warmup(stage: Mapping[str, Any]) -> str:
    return "" if stage["warmup_epoch"] else "warmup_epoch 0 is no warm-up"


def _needs_staged_lr(stage: Mapping[str, Any]) -> str:
    return "" if stage["staged_lr"] else "staged_lr False gives all layers the same learning rate"


STAGE_NEEDS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "stepsize": lambda stage: _needs_steps(stage) if stage["stepsize"] else "",
    "gamma": _needs_steps,
    "warmup_factor": _needs_warmup,
    "new_layers": _needs_staged_lr,
    "base_lr_mult": _needs_staged_lr,
}
"""Setting of a stage → why it has no effect with the stage's other settings."""


def stages_without_effect(cfg: CfgNode) -> dict[str, str]:
    """Keys `stages.N.NAME`, and `train.NAME` for the stages without their own, → why they have no
    effect."""
    found: dict[str, str] = {}
    for name, reason in STAGE_NEEDS.items():
        of_train = []
        for number, settings in enumerate(stage_settings(cfg), start=1):
            stage, why = cfg.stages[number - 1], reason(settings)
            if name in stage and why:
                found[f"stages.{number}.{name}"] = why
            elif name not in stage and stage["optimizer"] == "fresh":
                of_train.append(why)
        if of_train and all(of_train):
            found[f"train.{name}"] = of_train[0]
    return found
