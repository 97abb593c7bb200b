"""Reject configuration keys without effect, and names of layers that a network lacks."""

import logging
from collections.abc import Collection

from torch import nn
from yacs.config import CfgNode

from magnifier_plugin.builders import uncomputed_terms
from magnifier_plugin.config import ConfigError, stage_settings
from magnifier_plugin.effects import NEEDS, TORCHREIDS_NEEDS, stages_without_effect
from magnifier_plugin.systems import LOSS_WEIGHTS, SYSTEMS, System

logger = logging.getLogger(__name__)


def check_effects(cfg: CfgNode, system: System | None, typed: Collection[str]) -> None:
    """Raise a ConfigError for a typed key without effect; log `report.*` keys without effect.

    Args:
        cfg: a loaded configuration.
        system: the system of its model; None for torchreid's own models.
        typed: keys that were typed on the command line. A file may have keys without effect, so
            that it serves every row of an ablation.
    """
    for key, reason in without_effect(cfg, system).items():
        if key in typed:
            raise ConfigError(f"{key}: has no effect, {reason}")
        if key.startswith("report."):
            logger.info("%s is skipped: %s", key, reason)


def without_effect(cfg: CfgNode, system: System | None) -> dict[str, str]:
    """Key → why it has no effect.

    Args:
        cfg: a loaded configuration.
        system: the system of its model; None for torchreid's own models.
    """
    own = TORCHREIDS_NEEDS if system is None else system.needs
    terms = {f"{LOSS_WEIGHTS}{term}" for term in uncomputed_terms(cfg, system)}
    reasons = stages_without_effect(cfg)
    for name, row in SYSTEMS.items():
        if row is not system:
            others = [f"{row.section}.{key}" for key in cfg.get(row.section, ())]
            others += [key for key in row.needs if key.startswith("report.") and key not in own]
            others += [key for term in terms & row.needs.keys() for key in _keys(cfg, term)]
            reasons |= dict.fromkeys(others, f"{cfg.model.name} is not a {name}")
    reasons |= {
        key: why
        for needs in (NEEDS, own)
        for name, reason in needs.items()
        if (why := reason(cfg))
        for key in _keys(cfg, name)
    }
    return {
        key: reason
        for key, reason in reasons.items()
        if not key.startswith("report.") or cfg.report[key.removeprefix("report.")]
    }


def _keys(cfg: CfgNode, name: str) -> list[str]:
    """The configuration keys that an entry of `System.needs` covers; `loss_weights.NAME` covers
    each stage whose weight of NAME is not 0."""
    section, _, term = name.partition(".")
    if section != "loss_weights":
        return [name]
    numbers = [n for n, stage in enumerate(cfg.stages, 1) if stage["loss_weights"].get(term)]
    return [f"stages.{number}.{name}" for number in numbers]


def check_layers(cfg: CfgNode, model: nn.Module) -> None:
    """Raise a ConfigError if `open_layers` or `new_layers` is used and names a missing layer, or if
    the first epochs would train no weights."""
    if cfg.train.fixbase_epoch and not cfg.train.open_layers:
        raise ConfigError(
            "train.open_layers: expected the layers to train in the first epochs, got none; "
            "train.fixbase_epoch 0 trains all layers from the first epoch on"
        )
    layers = {"train.open_layers": cfg.train.open_layers if cfg.train.fixbase_epoch else []}
    for number, stage in enumerate(stage_settings(cfg), start=1):
        layers[f"train.new_layers, stage {number}"] = stage["new_layers"] * stage["staged_lr"]
    known = [name for name, _ in model.named_children()]
    for key, names in layers.items():
        for name in names:
            if name not in known:
                hint = "; train.fixbase_epoch 0 trains all layers from the first epoch on"
                raise ConfigError(
                    f"{key}: {cfg.model.name} has no layer {name}, expected some of "
                    f"{', '.join(known)}{hint * (key == 'train.open_layers')}"
                )
    opened = layers["train.open_layers"]
    if opened and not any(list(getattr(model, name).parameters()) for name in opened):
        raise ConfigError(
            f"train.open_layers: expected layers with weights, but {', '.join(opened)} of this "
            f"{cfg.model.name} has none; add another one of {', '.join(known)}"
        )
