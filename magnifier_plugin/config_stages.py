"""The stages of a configuration: their keys and lengths, `train.scale` and `optimizer keep`."""

import logging
from collections.abc import Collection, Mapping
from typing import Any

from yacs.config import CfgNode as Node

from magnifier_plugin.config_values import ConfigError, did_you_mean, read_value

logger = logging.getLogger(__name__)

# Keys of train.* that define an optimiser and its learning rate schedule.
FRESH_KEYS = (
    *("optim", "lr", "weight_decay", "staged_lr", "new_layers", "base_lr_mult"),
    *("lr_scheduler", "stepsize", "warmup_epoch", "warmup_factor"),
)
# Keys of train.* that an entry of `stages` may override; the others apply to the whole run.
STAGE_KEYS = ("max_epoch", *FRESH_KEYS)
SCALED_KEYS = ("max_epoch", "warmup_epoch", "stepsize")
# γ and torchreid's `gamma` once shared a name.
GAMMA = (
    "no such key; the learning rate's factor is train.gamma, and the weight γ of the Semantic "
    "Diversity loss is stages.2.loss_weights.sd, for stage 2"
)


def set_stages(cfg: Node, stages: Any, origin: str) -> None:
    """Replace all stages.

    Args:
        cfg: the tree.
        stages: a list of entries, each a mapping.
        origin: name of the source in errors: the file, or "command line".
    Raises:
        ConfigError: not a list of mappings, or an entry has an unknown key or an invalid value.
    """
    listed = isinstance(stages, (list, tuple))
    if not listed or not all(isinstance(stage, Mapping) for stage in stages):
        raise ConfigError(f"{origin}: stages: expected a list of entries, got {stages!r}")
    cfg.stages = [{} for _ in stages]
    for number, stage in enumerate(stages, start=1):
        for name, value in stage.items():
            set_stage_key(cfg, f"stages.{number}.{name}", value, origin)


def set_stage_key(cfg: Node, key: str, value: Any, origin: str) -> None:
    """Set one key of one stage, such as `stages.2.lr` or `stages.2.loss_weights.sd`.

    If there are no stages, a first one with the values of `train.*` is added. N of stages.N may
    exceed the number of stages by 1, which adds a stage.

    Raises:
        ConfigError: no such stage or key, or an invalid value.
    """
    if not cfg.stages:
        cfg.stages.append({})
    _, number, *names = key.split(".", maxsplit=3)
    if not number.isdecimal() or not 1 <= int(number) <= len(cfg.stages) + 1 or not names:
        raise ConfigError(
            f"{origin}: {key}: expected stages.N.KEY with N from 1 to {len(cfg.stages) + 1} "
            "(one more than there are adds a stage)"
        )
    _check_stage_key(cfg, key, names, origin)
    if int(number) > len(cfg.stages):
        cfg.stages.append({})
    stage = cfg.stages[int(number) - 1]
    if names[0] == "loss_weights":
        _set_loss_weights(stage, key, names[1:], value, origin)
    else:
        like = "stages.N.optimizer" if names[0] == "optimizer" else f"train.{names[0]}"
        default = cfg.train.get(names[0], "")
        stage[names[0]] = read_value(value, like=like, default=default, key=key, origin=origin)


def _check_stage_key(cfg: Node, key: str, names: list[str], origin: str) -> None:
    name = ".".join(names)
    if name == "gamma":
        raise ConfigError(f"{origin}: {key}: {GAMMA}")
    if name in STAGE_KEYS or name == "optimizer" or names[0] == "loss_weights":
        return
    if name in cfg.train:
        raise ConfigError(
            f"{origin}: {key}: {name} applies to the whole run; set train.{name} instead"
        )
    hint = did_you_mean(name, (*STAGE_KEYS, "optimizer", "loss_weights"))
    raise ConfigError(f"{origin}: unknown configuration key {key}{hint}")


def _set_loss_weights(
    stage: dict[str, Any], key: str, names: list[str], value: Any, origin: str
) -> None:
    given = {names[0]: value} if names else value
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"{origin}: {key}: expected weights by loss term, such as {{sd: 0.002}}, or "
            f"{key}.sd 0.002 on the command line; got {value!r}"
        )
    weights = stage.setdefault("loss_weights", {})
    for name, weight in given.items():
        weights[str(name)] = read_value(
            weight,
            like="stages.N.loss_weights.NAME",
            default=0.0,
            key=key if names else f"{key}.{name}",
            origin=origin,
        )


def check_sum(cfg: Node, origin: str) -> None:
    """Reject a `train.max_epoch` that contradicts the stages.

    Raises:
        ConfigError: it is not the sum of the stages' epochs.
    """
    epochs = [stage["max_epoch"] for stage in cfg.stages if "max_epoch" in stage]
    if len(epochs) == len(cfg.stages) and cfg.train.max_epoch != sum(epochs):
        raise ConfigError(
            f"{origin}: train.max_epoch {cfg.train.max_epoch} contradicts the stages, which have "
            f"{' + '.join(map(str, epochs))} = {sum(epochs)} epochs; leave it out, and change "
            "one stage by stages.N.max_epoch or all of them by train.scale"
        )


def resolve_stages(cfg: Node, typed: Collection[str], *, listed: bool, origin: str) -> None:
    """Complete the stages: afterwards each has `max_epoch`, `loss_weights` and `optimizer`.

    `train.scale` is applied and set to 1; `train.max_epoch` becomes the sum of the stages' epochs.

    Args:
        cfg: the tree, every value set.
        typed: keys typed on the command line; `train.scale` does not scale them.
        listed: whether a list of stages was given. If it has several stages, each needs a
            `max_epoch`; otherwise the first stage defaults to `train.max_epoch`.
        origin: the file, for errors about values that were not typed.
    Raises:
        ConfigError: a stage has no length, `optimizer keep` has no optimiser to continue or
            overrides a typed key, single_step has no period, or `train.max_epoch` contradicts the
            stages.
    """
    cfg.stages = cfg.stages or [{}]
    may_lack_length = 0 if listed and len(cfg.stages) > 1 else 1
    for number, stage in enumerate(cfg.stages, start=1):
        if number > may_lack_length and "max_epoch" not in stage:
            raise ConfigError(
                f"{origin}: stages.{number}.max_epoch: expected a number of epochs, found none"
            )
        stage.setdefault("optimizer", "fresh")
        stage.setdefault("loss_weights", {})
    for number, stage in enumerate(cfg.stages, start=1):
        if stage["optimizer"] == "keep":
            _check_keep(cfg, number, typed, origin)
    _scale(cfg, typed)
    cfg.stages[0].setdefault("max_epoch", cfg.train.max_epoch)
    for number, settings in enumerate(stage_settings(cfg), start=1):
        if settings["lr_scheduler"] == "single_step" and not settings["stepsize"]:
            raise ConfigError(
                f"{origin}: stages.{number}: lr_scheduler single_step expects a stepsize, the "
                "number of epochs between two steps, found none"
            )
    if "train.max_epoch" in typed:
        check_sum(cfg, "command line")
    cfg.train.max_epoch = sum(stage["max_epoch"] for stage in cfg.stages)


def _check_keep(cfg: Node, number: int, typed: Collection[str], origin: str) -> None:
    """Check a stage with `optimizer keep`: drop keys without effect, reject them if typed."""
    key, stage = f"stages.{number}.optimizer", cfg.stages[number - 1]
    origin = "command line" if key in typed else origin
    if number == 1:
        raise ConfigError(f"{origin}: {key}: keep expects a stage before it, found none; use fresh")
    given = [name for name in FRESH_KEYS if name in stage]
    for name in given:
        if f"stages.{number}.{name}" in typed:
            raise ConfigError(
                f"command line: stages.{number}.{name}: has no effect with {key} keep, which "
                f"continues the optimiser of stage {number - 1}; leave it out, or add {key} fresh"
            )
    if stage_settings(cfg)[number - 2]["lr_scheduler"] == "cosine":
        raise ConfigError(
            f"{origin}: {key}: keep expects a learning rate to continue, but the cosine of stage "
            f"{number - 1} ends at 0; use fresh"
        )
    for name in given:
        del stage[name]
    if given:
        logger.warning(
            "%s: %s keep continues the optimiser of stage %d; %s of stage %d are not used",
            *(origin, key, number - 1, ", ".join(given), number),
        )


def _scale(cfg: Node, typed: Collection[str]) -> None:
    """Apply `train.scale` to the values that were not typed, and set it to 1."""
    scale, cfg.train.scale = cfg.train.scale, 1.0
    if scale == 1:
        return
    for number, stage in enumerate(cfg.stages, start=1):
        for name in SCALED_KEYS:
            key = f"stages.{number}.{name}" if name in stage else f"train.{name}"
            if key in typed or (name in FRESH_KEYS and stage["optimizer"] == "keep"):
                continue
            value = stage.get(name, cfg.train[name])
            if name == "stepsize":
                stage[name] = [max(1, round(step * scale)) for step in value]
            else:
                lowest = 1 if name == "max_epoch" else 0
                stage[name] = max(lowest, round(value * scale))


def printed_config(cfg: Node, scale: float) -> str:
    """A loaded configuration as text, showing the given `train.scale` and its effect.

    Args:
        cfg: a loaded configuration; its own `train.scale` is 1, so that it is not applied twice.
        scale: the given `train.scale`.
    """
    if scale == 1:
        return str(cfg)
    shown = cfg.clone()
    shown.defrost()
    epochs = " + ".join(str(stage["max_epoch"]) for stage in cfg.stages)
    shown.train.scale = f"{scale:g} (applied: stages of {epochs} epochs)"
    return str(shown)


def stage_settings(cfg: Node) -> list[dict[str, Any]]:
    """The settings of each stage: `train.*`, overridden by the stage's entry.

    A stage with `optimizer: keep` continues the previous stage's optimiser and schedule, so it has
    that stage's `lr`, `stepsize` and other `FRESH_KEYS`; the schedule's epoch count goes on.

    Args:
        cfg: a loaded configuration.
    Returns:
        One dict per stage: the keys of `train`, `loss_weights` (name → weight, possibly empty) and
        `optimizer` ("fresh" or "keep").
    """
    settings: list[dict[str, Any]] = []
    for stage in cfg.stages:
        before = settings[-1] if stage["optimizer"] == "keep" else cfg.train
        settings.append({**before, **stage})
    return settings
