"""Read a configuration: files that extend each other, flags, and KEY VALUE pairs.

`config_tree.py` has the keys and their defaults, `config_values.py` the values that each key
accepts; `config_files.py` reads files, `config_stages.py` handles the stages.
"""

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yacs.config import CfgNode as Node

from magnifier_plugin.config_files import flatten, merge, read_files
from magnifier_plugin.config_stages import (
    GAMMA,
    STAGE_KEYS,
    check_sum,
    printed_config,
    resolve_stages,
    set_stage_key,
    set_stages,
    stage_settings,
)
from magnifier_plugin.config_systems import VARIANTS
from magnifier_plugin.config_tree import default_config
from magnifier_plugin.config_values import ConfigError, did_you_mean, read_value
from magnifier_plugin.text_files import parse_yaml

__all__ = (
    "ConfigError",
    "changed_values",
    "flatten",
    "given_scale",
    "load_config",
    "parse_pairs",
    "printed_config",
    "stage_settings",
    "typed_keys",
)

COMMAND_LINE = "command line"
SAVED = "the saved configuration"
# torchreid's keys, or whole sections, that are not supported, and why.
NOT_TAKEN = {
    "data.load_train_targets": "there is no training on targets; leave it out",
    "sampler.train_sampler_t": "there is no training on targets; leave it out",
    "video": "there are no video data sets with label maps; leave the section out",
}


def load_config(
    file: str | Path | None = None,
    flags: Mapping[str, Any] | None = None,
    pairs: Sequence[str] = (),
    recorded: Mapping[str, Any] | None = None,
) -> Node:
    """The configuration of a run.

    In rising order of precedence: the defaults, the values that `magnifier.variant` sets, the
    recorded values, the extended file, the file, the flags, the pairs.

    Args:
        file: YAML, or None for the defaults. Its key `extends` names a base file, relative to this
            one: mappings are merged, lists (including `stages`) replaced.
        flags: values of command-line flags, by configuration key ("data.root").
        pairs: KEY VALUE KEY VALUE …, as typed; "stages.2.lr" is the second stage's learning rate.
            N of stages.N may exceed the number of stages by 1, which adds a stage.
        recorded: values by key, as recorded in a checkpoint.
    Returns:
        The frozen tree. Each entry of `stages` has `max_epoch`, `loss_weights` and `optimizer`;
        `train.max_epoch` is the sum of their epochs; `train.scale` has been applied and is 1.
    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: an unknown key (the error suggests the nearest known one), a value of the wrong
            type or out of range, files that extend each other in a circle, a missing base file, or
            stages that contradict each other or `train.max_epoch`.
    """
    cfg = default_config()
    layers = read_files(Path(file)) if file else []
    typed = {**(flags or {}), **parse_pairs(pairs)}
    given = merge([*layers, (COMMAND_LINE, typed)])
    _set_variant(cfg, given.get("magnifier.variant"))
    for key, value in (recorded or {}).items():
        if "magnifier.variant" not in given or key not in _variant_keys():
            _set(cfg, key, value, "recorded configuration")
    listed = False
    for origin, values in layers:
        for key, value in values.items():
            _set(cfg, key, value, origin)
        listed = bool(values.get("stages", listed))
        if listed and "train.max_epoch" in values:
            check_sum(cfg, origin)
    for key, value in typed.items():
        _set(cfg, key, value, COMMAND_LINE)
    listed = bool(typed.get("stages", listed))
    origin = str(file) if file else COMMAND_LINE
    resolve_stages(cfg, typed_keys(typed), listed=listed, origin=origin)
    cfg.freeze()
    return cfg


def given_scale(
    file: str | Path | None = None,
    flags: Mapping[str, Any] | None = None,
    pairs: Sequence[str] = (),
) -> float:
    """The given value of `train.scale`, which `load_config` applies and resets to 1.

    Args:
        file, flags, pairs: as in `load_config`.
    """
    typed = {**(flags or {}), **parse_pairs(pairs)}
    layers = read_files(Path(file)) if file else []
    return float(merge([*layers, (COMMAND_LINE, typed)]).get("train.scale", 1))


def parse_pairs(pairs: Sequence[str]) -> dict[str, Any]:
    """The values typed on the command line, by key, in order.

    Args:
        pairs: KEY VALUE KEY VALUE …; if a key is typed twice, the last value counts.
    Returns:
        Values as Python literals (`1e-3`, `[40, 70]`, `True`), everything else as text. A number
        for a key that accepts text, such as a folder's name, stays text. Keys are not checked.
    Raises:
        ConfigError: a key has no value.
    """
    if len(pairs) % 2:
        raise ConfigError(f"expected KEY VALUE pairs after the flags, got {' '.join(pairs)}")
    defaults = dict(flatten(default_config()))
    typed: dict[str, Any] = {}
    for key, word in zip(pairs[::2], pairs[1::2], strict=True):
        try:
            value = ast.literal_eval(word)
        except (ValueError, SyntaxError):
            value = word
        takes_text = isinstance(defaults.get(key), str)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        typed[key] = word if takes_text and is_number else value
    return typed


def typed_keys(typed: Mapping[str, Any]) -> set[str]:
    """The keys of typed values, with those in a list of stages and in a mapping of loss weights.

    Args:
        typed: valid values by key, of flags and of `parse_pairs`.
    """
    stages = {
        f"stages.{number}.{name}": value
        for number, stage in enumerate(typed.get("stages", ()), start=1)
        for name, value in stage.items()
    }
    given = {**typed, **stages}
    weights = {
        f"{key}.{name}"
        for key, value in given.items()
        if isinstance(value, Mapping)
        for name in value
    }
    return given.keys() | weights


def changed_values(before: str, cfg: Node) -> dict[str, tuple[Any, Any]]:
    """The keys whose values differ between a saved configuration and the current one.

    Args:
        before: text of `cfg.dump()`, as saved in a checkpoint or in `results.json`.
        cfg: the current configuration.
    Returns:
        Key → (saved value, current value); None stands for a key that is absent from one of them.
    Raises:
        ConfigError: `before` is not a configuration.
    """
    try:
        old, new = (_by_key(parse_yaml(text, SAVED)) for text in (before, cfg.dump()))
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"{SAVED}: {error}") from error
    keys = [key for key in {**new, **old} if old.get(key) != new.get(key)]
    return {key: (old.get(key), new.get(key)) for key in keys}


def _by_key(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Values by key; keys of stages are stages.N.KEY."""
    stages = {str(number): stage for number, stage in enumerate(tree.get("stages", ()), start=1)}
    return dict(flatten({**tree, "stages": stages}))


def _set_variant(cfg: Node, variant: Any) -> None:
    """Set the keys that a variant of MagnifierNet decides; `_set` rejects unknown variants."""
    if isinstance(variant, str):
        for key, value in VARIANTS.get(variant, {}).items():
            _set(cfg, key, value, f"magnifier.variant {variant}")


def _variant_keys() -> set[str]:
    """The keys that variants decide."""
    return {key for values in VARIANTS.values() for key in values}


def _set(cfg: Node, key: str, value: Any, origin: str) -> None:
    """Set one key of the tree, after checking that it exists and accepts the value."""
    if key == "stages":
        set_stages(cfg, value, origin)
        return
    if key.startswith("stages."):
        set_stage_key(cfg, key, value, origin)
        return
    *folders, name = key.split(".")
    node = cfg
    for folder in folders:
        node = node.get(folder) if isinstance(node, Node) else None
    if not isinstance(node, Node) or name not in node:
        _refuse_key(cfg, key, origin)
    if isinstance(node[name], Node):
        raise ConfigError(
            f"{origin}: {key}: expected keys below it, such as {key}.{next(iter(node[name]))}, "
            f"got {value!r}"
        )
    node[name] = read_value(value, like=key, default=node[name], key=key, origin=origin)


def _refuse_key(cfg: Node, key: str, origin: str) -> None:
    if key in ("magnifier.gamma", "magnifier.sd_stage"):
        raise ConfigError(f"{origin}: {key}: {GAMMA}")
    if reason := NOT_TAKEN.get(key) or NOT_TAKEN.get(key.partition(".")[0]):
        raise ConfigError(f"{origin}: {key}: torchreid's key is not supported: {reason}")
    known = [known for known, _ in flatten(cfg) if known != "stages"]
    known += [f"stages.2.{name}" for name in (*STAGE_KEYS, "loss_weights", "optimizer")]
    raise ConfigError(f"{origin}: unknown configuration key {key}{did_you_mean(key, known)}")
