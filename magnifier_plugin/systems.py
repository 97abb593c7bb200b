"""The table of systems: network, criterion, stages, inputs and configuration keys of each.

To add a system, add a row to `SYSTEMS`; `models/build.py` knows the names of the networks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from yacs.config import CfgNode

from magnifier_plugin.effects import (
    Reason,
    needs_branch,
    needs_dsa_branch,
    needs_guiding,
    needs_imagenet_head,
    needs_loss,
    needs_main_stream,
    needs_other_loss,
    needs_pretrained,
    needs_training,
    needs_unnamed_backbone,
)
from magnifier_plugin.engine.engine import StagedEngine
from magnifier_plugin.engine.stages import Stage
from magnifier_plugin.images import write_png
from magnifier_plugin.losses.dsa import DSACriterion
from magnifier_plugin.losses.magnifier import TERMS_OF_BRANCH, MagnifierCriterion
from magnifier_plugin.losses.terms import Criterion
from magnifier_plugin.models.build import build_model
from magnifier_plugin.models.dsa import DSAReID
from magnifier_plugin.models.magnifiernet import MagnifierNet
from magnifier_plugin.visualize.regions import predicted_region_sheet
from magnifier_plugin.visualize.sheets import spread_evenly
from magnifier_plugin.visualize.textures import file_texture_sheet

Inputs = tuple[tuple[str, ...], tuple[str, ...]]
LOSS_WEIGHTS = "loss_weights."  # with the name of a term, a key of each stage, in `System.needs`


@dataclass(frozen=True, kw_only=True)
class System:
    """One row of the table."""

    engine: str
    """Name of the system's engine in torchreid.engine."""
    loss: str
    """Value of `loss.name` for the system's own loss."""
    section: str = ""
    """The system's section of the configuration; "" for none."""
    model: Callable[..., nn.Module] = build_model
    """Builds the network, with the arguments of `models.build.build_model`."""
    model_options: Callable[[CfgNode], dict[str, Any]] = lambda cfg: {}
    """Configuration → the network's keyword arguments."""
    criterion: Callable[..., Criterion]
    """Builds the criterion; with `ddp.gather` it also gets a `losses.gathering.Gathering`."""
    criterion_options: Callable[[CfgNode], dict[str, Any]] = lambda cfg: {}
    """Configuration → the criterion's keyword arguments."""
    stages: Callable[[], Sequence[Stage]]
    """The stages of the paper's training, the engine's default."""
    inputs: Callable[[CfgNode], Inputs]
    """Configuration → the inputs that the network will declare, for training and testing."""
    input_options: Callable[[CfgNode], dict[str, dict[str, Any]]] = lambda cfg: {}
    """Configuration → keyword arguments of the functions that make the inputs, by batch key."""
    pictures: Callable[[StagedEngine, CfgNode, Path], list[Path]] = lambda engine, cfg, folder: []
    """Draws the system's own figures after a run; returns their paths."""
    needs: Mapping[str, Reason] = field(default_factory=dict)
    """Key → the function that says why the key has no effect. `report.*` keys in it are the
    system's; `loss_weights.NAME` stands for that key of each stage."""


def magnifier_stages(gamma: float = 2e-3) -> tuple[Stage, Stage]:
    """MagnifierNet's two stages (section 4.1): 460 epochs without and 40 with the SD loss.

    Args:
        gamma: γ, weight of the SD loss in the second stage.
    """
    return (
        Stage(max_epoch=460, stepsize=(40, 70), warmup_epoch=10),
        Stage(max_epoch=40, lr=1e-3, loss_weights={"sd": gamma}),
    )


def dsa_stages() -> tuple[Stage, ...]:
    """DSA-reID's training (section 4.2): 320 epochs, lr halved every 40 epochs from epoch 60."""
    steps = tuple(range(60, 320, 40))
    return (Stage(max_epoch=320, lr=8e-4, stepsize=steps, lr_gamma=0.5, warmup_epoch=20),)


def identity_options(cfg: CfgNode) -> dict[str, Any]:
    """Keyword arguments that every criterion takes, from torchreid's keys."""
    return {
        "label_smoothing": 0.1 if cfg.loss.softmax.label_smooth else 0.0,
        "margin": cfg.loss.triplet.margin,
    }


def triplet_weights(cfg: CfgNode) -> dict[str, Any]:
    """The weights of cross entropy and triplet loss, from torchreid's keys."""
    return {"weight_x": cfg.loss.triplet.weight_x, "weight_t": cfg.loss.triplet.weight_t}


def section_options(section: str, keys: Sequence[str]) -> Callable[[CfgNode], dict[str, Any]]:
    """A function from a configuration to the network's keyword arguments.

    The backbone is one of them, unless the model's name includes it (`magnifiernet_resnet18`).

    Args:
        section: a section of the configuration, such as "dsa".
        keys: the section's keys that are keyword arguments of the network.
    """

    def options(cfg: CfgNode) -> dict[str, Any]:
        named = "_resnet" in cfg.model.name
        chosen = keys if named else ("backbone", *keys)
        weights = {"backbone_weights": cfg.model.backbone_weights}
        return {**weights, **{key: cfg[section][key] for key in chosen}}

    return options


def _draw_regions(engine: StagedEngine, cfg: CfgNode, folder: Path) -> list[Path]:
    """Draw the regions that M predicts on query images of the first target (`report.regions`)."""
    if not cfg.report.regions or "M" not in cfg.magnifier.branches:
        return []

    network = cast(MagnifierNet, engine.model)

    def predict(images: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), engine.precision.autocast():
            return network.predict_regions(engine.precision.images(images))

    engine.model.eval()
    queries = next(iter(engine.test_loader.values()))["query"].dataset
    path = folder / "regions.png"
    write_png(path, predicted_region_sheet(predict, queries, cfg.report.regions))
    return [path]


def _draw_textures(engine: StagedEngine, cfg: CfgNode, folder: Path) -> list[Path]:
    """Draw the textures of training images (`report.textures`)."""
    if not cfg.report.textures or needs_guiding(cfg):
        return []
    found = engine.train_loader.dataset.files.get("iuv", {})
    files = [(photo, iuv) for photo, iuv in found.items() if iuv is not None]
    if not files:  # a test reads no training data
        return []
    chosen = spread_evenly(files, cfg.report.textures)
    sheet = file_texture_sheet(chosen, size=cfg.dsa.texture_size, kind=cfg.dsa.textures)
    path = folder / "textures.png"
    write_png(path, sheet)
    return [path]


MAGNIFIER_OPTIONS = (
    *("branches", "sampling", "keep", "fusion", "mask_rescaling"),
    *("authors_bias", "stem_relu", "deconvolution_init"),
)
# Keys of the criterion → the branches that they are about.
MAGNIFIER_CRITERION = {
    "region_weight": ("SFB",),
    "mask_weight": ("M",),
    "class_balanced_mask": ("M",),
    "sab_triplet": ("SAB",),
    "sd_floor": ("SFB",),
    "share_weighted": ("SAB", "SFB"),
}

DSA_OPTIONS = ("streams", "branches", "fusion", "test_features", "width", "pretrained_head")
DSA_TEXTURES = ("textures", "texture_size")
DSA_CRITERION = ("weight_f", "weight_z", "weight_t")

SYSTEMS: dict[str, System] = {
    "magnifiernet": System(
        engine="ImageMagnifierEngine",
        loss="magnifier",
        section="magnifier",
        model_options=section_options("magnifier", MAGNIFIER_OPTIONS),
        criterion=MagnifierCriterion,
        criterion_options=lambda cfg: {
            **identity_options(cfg),
            **triplet_weights(cfg),
            **{key: cfg.magnifier[key] for key in MAGNIFIER_CRITERION},
        },
        stages=magnifier_stages,
        inputs=lambda cfg: MagnifierNet.declared_inputs(cfg.magnifier.branches, cfg.loss.name),
        pictures=_draw_regions,
        needs={
            "magnifier.backbone": needs_unnamed_backbone("magnifier"),
            "magnifier.sampling": needs_branch("SAB"),
            "magnifier.keep": needs_branch("SAB"),
            **{
                f"magnifier.{key}": needs_loss("magnifier", needs_branch(*branches))
                for key, branches in MAGNIFIER_CRITERION.items()
            },
            "magnifier.fusion": needs_branch("SFB"),
            "magnifier.mask_rescaling": needs_branch("SAB", "SFB"),
            "magnifier.deconvolution_init": needs_branch("M"),
            "report.regions": needs_branch("M"),
            **{
                f"{LOSS_WEIGHTS}{term}": needs_loss("magnifier", needs_branch(branch))
                for branch, terms in TERMS_OF_BRANCH.items()
                for term in terms
            },
        },
    ),
    "dsa_reid": System(
        engine="ImageDSAEngine",
        loss="dsa",
        section="dsa",
        model_options=section_options("dsa", DSA_OPTIONS),
        criterion=DSACriterion,
        criterion_options=lambda cfg: {
            **identity_options(cfg),
            **{key: cfg.dsa[key] for key in DSA_CRITERION},
        },
        stages=dsa_stages,
        inputs=lambda cfg: DSAReID.declared_inputs(
            cfg.dsa.streams, cfg.dsa.test_features, cfg.loss.name
        ),
        input_options=lambda cfg: {
            "textures": {"kind": cfg.dsa.textures, "size": cfg.dsa.texture_size}
        },
        pictures=_draw_textures,
        needs={
            **{f"dsa.{key}": needs_guiding for key in ("fusion", "width", *DSA_TEXTURES)},
            "dsa.backbone": needs_unnamed_backbone("dsa"),
            "dsa.pretrained_head": needs_imagenet_head,
            "report.textures": lambda cfg: needs_guiding(cfg) or needs_training(cfg),
            "model.backbone_weights": needs_main_stream(needs_pretrained),
            "dsa.weight_f": needs_loss("dsa", needs_main_stream()),
            **{f"dsa.{key}": needs_loss("dsa") for key in ("streams", "weight_z", "weight_t")},
            **dict.fromkeys(("loss.triplet.weight_t", "loss.triplet.weight_x"), needs_other_loss),
            **{
                f"{LOSS_WEIGHTS}{kind}_{branch[0].upper()}": needs_loss("dsa", reason)
                for branch in ("global", "local")
                for kind, reason in {
                    "cls_f": needs_main_stream(needs_dsa_branch(branch)),
                    "cls_z": needs_dsa_branch(branch),
                    "tri_z": needs_dsa_branch(branch),
                }.items()
            },
        },
    ),
}
