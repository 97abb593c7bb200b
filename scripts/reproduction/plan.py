"""From a table and a configuration to the trainings of its rows, checked before anything starts."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from magnifier_plugin.config import ConfigError, load_config, parse_pairs
from magnifier_plugin.files import absolute_path
from magnifier_plugin.recipe import check_options, find_system
from magnifier_plugin.systems import SYSTEMS
from reproduction.code import training_code
from reproduction.table import Row, Table

RENDERED = "synthetic"
QUICK_EPOCHS = 2  # per stage, at most
# Keys that this script sets for every row.
OWN_KEYS = (
    *("train.seed", "data.save_dir", "model.resume", "test.cache", "test.evaluate"),
    *("report.untrained", "masks.dir", "train.keep_freq"),
)
# Keys that it sets too where all rows start from one network.
START_KEYS = ("model.pretrained", "model.backbone_weights")
# Keys that change no result: a row that differs in these alone is the same row.
WITHOUT_EFFECT = (
    *("data.save_dir", "data.workers", "model.resume", "test.cache", "train.print_freq"),
    *("train.checkpoint_freq", "train.checkpoint_minutes", "train.keep_freq"),
    *("test.visrank", "test.visrank_topk"),
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What one call of the script was asked for."""

    table: Table
    config_file: Path
    seeds: tuple[int, ...]
    out: Path
    """Absolute."""
    pairs: tuple[str, ...] = ()
    """KEY VALUE … for every row."""
    quick: bool = False
    start: int | None = None
    """Seed of the people that the network is trained on whose backbone every row starts from."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One row with one seed: a training, or a test of another run's weights; hashed by identity."""

    row: Row
    seed: int
    folder: Path
    pairs: tuple[str, ...]
    """KEY VALUE … that are typed after the configuration file."""
    cfg: CfgNode
    """The configuration that they give."""
    needs: "Run | None" = None
    """The run whose weights this one tests."""
    start: "Run | None" = None
    """The run whose backbone this one starts from."""
    shares: "Run | None" = None
    """The run whose first stage is this one's too: this one continues from its checkpoint."""

    @property
    def name(self) -> str:
        """For messages, such as "G+M/seed-1"."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def last_checkpoint(self) -> Path:
        """Where the training's last checkpoint will be."""
        return self._checkpoint(self.cfg.train.max_epoch)

    @property
    def first_stage(self) -> Path:
        """Where the checkpoint of the first stage's end will be, with `train.keep_freq`."""
        return self._checkpoint(self.cfg.stages[0]["max_epoch"])

    def _checkpoint(self, epoch: int) -> Path:
        return self.folder / "model" / f"model.pth.tar-{epoch}"


def make_runs(settings: Settings) -> list[Run]:
    """The runs of a table, seed by seed, each after the run that it needs.

    Raises:
        FileNotFoundError: there is no such configuration file.
        ConfigError: the configuration is of another system, a row is no override of it or equals
            another row, or a typed key is one that rows or this script set.
    """
    _check_typed(settings)
    cfg = load_config(settings.config_file, {}, settings.pairs)
    system = find_system(cfg)
    if settings.start is not None and not is_rendered(cfg):
        raise ConfigError(
            f"--start: trains on rendered people, {settings.config_file} is of "
            f"{', '.join(cfg.data.sources)}; leave it out and set model.backbone_weights"
        )
    if system is not SYSTEMS[settings.table.system]:
        raise ConfigError(
            f"{settings.config_file}: expected a configuration of {settings.table.system}, which "
            f"{settings.table.name} is about, found model.name {cfg.model.name}"
        )
    rows = sorted(settings.table.rows, key=lambda row: bool(row.weights_of))
    start = None if settings.start is None else start_run(settings, settings.start)
    runs: dict[tuple[str, int], Run] = {}
    for seed in settings.seeds:
        for row in rows:
            runs[row.name, seed] = _make_run(settings, row, seed, runs, start)
    _check_distinct(settings, [runs[row.name, settings.seeds[0]] for row in rows])
    return [*([start] if start else []), *_share_first_stages(settings, list(runs.values()))]


def _share_first_stages(settings: Settings, runs: Sequence[Run]) -> list[Run]:
    """Rows that differ in later stages alone train the first one once.

    Resuming is exact, so that the last test's numbers are those of rows that train it each.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        if not run.needs and len(run.cfg.stages) > 1:
            groups.setdefault(_first_stage(run, settings.out), []).append(run)
    found = {run: run for run in runs}
    for run, *others in groups.values():
        if others:  # only then is the checkpoint between the stages of use
            keep = "train.keep_freq", str(run.cfg.stages[0]["max_epoch"])
            first = found[run] = replace(run, pairs=(*run.pairs, *keep))
            found |= {other: replace(other, shares=first) for other in others}
    return [replace(run, needs=found[run.needs]) if run.needs else run for run in found.values()]


def _first_stage(run: Run, out: Path) -> str:
    """What a run's first stage is recognised by."""
    values = {
        key: value
        for key, value in identity(run.cfg, out).items()
        if key != "train.max_epoch" and (not key.startswith("stages.") or "stages.1." in key)
    }
    return repr(values)


def identity(cfg: CfgNode, out: Path) -> dict[str, Any]:
    """What a configuration is recognised by: its values by key, of plain types.

    Keys without effect on results are left out, and `out` is written as {out}, so that the folder
    can be moved.
    """
    values = {
        key: _plain(value, out)
        for key, value in _flatten(cfg)
        if key not in WITHOUT_EFFECT and not key.startswith("report.")
    }
    return dict(sorted(values.items()))


def is_rendered(cfg: CfgNode) -> bool:
    """Whether a seed decides the people too."""
    return {*cfg.data.sources, *cfg.data.targets} == {RENDERED}


def _check_typed(settings: Settings) -> None:
    of_rows = {key for row in settings.table.rows for key in row.overrides[::2]}
    own = OWN_KEYS if settings.start is None else (*OWN_KEYS, *START_KEYS)
    for key in parse_pairs(settings.pairs):
        if key in own:
            raise ConfigError(f"{key}: this script sets it for each row; leave it out")
        if key in of_rows:
            raise ConfigError(f"{key}: the rows of {settings.table.name} set it; leave it out")


def _make_run(
    settings: Settings,
    row: Row,
    seed: int,
    others: Mapping[tuple[str, int], Run],
    start: Run | None,
) -> Run:
    folder = settings.out / row.name / f"seed-{seed}"
    needs = others.get((row.weights_of, seed))
    typed = (*settings.pairs, *row.overrides)
    try:
        cfg = load_config(settings.config_file, {}, typed)
        check_options(cfg, find_system(cfg), parse_pairs(typed))
        pairs = (*typed, *_own_pairs(settings, row, seed, cfg), "data.save_dir", str(folder))
        if start:
            weights = str(start.last_checkpoint)
            pairs = (*pairs, "model.pretrained", "True", "model.backbone_weights", weights)
        if needs:
            weights = str(needs.last_checkpoint)
            pairs = (*pairs, "test.evaluate", "True", "model.load_weights", weights)
        cfg = load_config(settings.config_file, {}, pairs)
    except ValueError as error:
        hint = f"; {settings.table.hint}" if settings.table.hint else ""
        raise ConfigError(
            f"{settings.config_file}: row {row.title!r} of {settings.table.name} "
            f"({' '.join(row.overrides)}) is no override of it: {error}{hint}"
        ) from error
    return Run(row=row, seed=seed, folder=folder, pairs=pairs, cfg=cfg, needs=needs, start=start)


def start_run(settings: Settings, seed: int) -> Run:
    """The training of the plain network whose backbone every row starts from.

    Its folder is next to the people that it is trained on, named by configuration and code, so
    that all tables of these share it.
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
    """The pairs of a seed, a quick run and a row's maps."""
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
    """The folder of all `maps.VARIANTS`; people rendered for a seed have maps of their own."""
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
                f"{settings.table.name} train the same configuration{hint}"
            )


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found += _flatten(value, f"{name}.")
        elif key == "stages":
            for number, stage in enumerate(value, start=1):
                found += _flatten(stage, f"stages.{number}.")
        else:
            found.append((name, value))
    return found


def _plain(value: Any, out: Path) -> Any:
    if isinstance(value, str):
        return value.replace(str(out), "{out}")
    return list(value) if isinstance(value, (list, tuple)) else value
