"""Run a configuration: check it, build the engine, train or test, report."""

import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torchreid
from torch import nn
from yacs.config import CfgNode

from magnifier_plugin.builders import (
    build_criterion,
    build_datamanager,
    build_network,
    build_stages,
    build_test_options,
    find_system,
    uncomputed_terms,
)
from magnifier_plugin.data.datamanager import AnnotatedDataManager
from magnifier_plugin.engine.checkpoint import existing_file
from magnifier_plugin.engine.distributed import ONE_PROCESS, Processes
from magnifier_plugin.engine.engine import StagedEngine
from magnifier_plugin.engine.epoch_loop import SavingOptions
from magnifier_plugin.engine.folder_lock import locked_folder
from magnifier_plugin.engine.provenance import (
    data_fingerprint,
    describe_process,
    set_deterministic,
    write_facts,
)
from magnifier_plugin.engine.results_file import read_results
from magnifier_plugin.engine.stages import check_stages
from magnifier_plugin.engine.step import StepOptions
from magnifier_plugin.evaluation.tables import results_table
from magnifier_plugin.option_checks import check_effects, check_layers
from magnifier_plugin.resuming import explained, find_checkpoint, load_weights, report_changes
from magnifier_plugin.systems import System
from magnifier_plugin.visualize.curves import save_curves

logger = logging.getLogger(__name__)


def check_options(cfg: CfgNode, system: System | None, typed: Collection[str]) -> None:
    """Raise a ValueError for options that cannot work, before any data are read.

    Args:
        cfg: a loaded configuration.
        system: the system of its model; None for torchreid's own models.
        typed: keys that were typed on the command line, see `check_effects`.
    """
    left_out = uncomputed_terms(cfg, system)
    weights = build_criterion(cfg, system).weights
    computed = {term: weight for term, weight in weights.items() if term not in left_out}
    check_stages(build_stages(cfg, system), computed)
    check_effects(cfg, system, typed)
    epochs = cfg.train.max_epoch
    if cfg.train.start_epoch >= epochs and not (cfg.test.evaluate or cfg.model.resume):
        raise ValueError(
            f"train.start_epoch {cfg.train.start_epoch}: expected less than train.max_epoch, which "
            f"is {epochs}; to test only, set test.evaluate True"
        )
    if system is not None:
        with torch.device("meta"):
            build_network(cfg, system, 2, pretrained=False)


def prepare(
    cfg: CfgNode, typed: Collection[str] = (), processes: Processes = ONE_PROCESS
) -> Callable[[], StagedEngine]:
    """Build everything that a run needs; configuration errors are raised here, before training.

    Args:
        cfg: a loaded configuration.
        typed: keys that were typed on the command line.
        processes: the processes of the run.
    Returns:
        A function that trains or tests, writes results and pictures, and returns the engine.
    Raises:
        ConfigError, ValueError, FileNotFoundError: the configuration, its data or its weights
            cannot be used; the message says why.
    """
    system = find_system(cfg)
    check_options(cfg, system, typed)
    set_deterministic(cfg.train.deterministic)
    torchreid.utils.set_random_seed(cfg.train.seed)
    found = find_checkpoint(cfg.model.resume, cfg.data.save_dir) if processes.is_first else None
    checkpoint = processes.from_first(found)
    for path in filter(None, (cfg.model.load_weights, checkpoint)):
        existing_file(path)  # before the data are opened, which can take minutes
    # A checkpoint replaces every tensor that ImageNet weights would set.
    pretrained = False if checkpoint or cfg.model.load_weights else cfg.model.pretrained
    with processes.in_turn():  # the first process renders, converts and downloads
        datamanager = build_datamanager(cfg, system, processes)
        model = build_network(cfg, system, datamanager.num_train_pids, pretrained=pretrained)
    check_layers(cfg, model)
    load_weights(cfg, model, checkpoint)
    facts = {"data": data_fingerprint(datamanager), "threads": torch.get_num_threads()}
    engine = _build_engine(cfg, system, datamanager, model, facts, processes)
    start_epoch = cfg.train.start_epoch
    if checkpoint and not cfg.test.evaluate:
        with explained(checkpoint, cfg):
            start_epoch = engine.resume(checkpoint)
        report_changes(engine.checkpoints.origin_record, cfg, facts)

    def run() -> StagedEngine:
        folder = cfg.data.save_dir
        with locked_folder(folder) if processes.is_first else nullcontext():
            return _run(cfg, system, engine, start_epoch)

    return run


def _build_engine(
    cfg: CfgNode,
    system: System | None,
    datamanager: AnnotatedDataManager,
    model: nn.Module,
    facts: Mapping[str, Any],
    processes: Processes,
) -> StagedEngine:
    return StagedEngine(
        datamanager,
        model,
        criterion=build_criterion(cfg, system, processes),
        stages=build_stages(cfg, system),
        saving=SavingOptions(
            freq=cfg.train.checkpoint_freq,
            minutes=cfg.train.checkpoint_minutes,
            keep_freq=cfg.train.keep_freq,
        ),
        use_gpu=cfg.use_gpu,
        amp=cfg.amp,
        channels_last=cfg.channels_last,
        step_options=StepOptions(
            **{name: cfg.train[name] for name in ("compile", "clip_grad", "accumulate", "ema")},
            sync_bn=cfg.ddp.sync_bn,
        ),
        test_options=build_test_options(cfg),
        record={"seed": cfg.train.seed, "configuration": cfg.dump(), **facts},
        processes=processes,
    )


def _run(
    cfg: CfgNode, system: System | None, engine: StagedEngine, start_epoch: int
) -> StagedEngine:
    """Test the untrained weights if requested, train or test, then report."""
    folder = Path(cfg.data.save_dir)
    testing: dict[str, Any] = {
        "dist_metric": cfg.test.dist_metric,
        "normalize_feature": cfg.test.normalize_feature,
        "ranks": cfg.test.ranks,
        "use_metric_cuhk03": cfg.cuhk03.use_metric_cuhk03,
    }
    if engine.step.processes.is_first:
        write_facts(folder, _facts(cfg, engine))
    untrained = None
    if cfg.report.untrained and not cfg.test.evaluate:
        untrained = _test_untrained(cfg, engine, start_epoch, testing)
    engine.run(
        save_dir=folder,
        max_epoch=cfg.train.max_epoch,
        start_epoch=start_epoch,
        print_freq=cfg.train.print_freq,
        fixbase_epoch=cfg.train.fixbase_epoch,
        open_layers=cfg.train.open_layers,
        start_eval=cfg.test.start_eval,
        eval_freq=cfg.test.eval_freq,
        test_only=cfg.test.evaluate,
        visrank=cfg.test.visrank,
        visrank_topk=cfg.test.visrank_topk,
        rerank=cfg.test.rerank,
        **testing,
    )
    if not engine.step.processes.is_first:
        return engine
    tested = "tested" if cfg.model.load_weights or cfg.model.resume else "untrained"
    row = "trained" if engine.history else tested
    logger.info("\n%s\n", results_table(engine.results, untrained, row))
    _report(cfg, system, engine)
    return engine


def _test_untrained(
    cfg: CfgNode, engine: StagedEngine, start_epoch: int, testing: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The results before training; for a resumed run, those of the original run if it has any."""
    folder = Path(cfg.data.save_dir) / "untrained"
    if start_epoch or engine.state.is_resumed:
        return read_results(folder)
    logger.info("=> Test before training")
    engine.test(last=False, save_dir=folder, **testing)
    return engine.results


def _facts(cfg: CfgNode, engine: StagedEngine) -> dict[str, Any]:
    """The content of `run-<time>.json`."""
    return {
        **describe_process(),
        "run": engine.checkpoints.run,
        "resumed": cfg.model.resume,
        "precision": str(engine.precision),
        "precision_of_the_last_test": str(engine.tester.precision),
        **engine.tester.record,
    }


def _report(cfg: CfgNode, system: System | None, engine: StagedEngine) -> None:
    """Draw the requested pictures; if one cannot be written, the others still are."""
    folder = Path(cfg.data.save_dir)
    written = engine.tester.written
    paths = [*([written] if written else []), *engine.tester.pictures.drawn]

    def draw_curves() -> list[Path]:
        if not cfg.report.curves or not engine.history:
            return []
        save_curves(engine.history, folder / "curves.png")
        return [folder / "curves.png"]

    for draw in (draw_curves, lambda: system.pictures(engine, cfg, folder) if system else []):
        try:
            with engine.step.tested_weights():
                paths += draw()
        except OSError as error:
            logger.error("Not drawn: %s", error)
    logger.info("%s", "\n".join(map(str, paths)))
