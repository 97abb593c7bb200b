"""The runs of a table's rows with a configuration, checked before any of them starts."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from yacs.config import CfgNode

from magnifier_plugin.config import ConfigError, load_config, parse_pairs, typed_keys
from magnifier_plugin.files import absolute_path
from magnifier_plugin.recipe import check_options, find_system
from magnifier_plugin.systems import SYSTEMS
from reproduction.code import training_code
from reproduction.identity import identity
from reproduction.settings import (
    Settings,
    check_keys,
    check_used,
    is_rendered,
    pairs_with_effect,
)
from reproduction.table import Row

QUICK_EPOCHS = 2  # largest number per stage


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One row with one seed: it trains, or tests the weights of another run. Hashed by identity."""

    row: Row
    seed: int
    folder: Path
    pairs: tuple[str, ...]
    """KEY VALUE … after the configuration file, on the command line of scripts/main.py."""
    cfg: CfgNode
    """The resulting configuration."""
    needs: "Run | None" = None
    """The run whose weights this one tests."""
    start: "Run | None" = None
    """The run from whose backbone this one starts."""
    shares: "Run | None" = None
    """A run with the same first stage; this one continues from that run's checkpoint after it."""

    @property
    def name(self) -> str:
        """The name in messages, such as "G+M/seed-1"."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def needed(self) -> list["Run"]:
        """The runs whose weights this one needs."""
        return [other for other in (self.needs, self.start) if other]

    @property
    def last_checkpoint(self) -> Path:
        """Path of the run's last checkpoint."""
        return self._checkpoint(self.cfg.train.max_epoch)

    @property
    def first_stage(self) -> Path:
        """Path of the checkpoint at the end of the first stage, if `train.keep_freq` keeps it."""
        return self._checkpoint(self.cfg.stages[0]["max_epoch"])

    def _checkpoint(self, epoch: int) -> Path:
        return self.folder / "model" / f"model.pth.tar-{epoch}"


def make_runs(settings: Settings) -> list[Run]:
    """The runs of a table, seed by seed, each after the run that it needs.

    Raises:
        FileNotFoundError: the configuration file does not exist.
        ConfigError: the configuration is of another system or uses CUHK03's single-shot metric, a
            row's overrides do not fit it or give the same configuration as another row, or a given
            key is set by the rows or the script, or has no effect in any row.
    """
    cfg = load_config(settings.config_file, {}, settings.pairs)
    check_keys(settings, cfg)
    system = find_system(cfg)
    if cfg.cuhk03.use_metric_cuhk03:
        raise ConfigError(
            "cuhk03.use_metric_cuhk03: a row's rank-1 would count one image per identity (single "
            "shot), the differences between rows the whole gallery; leave it out"
        )
    if settings.start is not None and not is_rendered(cfg):
        raise ConfigError(
            f"--start: trains on rendered people, but {settings.config_file} trains on "
            f"{', '.join(cfg.data.sources)}; leave it out and set model.backbone_weights"
        )
    if system is not SYSTEMS[settings.table.system]:
        raise ConfigError(
            f"{settings.config_file}: expected a configuration of {settings.table.system}, the "
            f"system of table {settings.table.name}, found model.name {cfg.model.name}"
        )
    rows = sorted(settings.table.rows, key=lambda row: bool(row.weights_of))
    start = None if settings.start is None else start_run(settings, settings.start)
    runs: dict[tuple[str, int], Run] = {}
    for seed in settings.seeds:
        for row in rows:
            runs[row.name, seed] = _make_run(settings, row, seed, runs, start)
    check_used(settings, [run.pairs for run in runs.values()])
    _check_distinct(settings, [runs[row.name, settings.seeds[0]] for row in rows])
    return [*([start] if start else []), *_share_first_stages(settings, list(runs.values()))]


def _share_first_stages(settings: Settings, runs: Sequence[Run]) -> list[Run]:
    """Let runs that differ only in later stages train the first stage once.

    Resuming is exact, so the final results are the same as if each run trained the first stage.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        if not run.needs and len(run.cfg.stages) > 1:
            groups.setdefault(_first_stage(run, settings.out), []).append(run)
    found = {run: run for run in runs}
    for run, *others in groups.values():
        if others:  # only then is the checkpoint between the stages needed
            keep = "train.keep_freq", str(run.cfg.stages[0]["max_epoch"])
            first = found[run] = replace(run, pairs=(*run.pairs, *keep))
            found |= {other: replace(other, shares=first) for other in others}
    return [replace(run, needs=found[run.needs]) if run.needs else run for run in found.values()]


def _first_stage(run: Run, out: Path) -> str:
    """A text that is equal for runs with the same first stage."""
    values = {
        key: value
        for key, value in identity(run.cfg, out).items()
        if key != "train.max_epoch" and (not key.startswith("stages.") or "stages.1." in key)
    }
    return repr(values)


def _make_run(
    settings: Settings,
    row: Row,
    seed: int,
    others: Mapping[tuple[str, int], Run],
    start: Run | None,
) -> Run:
    folder = settings.out / row.name / f"seed-{seed}"
    needs = others.get((row.weights_of, seed))
    try:
        typed = (*pairs_with_effect(settings, row), *row.overrides)
        cfg = load_config(settings.config_file, {}, typed)
        check_options(cfg, find_system(cfg), typed_keys(parse_pairs(typed)))
        pairs = (*typed, *_own_pairs(settings, row, seed, cfg), "data.save_dir", str(folder))
        if start:
            weights = str(start.last_checkpoint)
            pairs = (*pairs, "model.pretrained", "True", "model.backbone_weights", weights)
        if needs:
            weights = str(needs.last_checkpoint)
            pairs = (*pairs, "test.evaluate", "True", "model.load_weights", weights)
        cfg = load_config(settings.config_file, {}, pairs)
    except ValueError as error:
        hint = f"; {settings.table.hint}" if settings.table.hint and "stages." in str(error) else ""
        raise ConfigError(
            f"{settings.config_file}: row {row.title!r} of {settings.table.name} "
            f"({' '.join(row.overrides)}) does not fit this configuration: {error}{hint}"
        ) from error
    return Run(row=row, seed=seed, folder=folder, pairs=pairs, cfg=cfg, needs=needs, start=start)


def start_run(settings: Settings, seed: int) -> Run:
    """The run that trains the plain network from whose backbone every row starts.

    Its folder is next to the people that it is trained on. The folder's name depends on the
    configuration and the code, so that all tables with the same ones share the network.
    """
    row = Row(f"start-{seed}", f"start, people of seed {seed}", settings.table.start)
    run = _make_run(settings, row, seed, {}, None)
    values = repr((identity(run.cfg, settings.out), training_code()))
    name = hashlib.blake2b(values.encode(), digest_size=6).hexdigest()
    folder = absolute_path(run.cfg.data.root) / "start" / name
    pairs = (*run.pairs, "data.save_dir", str(folder))
    cfg = load_config(settings.config_file, {}, pairs)
    return replace(run, folder=folder, pairs=pairs, cfg=cfg)


def _own_pairs(settings: Settings, row: Row, seed: int, cfg: CfgNode) -> list[str]:
    """The pairs that set a run's seed, data, maps and, for a quick run, epochs."""
    pairs = ["train.seed", str(seed), "test.cache", "", "report.untrained", "False"]
    if is_rendered(cfg):  # a folder for each seed, since a folder holds one rendering
        root = Path(cfg.data.root, f"seed-{seed}")
        pairs += ["synthetic.seed", str(seed), "data.root", str(root)]
    if row.maps:
        pairs += ["masks.dir", str(maps_folder(settings.out, cfg, seed) / row.maps)]
    if settings.quick:
        for number, stage in enumerate(cfg.stages, start=1):
            epochs = min(QUICK_EPOCHS, stage["max_epoch"])
            pairs += [f"stages.{number}.max_epoch", str(epochs)]
    return pairs


def maps_folder(out: Path, cfg: CfgNode, seed: int) -> Path:
    """The folder of all `maps.VARIANTS`; people that were rendered for a seed have their own."""
    return out / "maps" / (f"seed-{seed}" if is_rendered(cfg) else "all-seeds")


def _check_distinct(settings: Settings, runs: Sequence[Run]) -> None:
    known: dict[str, Row] = {}
    for run in runs:
        values = identity(run.cfg, settings.out)
        other = known.setdefault(repr(values), run.row)
        if other is not run.row:
            hint = f"; {settings.table.hint}" if settings.table.hint else ""
            raise ConfigError(
                f"{settings.config_file}: rows {other.title!r} and {run.row.title!r} of "
                f"{settings.table.name} have the same configuration{hint}"
            )
