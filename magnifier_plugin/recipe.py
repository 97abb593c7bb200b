"""From a configuration to a run: data manager, network, criterion, stages, engine, report."""

import logging
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
import torchreid
from torch import nn
from yacs.config import CfgNode

from magnifier_plugin.config import ConfigError, stage_settings
from magnifier_plugin.data.datamanager import AnnotatedDataManager
from magnifier_plugin.engine.checkpoint import read_checkpoint
from magnifier_plugin.engine.engine import StagedEngine
from magnifier_plugin.engine.stages import Stage, check_stages
from magnifier_plugin.engine.testing import TestOptions
from magnifier_plugin.engine.weights import load_matching
from magnifier_plugin.evaluation.evaluator import Reranking
from magnifier_plugin.evaluation.tables import results_table
from magnifier_plugin.losses.classification import LOSSES, ClassificationCriterion
from magnifier_plugin.synthetic.folder import SyntheticOptions
from magnifier_plugin.systems import SYSTEMS, System, identity_options, triplet_weights
from magnifier_plugin.visualize.curves import save_curves

logger = logging.getLogger(__name__)


def find_system(cfg: CfgNode) -> System | None:
    """The row of a configuration's model; None for torchreid's own models.

    Raises:
        ConfigError: no model has that name, or it cannot be trained with `loss.name`.
    """
    name, loss = cfg.model.name, cfg.loss.name
    system = SYSTEMS.get(name.partition("_resnet")[0])
    known = vars(torchreid.models)["__model_factory"]
    if system is None and name not in known:
        raise ConfigError(f"model.name: unknown model {name!r}, expected one of {', '.join(known)}")
    losses = LOSSES if system is None else (system.loss, *LOSSES)
    if loss not in losses:
        owners = [f"{loss} is {key}'s" for key, row in SYSTEMS.items() if row.loss == loss]
        raise ConfigError(
            f"loss.name: {name} is trained with {', '.join(losses)}, got {loss!r}"
            + "".join(f"; {owner} loss" for owner in owners)
        )
    return system


def build_datamanager(cfg: CfgNode, system: System | None) -> AnnotatedDataManager:
    """Training and test data, with the inputs that the network will declare."""
    given = {key: value for key, value in cfg.synthetic.items() if value is not None}
    training, test = system.inputs(cfg) if system else ((), ())
    return AnnotatedDataManager(
        root=cfg.data.root,
        sources=cfg.data.sources,
        targets=cfg.data.targets,
        height=cfg.data.height,
        width=cfg.data.width,
        transforms=cfg.data.transforms,
        norm_mean=cfg.data.norm_mean,
        norm_std=cfg.data.norm_std,
        use_gpu=cfg.use_gpu,
        split_id=cfg.data.split_id,
        combineall=cfg.data.combineall,
        batch_size_train=cfg.train.batch_size,
        batch_size_test=cfg.test.batch_size,
        workers=cfg.data.workers,
        num_instances=cfg.sampler.num_instances,
        num_cams=cfg.sampler.num_cams,
        num_datasets=cfg.sampler.num_datasets,
        train_sampler=cfg.sampler.train_sampler,
        cuhk03_labeled=cfg.cuhk03.labeled_images,
        cuhk03_classic_split=cfg.cuhk03.classic_split,
        market1501_500k=cfg.market1501.use_500k_distractors,
        masks_dir=cfg.masks.dir or None,
        max_missing=cfg.masks.max_missing,
        label_set=cfg.masks.label_set,
        seed=cfg.train.seed,
        inputs=() if cfg.test.evaluate else training,
        test_inputs=test,
        input_options=system.input_options(cfg) if system else {},
        dataset_options={"synthetic": {"options": SyntheticOptions(**given)}} if given else {},
    )


def build_network(
    cfg: CfgNode, system: System | None, num_classes: int, *, pretrained: bool | None = None
) -> nn.Module:
    """The configuration's network for N identities; `pretrained` replaces `model.pretrained`."""
    pretrained = cfg.model.pretrained if pretrained is None else pretrained
    common = (cfg.model.name, num_classes, cfg.loss.name, pretrained, cfg.use_gpu)
    if system is None:
        return torchreid.models.build_model(*common)
    return system.model(*common, **system.model_options(cfg))


def build_criterion(cfg: CfgNode, system: System | None) -> nn.Module:
    """The criterion of the configuration's loss."""
    if system is None or cfg.loss.name != system.loss:
        return ClassificationCriterion(
            loss=cfg.loss.name, **identity_options(cfg), **triplet_weights(cfg)
        )
    return system.criterion(**system.criterion_options(cfg))


def build_stages(cfg: CfgNode) -> list[Stage]:
    """The configuration's stages."""
    return [
        Stage(
            max_epoch=train["max_epoch"],
            lr=train["lr"],
            lr_scheduler=train["lr_scheduler"],
            stepsize=train["stepsize"],
            lr_gamma=train["gamma"],
            warmup_epoch=train["warmup_epoch"],
            warmup_factor=train["warmup_factor"],
            loss_weights=train["loss_weights"],
            optimizer=train["optimizer"],
            optimizer_options={
                **{
                    key: train[key]
                    for key in ("optim", "weight_decay", "staged_lr", "new_layers", "base_lr_mult")
                },
                "momentum": cfg.sgd.momentum,
                "sgd_dampening": cfg.sgd.dampening,
                "sgd_nesterov": cfg.sgd.nesterov,
                "rmsprop_alpha": cfg.rmsprop.alpha,
                "adam_beta1": cfg.adam.beta1,
                "adam_beta2": cfg.adam.beta2,
            },
        )
        for train in stage_settings(cfg)
    ]


def check_options(cfg: CfgNode, system: System | None, typed: Collection[str]) -> None:
    """Raise a ValueError for what cannot work, before any data are read.

    A key without effect is an error if it was typed on the command line. From a file it is skipped
    and logged, so that one file serves every row of an ablation.
    """
    check_stages(build_stages(cfg), tuple(build_criterion(cfg, system).weights))
    for name, row in SYSTEMS.items():
        foreign = sorted(key for key in typed if key.startswith(f"{row.section}."))
        if foreign and row is not system:
            raise ConfigError(f"{foreign[0]}: has no effect, {cfg.model.name} is not a {name}")
    for key, reason in (system.needs if system else {}).items():
        if why := reason(cfg):
            if key in typed:
                raise ConfigError(f"{key}: has no effect, {why}")
            if key.startswith("report.") and cfg.report[key.partition(".")[2]]:
                logger.info("%s is skipped: %s", key, why)
    if system is not None:
        with torch.device("meta"):
            build_network(cfg, system, 2, pretrained=False)


def prepare(cfg: CfgNode, typed: Collection[str] = ()) -> Callable[[], StagedEngine]:
    """Build everything; mistakes in a configuration end here, before training.

    Args:
        cfg: a loaded configuration.
        typed: keys that were typed on the command line.
    Returns:
        A function that trains or tests, writes results and pictures, and returns the engine.
    Raises:
        ConfigError, ValueError, FileNotFoundError: the configuration, its data or its weights
            cannot be used, as the message says.
    """
    system = find_system(cfg)
    check_options(cfg, system, typed)
    torchreid.utils.set_random_seed(cfg.train.seed)
    datamanager = build_datamanager(cfg, system)
    model = build_network(cfg, system, datamanager.num_train_pids)
    if path := cfg.model.load_weights:
        loaded = load_matching(model, read_checkpoint(path)["state_dict"], path)
        logger.info("%s: %s", path, loaded)
    elif cfg.test.evaluate and not cfg.model.resume:
        logger.info("Testing untrained weights; model.load_weights FILE loads a checkpoint")
    engine = StagedEngine(
        datamanager,
        model,
        criterion=build_criterion(cfg, system),
        stages=build_stages(cfg),
        checkpoint_freq=cfg.train.checkpoint_freq,
        use_gpu=cfg.use_gpu,
        amp=cfg.amp,
        channels_last=cfg.channels_last,
        test_options=TestOptions(
            flip=cfg.test.flip,
            cache=cfg.test.cache,
            conditions=cfg.test.conditions,
            reranking=Reranking(
                k1=cfg.test.rerank_k1,
                k2=cfg.test.rerank_k2,
                lambda_value=cfg.test.rerank_lambda,
                form=cfg.test.rerank_form,
            ),
            rerank_during_training=cfg.test.rerank_during_training,
            rankings=cfg.report.rankings,
        ),
        record={"seed": cfg.train.seed, "configuration": cfg.dump()},
    )
    start_epoch = engine.resume(cfg.model.resume) if cfg.model.resume else cfg.train.start_epoch
    return lambda: _run(cfg, system, engine, start_epoch)


def _run(
    cfg: CfgNode, system: System | None, engine: StagedEngine, start_epoch: int
) -> StagedEngine:
    """Test first if asked to, train or test, then report."""
    folder = Path(cfg.data.save_dir)
    testing: dict[str, Any] = {
        "dist_metric": cfg.test.dist_metric,
        "normalize_feature": cfg.test.normalize_feature,
        "ranks": cfg.test.ranks,
        "use_metric_cuhk03": cfg.cuhk03.use_metric_cuhk03,
    }
    untrained = None
    if cfg.report.untrained and not cfg.test.evaluate and not start_epoch:
        logger.info("=> Test before training")
        engine.test(last=False, save_dir=folder / "untrained", **testing)
        untrained = engine.results
        torchreid.utils.set_random_seed(cfg.train.seed)
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
    row = "trained" if engine.history else "tested"
    logger.info("\n%s\n", results_table(engine.results, untrained, row))
    paths = [folder / "results.json", *engine.tester.pictures]
    if cfg.report.curves and engine.history:
        save_curves(engine.history, folder / "curves.png")
        paths.append(folder / "curves.png")
    paths += system.pictures(engine, cfg, folder) if system else []
    logger.info("%s", "\n".join(map(str, paths)))
    return engine
