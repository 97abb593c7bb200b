"""Reading a configuration: files that extend each other, flags, and KEY VALUE pairs.

The tree is in `config_tree.py`, what each key takes in `config_values.py`, the files in
`config_files.py`, the stages in `config_stages.py`.
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
)

COMMAND_LINE = "command line"
SAVED = "the saved configuration"
# torchreid's keys that are not taken, or the section that they are in, and why.
NOT_TAKEN = {
    "data.load_train_targets": "targets are not trained on; leave it out",
    "sampler.train_sampler_t": "targets are not trained on; leave it out",
    "video": "there are no video data sets with label maps; leave the section out",
}


def load_config(
    file: str | Path | None = None,
    flags: Mapping[str, Any] | None = None,
    pairs: Sequence[str] = (),
    recorded: Mapping[str, Any] | None = None,
) -> Node:
    """The configuration of a run.

    Later ones win: the defaults, what `magnifier.variant` sets, what is recorded, the file that is
    extended, the file, the flags, the pairs.

    Args:
        file: YAML, or None for the defaults. `extends: FILE` in it names another one, relative to
            it, that it changes: mappings are merged, lists (also `stages`) replaced.
        flags: values by key ("data.root") that the command line's flags stand for.
        pairs: KEY VALUE KEY VALUE …, as typed; "stages.2.lr" is the second stage's learning rate,
            and one stage more than there are adds it.
        recorded: values by key that a checkpoint recorded.
    Returns:
        The frozen tree; each of `stages` has `max_epoch`, `loss_weights` and `optimizer`,
        `train.max_epoch` is their sum, and `train.scale` is applied.
    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: an unknown key (the nearest known one is named), a value of another type or
            out of range, files that extend each other in a circle or extend a missing one, or
            stages that do not add up.
    """
    cfg = default_config()
    layers = read_files(Path(file)) if file else []
    typed = {**(flags or {}), **parse_pairs(pairs)}
    given = merge([*layers, (COMMAND_LINE, typed)])
    _set_variant(cfg, given.get("magnifier.variant"))
    for key, value in (recorded or {}).items():
        if "magnifier.variant" not in given or key not in _of_variants():
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
    resolve_stages(cfg, _typed_keys(typed), listed=listed, origin=origin)
    cfg.freeze()
    return cfg


def given_scale(
    file: str | Path | None = None,
    flags: Mapping[str, Any] | None = None,
    pairs: Sequence[str] = (),
) -> float:
    """`train.scale` as it was given, which `load_config` applies and sets to 1.

    Args:
        file, flags, pairs: that `load_config` took.
    """
    typed = {**(flags or {}), **parse_pairs(pairs)}
    layers = read_files(Path(file)) if file else []
    return float(merge([*layers, (COMMAND_LINE, typed)]).get("train.scale", 1))


def parse_pairs(pairs: Sequence[str]) -> dict[str, Any]:
    """The values that were typed, by key, in the order they were typed.

    Args:
        pairs: KEY VALUE KEY VALUE …; of a key that is typed twice the last value counts.
    Returns:
        Values as Python would read them (`1e-3`, `[40, 70]`, `True`), other words as text. A number
        for a key that takes text, such as a folder's name, stays text. Keys are not checked.
    Raises:
        ConfigError: a key without a value.
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


def changed_values(before: str, cfg: Node) -> dict[str, tuple[Any, Any]]:
    """The keys whose values differ between a saved configuration and another one.

    Args:
        before: what `cfg.dump()` wrote, in a checkpoint or in `results.json`.
        cfg: the other one.
    Returns:
        Key → (value before, value in cfg); None for a key that one of them does not have.
    Raises:
        ConfigError: `before` is no configuration.
    """
    try:
        old, new = (_by_key(parse_yaml(text, SAVED)) for text in (before, cfg.dump()))
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"{SAVED}: {error}") from error
    keys = [key for key in {**new, **old} if old.get(key) != new.get(key)]
    return {key: (old.get(key), new.get(key)) for key in keys}


def _by_key(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Values by key, those of stages as stages.N.KEY."""
    stages = {str(number): stage for number, stage in enumerate(tree.get("stages", ()), start=1)}
    return dict(flatten({**tree, "stages": stages}))


def _set_variant(cfg: Node, variant: Any) -> None:
    """Set what a variant of MagnifierNet decides; an unknown one is refused when it is set."""
    if isinstance(variant, str):
        for key, value in VARIANTS.get(variant, {}).items():
            _set(cfg, key, value, f"magnifier.variant {variant}")


def _of_variants() -> set[str]:
    """The keys that a variant decides."""
    return {key for values in VARIANTS.values() for key in values}


def _set(cfg: Node, key: str, value: Any, origin: str) -> None:
    """Set one key of the tree, after checking that it exists and that the value fits."""
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
        raise ConfigError(f"{origin}: {key}: torchreid's key is not taken: {reason}")
    known = [known for known, _ in flatten(cfg) if known != "stages"]
    known += [f"stages.2.{name}" for name in (*STAGE_KEYS, "loss_weights", "optimizer")]
    raise ConfigError(f"{origin}: unknown configuration key {key}{did_you_mean(key, known)}")


def _typed_keys(typed: Mapping[str, Any]) -> set[str]:
    """The keys of the command line, with those inside a typed list of stages."""
    stages = typed.get("stages", ())
    return set(typed) | {
        f"stages.{number}.{name}" for number, stage in enumerate(stages, start=1) for name in stage
    }
