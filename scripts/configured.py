"""From the configuration to objects: the one place where keys become arguments."""

import torchreid
from torch import nn
from yacs.config import CfgNode

from magnifier_plugin.config import ConfigError, stage_settings
from magnifier_plugin.data.datamanager import MaskedImageDataManager
from magnifier_plugin.engine.stages import Stage
from magnifier_plugin.losses.classification import ClassificationCriterion
from magnifier_plugin.losses.magnifier import MagnifierCriterion
from magnifier_plugin.models.build import NAMES, build_model
from magnifier_plugin.synthetic.folder import SyntheticOptions


def build_datamanager(cfg: CfgNode) -> MaskedImageDataManager:
    """torchreid's data manager, with masks where the network learns them."""

    given = {key: value for key, value in cfg.synthetic.items() if value is not None}
    options = {"options": SyntheticOptions(**given)} if given else {}
    return MaskedImageDataManager(
        root=cfg.data.root,
        sources=cfg.data.sources,
        targets=cfg.data.targets,
        height=cfg.data.height,
        width=cfg.data.width,
        transforms=cfg.data.transforms,
        k_tfm=cfg.data.k_tfm,
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
        use_masks=(
            cfg.loss.name == "magnifier"
            and "M" in cfg.magnifier.branches
            and not cfg.test.evaluate  # masks exist in training only
        ),
        source_options={"synthetic": options},
    )


def build_network(cfg: CfgNode, num_classes: int) -> nn.Module:
    """The model by name: ours with its options, or any of torchreid's."""

    if cfg.model.name not in NAMES:
        if cfg.loss.name == "magnifier":
            known = ", ".join(NAMES)
            raise ConfigError(
                f"loss.name: {cfg.model.name} cannot be trained with the magnifier loss; choose "
                f"loss.name softmax or triplet, or a model of {known}"
            )
        return torchreid.models.build_model(
            cfg.model.name, num_classes, cfg.loss.name, cfg.model.pretrained, cfg.use_gpu
        )
    options = {} if "_" in cfg.model.name else {"backbone": cfg.magnifier.backbone}
    return build_model(
        cfg.model.name,
        num_classes,
        cfg.loss.name,
        cfg.model.pretrained,
        cfg.use_gpu,
        backbone_weights=cfg.model.backbone_weights,
        branches=cfg.magnifier.branches,
        sampling=cfg.magnifier.sampling,
        keep=cfg.magnifier.keep,
        fusion=cfg.magnifier.fusion,
        mask_rescaling=cfg.magnifier.mask_rescaling,
        authors_bias=cfg.magnifier.authors_bias,
        **options,
    )


def build_stages(cfg: CfgNode) -> list[Stage]:
    """The configuration's stages as the engine takes them."""

    stages = []
    for number, train in enumerate(stage_settings(cfg), start=1):
        optimizer = {
            key: train[key]
            for key in ("optim", "weight_decay", "staged_lr", "new_layers", "base_lr_mult")
        }
        optimizer |= {
            "momentum": cfg.sgd.momentum,
            "sgd_dampening": cfg.sgd.dampening,
            "sgd_nesterov": cfg.sgd.nesterov,
            "rmsprop_alpha": cfg.rmsprop.alpha,
            "adam_beta1": cfg.adam.beta1,
            "adam_beta2": cfg.adam.beta2,
        }
        stage = Stage(
            max_epoch=train["max_epoch"],
            lr=train["lr"],
            lr_scheduler=train["lr_scheduler"],
            stepsize=train["stepsize"],
            lr_gamma=train["gamma"],
            warmup_epoch=train["warmup_epoch"],
            warmup_factor=train["warmup_factor"],
            gamma=cfg.magnifier.gamma if number >= cfg.magnifier.sd_stage else 0.0,
            optimizer=optimizer,
        )
        stages.append(stage)
    return stages


def build_criterion(cfg: CfgNode) -> nn.Module:
    """The losses and their weights."""

    common = {
        "label_smoothing": 0.1 if cfg.loss.softmax.label_smooth else 0.0,
        "margin": cfg.loss.triplet.margin,
        "weight_t": cfg.loss.triplet.weight_t,
        "weight_x": cfg.loss.triplet.weight_x,
    }
    if cfg.loss.name != "magnifier":
        return ClassificationCriterion(loss=cfg.loss.name, **common)
    return MagnifierCriterion(
        region_weight=cfg.magnifier.region_weight,
        mask_weight=cfg.magnifier.mask_weight,
        class_balanced_mask=cfg.magnifier.class_balanced_mask,
        sd_floor=cfg.magnifier.sd_floor,
        share_weighted=cfg.magnifier.share_weighted,
        **common,
    )
