"""Build data manager, network, criterion and stages from a configuration."""

from typing import Any

import torchreid
from torch import nn
from yacs.config import CfgNode

from magnifier_plugin.config import ConfigError, stage_settings
from magnifier_plugin.data.datamanager import AnnotatedDataManager
from magnifier_plugin.data.samplers import IDENTITY_SAMPLER
from magnifier_plugin.engine.distributed import ONE_PROCESS, GatheredBatch, Processes
from magnifier_plugin.engine.stages import Stage
from magnifier_plugin.engine.testing import TestOptions
from magnifier_plugin.evaluation.evaluator import Reranking
from magnifier_plugin.losses.classification import LOSSES, ClassificationCriterion
from magnifier_plugin.losses.terms import Criterion
from magnifier_plugin.synthetic.options import SyntheticOptions
from magnifier_plugin.systems import (
    LOSS_WEIGHTS,
    SYSTEMS,
    System,
    identity_options,
    triplet_weights,
)

# Keys of section `data` with the names of the data manager's arguments.
_DATA_KEYS = (
    *("root", "sources", "targets", "height", "width", "transforms", "norm_mean", "norm_std"),
    *("split_id", "combineall", "workers", "cache_gb"),
)


def find_system(cfg: CfgNode) -> System | None:
    """The system that a configuration's model belongs to; None for torchreid's own models.

    Raises:
        ConfigError: the model is unknown, or it cannot be trained with `loss.name`.
    """
    name, loss = cfg.model.name, cfg.loss.name
    system = SYSTEMS.get(name.partition("_resnet")[0])
    known = vars(torchreid.models)["__model_factory"]
    if name not in known and name not in SYSTEMS:
        raise ConfigError(f"model.name: unknown model {name!r}, expected one of {', '.join(known)}")
    losses = LOSSES if system is None else (system.loss, *LOSSES)
    if loss not in losses:
        owners = [f"{loss} is {key}'s" for key, row in SYSTEMS.items() if row.loss == loss]
        raise ConfigError(
            f"loss.name: expected one of {', '.join(losses)} for {name}, got {loss!r}"
            + "".join(f"; {owner} loss" for owner in owners)
        )
    return system


def build_datamanager(
    cfg: CfgNode, system: System | None, processes: Processes = ONE_PROCESS
) -> AnnotatedDataManager:
    """Training and test data, including the inputs that the network will declare."""
    _check_triplets(cfg, processes)
    _check_batch_norm(cfg, system, processes)
    given = {key: value for key, value in cfg.synthetic.items() if value is not None}
    training, test = system.inputs(cfg) if system else ((), ())
    sampler, batch_size = cfg.sampler.train_sampler, cfg.train.batch_size
    if cfg.test.evaluate:  # no training batch is drawn, so the data need not fill one
        sampler, batch_size = "SequentialSampler", processes.count
    return AnnotatedDataManager(
        **{key: cfg.data[key] for key in _DATA_KEYS},
        use_gpu=cfg.use_gpu,
        batch_size_train=batch_size,
        batch_size_test=cfg.test.batch_size,
        num_instances=cfg.sampler.num_instances,
        num_cams=cfg.sampler.num_cams,
        num_datasets=cfg.sampler.num_datasets,
        train_sampler=sampler,
        cuhk03_labeled=cfg.cuhk03.labeled_images,
        cuhk03_classic_split=cfg.cuhk03.classic_split,
        market1501_500k=cfg.market1501.use_500k_distractors,
        masks_dir=cfg.masks.dir or None,
        max_missing=cfg.masks.max_missing,
        label_set=cfg.masks.label_set,
        same_camera=cfg.test.same_camera,
        as_pixels=True,
        seed=cfg.train.seed,
        num_replicas=processes.count,
        rank=processes.rank,
        inputs=() if cfg.test.evaluate else training,
        test_inputs=test,
        input_options=system.input_options(cfg) if system else {},
        dataset_options={"synthetic": {"options": SyntheticOptions(**given)}} if given else {},
    )


def _check_triplets(cfg: CfgNode, processes: Processes) -> None:
    """Reject shares of a batch without a triplet, if each process mines its own share."""
    identities = cfg.train.batch_size // processes.count // cfg.sampler.num_instances
    mines = cfg.sampler.train_sampler == IDENTITY_SAMPLER and not cfg.ddp.gather
    if processes.count > 1 and mines and not cfg.test.evaluate and identities < 2:
        raise ConfigError(
            f"train.batch_size {cfg.train.batch_size}: expected two identities for each of "
            f"{processes.count} processes, found {identities} (sampler.num_instances "
            f"{cfg.sampler.num_instances}); raise it, or mine in the whole batch with ddp.gather "
            "True"
        )


def _check_batch_norm(cfg: CfgNode, system: System | None, processes: Processes) -> None:
    """Reject batches of one image, which the heads of our networks cannot normalise."""
    share = cfg.train.batch_size if cfg.ddp.sync_bn else cfg.train.batch_size // processes.count
    if system and share < 2 and not cfg.test.evaluate:
        raise ConfigError(
            f"train.batch_size {cfg.train.batch_size}: expected at least two images per process, "
            f"found {share}; batch norm cannot be computed over one image; raise it"
        )


def build_network(
    cfg: CfgNode, system: System | None, num_classes: int, *, pretrained: bool | None = None
) -> nn.Module:
    """The configuration's network for `num_classes` identities.

    Args:
        cfg: a loaded configuration.
        system: the system of its model, see `find_system`.
        num_classes: number N of training identities.
        pretrained: overrides `model.pretrained`, unless None.
    """
    pretrained = cfg.model.pretrained if pretrained is None else pretrained
    common = (cfg.model.name, num_classes, cfg.loss.name, pretrained, cfg.use_gpu)
    if system is None:
        return torchreid.models.build_model(*common)
    return system.model(*common, **system.model_options(cfg))


def build_criterion(
    cfg: CfgNode, system: System | None, processes: Processes = ONE_PROCESS
) -> Criterion:
    """The criterion for `loss.name`."""
    shared: dict[str, Any] = {"gathering": GatheredBatch(processes)} if cfg.ddp.gather else {}
    if system is None or cfg.loss.name != system.loss:
        return ClassificationCriterion(
            loss=cfg.loss.name, **identity_options(cfg), **triplet_weights(cfg), **shared
        )
    return system.criterion(**system.criterion_options(cfg), **shared)


def build_reranking(cfg: CfgNode) -> Reranking:
    """The configuration's re-ranking parameters."""
    return Reranking(
        k1=cfg.test.rerank_k1,
        k2=cfg.test.rerank_k2,
        lambda_value=cfg.test.rerank_lambda,
        form=cfg.test.rerank_form,
    )


def uncomputed_terms(cfg: CfgNode, system: System | None) -> set[str]:
    """The loss terms of all systems that a run does not compute: those of branches that are not
    built, of another system, or of a system's own loss with another `loss.name`."""
    known = build_criterion(cfg, system).weights
    return {
        term
        for row in SYSTEMS.values()
        for key, reason in row.needs.items()
        if (term := key.removeprefix(LOSS_WEIGHTS)) != key
        if term not in known or (row is system and reason(cfg))
    }


def build_stages(cfg: CfgNode, system: System | None) -> list[Stage]:
    """The configuration's training stages, without the weights of `uncomputed_terms`."""
    left_out = uncomputed_terms(cfg, system)
    return [
        Stage(
            max_epoch=train["max_epoch"],
            lr=train["lr"],
            lr_scheduler=train["lr_scheduler"],
            stepsize=train["stepsize"],
            lr_gamma=train["gamma"],
            warmup_epoch=train["warmup_epoch"],
            warmup_factor=train["warmup_factor"],
            loss_weights={k: v for k, v in train["loss_weights"].items() if k not in left_out},
            optimizer=train["optimizer"],
            fused=cfg.train.fused,
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


def build_test_options(cfg: CfgNode) -> TestOptions:
    """The configuration's test options."""
    return TestOptions(
        amp=cfg.test.amp,
        flip=cfg.test.flip,
        cache=cfg.test.cache,
        conditions=cfg.test.conditions,
        reranking=build_reranking(cfg),
        rerank_during_training=cfg.test.rerank_during_training,
        rankings=cfg.report.rankings,
    )
