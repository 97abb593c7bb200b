"""Prepare a table's data before a row starts: people, conditions, variants of maps."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from yacs.config import CfgNode

from magnifier_plugin.catalogue.listed import find_name
from magnifier_plugin.config import ConfigError, load_config
from magnifier_plugin.data.annotated import AnnotatedDataset
from magnifier_plugin.data.datamanager import AnnotatedDataManager
from magnifier_plugin.engine.conditions import read_target_conditions
from magnifier_plugin.recipe import build_datamanager, find_system
from reproduction.maps import KEYPOINTS, make_maps, without_drawn_maps
from reproduction.plan import Run, maps_folder
from reproduction.settings import Settings, is_rendered


def prepare_data(settings: Settings, runs: Sequence[Run]) -> None:
    """Render the people of each seed, read every data set, and make the maps that rows use.

    Args:
        settings: the arguments of the call.
        runs: the runs that will be started.
    Raises:
        FileNotFoundError: a data set, its label maps or a file of conditions does not exist.
        ValueError: one of them is invalid.
        OSError: a file cannot be written.
    """
    rendered = is_rendered(runs[0].cfg)
    masks = load_config(settings.config_file, {}, settings.pairs).masks  # the data set's own maps
    for seed in dict.fromkeys(run.seed for run in runs) if rendered else (None,):
        rows = [run for run in runs if seed in (run.seed, None)]
        run = max(rows, key=_count_inputs)
        manager = _read(run, masks)
        read_target_conditions(manager, run.cfg.test.conditions)
        for name in dict.fromkeys(run.row.maps for run in rows if run.row.maps):
            folder = maps_folder(settings.out, run.cfg, run.seed) / name
            make_maps(cast(AnnotatedDataset, manager.train_loader.dataset), folder, name)


def leave_out_rows(settings: Settings) -> tuple[Settings, str]:
    """Leave out the row with label maps from keypoints if the data set has no keypoints.

    Returns:
        The settings, and a note to print; "" if no row is left out.
    Raises:
        FileNotFoundError: the configuration file or the user's own data set does not exist.
        ConfigError: the configuration is invalid, or no row is left.
        ValueError: the name of the user's own data set is invalid or taken.
    """
    rows = [row.name for row in settings.table.rows if row.maps != KEYPOINTS]
    cfg = load_config(settings.config_file, {}, settings.pairs)
    if len(rows) == len(settings.table.rows) or is_rendered(cfg):
        return settings, ""
    folder = maps_folder(settings.out, cfg, settings.seeds[0]) / KEYPOINTS
    sources = {find_name(source): source for source in cfg.data.sources}  # "shop": "shop=PATH"
    missing = without_drawn_maps(folder, sources)
    if not missing:
        return settings, ""
    name = missing[0]
    note = (
        f'left out: the row "made from keypoints", because {name} has none; to train it, run a '
        "pose estimator, then scripts/convert_masks.py --source keypoints --keypoints FILE "
        f"-s {sources[name]} --root {cfg.data.root} --out {folder / name}, and this command again"
    )
    if not rows:
        raise ConfigError(f"no row is left; {note}")
    return replace(settings, table=settings.table.with_rows(rows)), note


def _count_inputs(run: Run) -> int:
    """Number of inputs of a run; the run with the most inputs reads the most files."""
    system = find_system(run.cfg)
    return len(system.inputs(run.cfg)[0]) if system else 0


def _read(run: Run, masks: CfgNode) -> AnnotatedDataManager:
    """The data of a run, with the label maps that `masks` describes instead of the row's."""
    cfg = run.cfg.clone()
    cfg.defrost()
    cfg.masks = masks
    cfg.freeze()
    with contextlib.redirect_stdout(io.StringIO()):  # torchreid's summaries
        return build_datamanager(cfg, find_system(cfg))
