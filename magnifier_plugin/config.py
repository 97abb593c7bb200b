"""Reading a configuration: file, flags and KEY VALUE pairs over the tree of `config_tree.py`."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from yacs.config import CfgNode as Node

from magnifier_plugin.config_tree import default_config

SWITCHES = ("amp", "channels_last")  # on, off, auto


class ConfigError(ValueError):
    """A configuration that cannot be meant."""


def load_config(
    file: str | Path | None = None,
    flags: Mapping[str, Any] | None = None,
    pairs: Sequence[str] = (),
) -> Node:
    """The configuration of a run; later arguments win.

    Args:
        file: YAML, or None for the defaults.
        flags: values by key ("data.root") that the command line's flags stand for.
        pairs: KEY VALUE KEY VALUE …, as typed; "stages.2.lr" is the second stage's learning rate,
            and one stage more than there are adds it.
    Returns:
        The frozen tree; `stages` holds at least one entry, and `train.max_epoch` is their sum.
    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: an unknown key (the nearest known one is named), a value of another type, or
            a schedule that does not add up.
    """
    cfg = default_config()
    from_file = dict(_flatten(_read_yaml(Path(file)))) if file else {}
    if len(pairs) % 2:
        raise ConfigError(f"expected KEY VALUE pairs after the flags, got {' '.join(pairs)}")
    typed = dict(zip(pairs[::2], map(Node._decode_cfg_value, pairs[1::2]), strict=True))
    for origin, values in (
        (str(file), from_file),
        ("command line", flags or {}),
        ("command line", typed),
    ):
        for key, value in values.items():
            _set(cfg, key, value, origin)
    _resolve_stages(cfg, from_file, typed)
    cfg.freeze()
    return cfg


def stage_settings(cfg: Node) -> list[dict[str, Any]]:
    """What each stage trains with: `train.*`, overridden by the stage's entry."""
    return [{**cfg.train, **stage} for stage in cfg.stages]


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a configuration file (YAML), found none")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected keys and values, found a {type(content).__name__}")
    return content


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _set(cfg: Node, key: str, value: Any, origin: str) -> None:
    """Set one key of the tree, after checking that it exists and that the type fits."""
    if key == "stages":
        for number, stage in enumerate(_as_stages(value, origin), start=1):
            for name, entry in stage.items():
                _set_stage(cfg, f"stages.{number}.{name}", entry, origin)
        return
    if key.startswith("stages."):
        _set_stage(cfg, key, value, origin)
        return
    *folders, name = key.split(".")
    node = cfg
    for folder in folders:
        node = node.get(folder) if isinstance(node, Node) else None
    if not isinstance(node, Node) or name not in node or isinstance(node[name], Node):
        known = [known for known, _ in _flatten(cfg) if known != "stages"]
        _refuse_key(key, known, origin)
    node[name] = _coerce(value, node[name], key, origin)


def _as_stages(value: Any, origin: str) -> list[dict[str, Any]]:
    if isinstance(value, list) and all(isinstance(stage, Mapping) for stage in value):
        return value
    raise ConfigError(f"{origin}: stages: expected a list of entries, got {value!r}")


def _set_stage(cfg: Node, key: str, value: Any, origin: str) -> None:
    _, number, *names = key.split(".")
    if not number.isdigit() or not 1 <= int(number) <= len(cfg.stages) + 1 or len(names) != 1:
        raise ConfigError(
            f"{origin}: {key}: expected stages.N.KEY with N from 1 to {len(cfg.stages) + 1} "
            "(one more than there are adds a stage) and KEY a key of train"
        )
    if names[0] not in cfg.train:
        _refuse_key(key, [f"stages.{number}.{known}" for known in cfg.train], origin)
    if int(number) > len(cfg.stages):
        cfg.stages.append({})
    cfg.stages[int(number) - 1][names[0]] = _coerce(value, cfg.train[names[0]], key, origin)


def _refuse_key(key: str, known: list[str], origin: str) -> None:
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    raise ConfigError(f"{origin}: unknown configuration key {key}{hint}")


def _coerce(value: Any, old: Any, key: str, origin: str) -> Any:
    """Bring a value to its key's type where nothing is lost: 1 → 1.0, "1e-3" → 0.001, "a,b" → list.

    PyYAML reads `1e-3` (without a dot) as text; nobody who writes it means text.
    """
    if key in SWITCHES:
        value = {True: "on", False: "off"}.get(value, value)
        if value not in ("on", "off", "auto"):
            raise ConfigError(f"{origin}: {key}: expected on, off or auto, got {value!r}")
    if isinstance(old, float) and not isinstance(value, bool):
        try:
            return float(value)
        except (TypeError, ValueError):
            pass
    if isinstance(old, list):
        if isinstance(value, str):
            return [word.strip() for word in value.split(",") if word.strip()]
        return list(value) if isinstance(value, (list, tuple)) else [value]
    if old is None or type(value) is type(old):
        return value
    raise ConfigError(
        f"{origin}: {key}: expected {type(old).__name__} as in {old!r}, "
        f"got {type(value).__name__} {value!r}"
    )


def _resolve_stages(cfg: Node, from_file: Mapping[str, Any], typed: Mapping[str, Any]) -> None:
    """Give every stage its epochs, and scale the stages to a `train.max_epoch` that was asked for.

    Warm-up and steps shrink and grow with their stage, unless they were typed.
    """
    if not cfg.stages:
        cfg.stages = [{}]
    for number, stage in enumerate(cfg.stages, start=1):
        if len(cfg.stages) > 1 and "max_epoch" not in stage:
            raise ConfigError(f"stages.{number}.max_epoch: expected a number of epochs, found none")
        stage.setdefault("max_epoch", cfg.train.max_epoch)
    epochs = [stage["max_epoch"] for stage in cfg.stages]
    if min(epochs) < 1:
        raise ConfigError(f"stages: expected at least one epoch each, got {epochs}")
    wanted = typed.get("train.max_epoch", sum(epochs))
    if "train.max_epoch" in from_file and "train.max_epoch" not in typed and len(epochs) > 1:
        raise ConfigError("train.max_epoch: with stages it is their sum; leave it out of the file")
    if wanted != sum(epochs):
        if wanted < len(epochs):
            raise ConfigError(
                f"train.max_epoch: {len(epochs)} stages need at least an epoch each, got {wanted}"
            )
        _scale_stages(cfg, wanted / sum(epochs), typed)
        cfg.stages[0]["max_epoch"] += wanted - sum(stage["max_epoch"] for stage in cfg.stages)
    cfg.train.max_epoch = wanted


def _scale_stages(cfg: Node, ratio: float, typed: Mapping[str, Any]) -> None:
    for number, stage in enumerate(cfg.stages, start=1):
        stage["max_epoch"] = max(1, round(stage["max_epoch"] * ratio))
        for name in ("warmup_epoch", "stepsize"):
            if {f"train.{name}", f"stages.{number}.{name}"} & set(typed):
                continue
            value = stage.get(name, cfg.train[name])
            stage[name] = (
                [max(1, round(step * ratio)) for step in value]
                if isinstance(value, list)
                else round(value * ratio)
            )


def parse_pairs(pairs):
    return {}
