"""The arguments of one call of scripts/reproduce.py, and which KEY VALUE pairs they may have."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from yacs.config import CfgNode

from magnifier_plugin.config import ConfigError, load_config, parse_pairs
from magnifier_plugin.option_checks import without_effect
from magnifier_plugin.recipe import find_system
from reproduction.table import Pairs, Row, Table

RENDERED = "synthetic"
# Keys that the script sets for every row. (Rows with label maps of their own also set masks.dir.)
OWN_KEYS = (
    *("train.seed", "data.save_dir", "model.resume", "test.cache", "test.evaluate"),
    *("report.untrained", "train.keep_freq"),
)
# Keys that it also sets with --start.
START_KEYS = ("model.pretrained", "model.backbone_weights")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The arguments of one call of the script."""

    table: Table
    config_file: Path
    seeds: tuple[int, ...]
    out: Path
    """Folder of the rows and results; absolute."""
    pairs: Pairs = ()
    """KEY VALUE … for every row in which KEY has an effect."""
    quick: bool = False
    """Whether stages are shortened to `plan.QUICK_EPOCHS`."""
    start: int | None = None
    """Seed of the people on which a plain network is trained, from whose backbone every row starts;
    None: rows start as the configuration says."""


def is_rendered(cfg: CfgNode) -> bool:
    """Whether the people are rendered, so that each seed has its own people."""
    return {*cfg.data.sources, *cfg.data.targets} == {RENDERED}


def check_keys(settings: Settings, cfg: CfgNode) -> None:
    """Raise a ConfigError for a given key that the script or the table's rows set.

    Args:
        settings: the arguments.
        cfg: their configuration, without a row's overrides.
    """
    of_rows = {key for row in settings.table.rows for key in row.overrides[::2]}
    own = {*OWN_KEYS, *(() if settings.start is None else START_KEYS)}
    if is_rendered(cfg):  # each seed has its own people
        own.add("synthetic.seed")
    for key in parse_pairs(settings.pairs):
        if key in own:
            raise ConfigError(f"{key}: this script sets it for every row; leave it out")
        if key in of_rows:
            raise ConfigError(f"{key}: the rows of {settings.table.name} set it; leave it out")


def pairs_with_effect(settings: Settings, row: Row) -> Pairs:
    """The given pairs whose keys have an effect in a row."""
    unused = _without_effect(settings, row)
    return tuple(word for pair in _split(settings.pairs) if pair[0] not in unused for word in pair)


def check_used(settings: Settings, of_runs: Collection[Pairs]) -> None:
    """Raise a ConfigError for a given key without effect in all rows.

    Args:
        settings: the arguments.
        of_runs: the pairs of each run.
    """
    for key, _ in _split(settings.pairs):
        if not any(key in pairs[::2] for pairs in of_runs):
            reason = _without_effect(settings, settings.table.rows[0])[key]
            raise ConfigError(
                f"{key}: has no effect in any row of {settings.table.name}; in the first, {reason}"
            )


def _without_effect(settings: Settings, row: Row) -> dict[str, str]:
    cfg = load_config(settings.config_file, {}, (*settings.pairs, *row.overrides))
    return without_effect(cfg, find_system(cfg))


def _split(pairs: Pairs) -> Iterator[Pairs]:
    return zip(pairs[::2], pairs[1::2], strict=True)
