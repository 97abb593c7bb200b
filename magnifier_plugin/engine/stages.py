"""The stages of a training run: their length, optimiser, learning rate and loss weights."""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torchreid
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

SCHEDULERS = ("single_step", "multi_step", "cosine")
OPTIMIZERS = ("fresh", "keep")
FUSED = ("on", "off", "auto")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a training run.

    Raises:
        ValueError: a value is out of its range.
    """

    max_epoch: int
    """Number of epochs of this stage."""
    lr: float = 3.5e-4
    """Learning rate after the warm-up."""
    lr_scheduler: str = "multi_step"
    """torchreid's "single_step" (× lr_gamma every stepsize[-1] epochs), "multi_step" (× lr_gamma at
    each epoch in stepsize) or "cosine" (to 0 at the end of the stage)."""
    stepsize: Sequence[int] = ()
    """Epochs, counted from the stage's start."""
    lr_gamma: float = 0.1
    """Factor of the learning rate at a step."""
    warmup_epoch: int = 0
    """Number of warm-up epochs, in which the rate rises linearly from warmup_factor × lr."""
    warmup_factor: float = 0.01
    """Factor of the learning rate in the first epoch of the warm-up."""
    loss_weights: Mapping[str, float] = field(default_factory=dict)
    """Weights by loss term, which override the criterion's defaults."""
    optimizer: str = "fresh"
    """"fresh", or "keep", which continues the previous stage's optimiser and schedule."""
    optimizer_options: Mapping[str, Any] = field(
        default_factory=lambda: {"optim": "adam", "weight_decay": 5e-4, "adam_beta2": 0.999}
    )
    """Arguments of torchreid's `build_optimizer`, such as optim and weight_decay."""
    fused: str = "auto"
    """Update all weights in one kernel: "on", "off", or "auto": on if the optimiser supports it."""

    def __post_init__(self) -> None:
        if self.max_epoch < 1:
            raise ValueError(
                f"max_epoch: expected at least one epoch per stage, got {self.max_epoch}"
            )
        if self.lr_scheduler not in SCHEDULERS:
            raise ValueError(
                f"lr_scheduler: expected one of {', '.join(SCHEDULERS)}, got {self.lr_scheduler!r}"
            )
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer: expected fresh or keep, got {self.optimizer!r}")
        if self.fused not in FUSED:
            raise ValueError(f"fused: expected one of {', '.join(FUSED)}, got {self.fused!r}")
        for name, fits, expected in (
            ("lr", self.lr > 0, "a number above 0"),
            ("lr_gamma", self.lr_gamma > 0, "a number above 0"),
            ("stepsize", all(step >= 1 for step in self.stepsize), "epochs of at least 1"),
            ("warmup_epoch", self.warmup_epoch >= 0, "at least 0"),
            ("warmup_factor", 0 <= self.warmup_factor <= 1, "0 to 1"),
        ):
            if not fits:
                raise ValueError(f"{name}: expected {expected}, got {getattr(self, name)}")
        if self.lr_scheduler == "single_step" and not self.stepsize:
            raise ValueError("stepsize: single_step needs the number of epochs between two steps")
        for name, weight in self.loss_weights.items():
            if not weight >= 0:
                raise ValueError(f"loss_weights.{name}: expected at least 0, got {weight}")

    def lr_factor(self, epoch: int) -> float:
        """Factor of the learning rate in an epoch of this stage, counted from 0."""
        if epoch < self.warmup_epoch:
            return self.warmup_factor + (1 - self.warmup_factor) * epoch / self.warmup_epoch
        if self.lr_scheduler == "cosine":
            length = max(1, self.max_epoch - self.warmup_epoch)
            return 0.5 * (1 + math.cos(math.pi * (epoch - self.warmup_epoch) / length))
        if self.lr_scheduler == "single_step":
            return self.lr_gamma ** (epoch // self.stepsize[-1])
        return self.lr_gamma ** bisect_right(sorted(self.stepsize), epoch)

    def build_optimizer(
        self, model: nn.Module, epoch: int = 0
    ) -> tuple[torch.optim.Optimizer, LambdaLR]:
        """Build a fresh optimiser with torchreid's builder, and its schedule, stepped every epoch.

        Args:
            model: the model to train.
            epoch: the next epoch of this stage, counted from 0.
        Raises:
            ValueError: `fused` is "on", but the optimiser has no fused form.
        """
        optimizer = torchreid.optim.build_optimizer(model, lr=self.lr, **self.optimizer_options)
        if self.fused == "on" or (self.fused == "auto" and "fused" in optimizer.defaults):
            optimizer = _fused(optimizer)
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        # A plain function, because LambdaLR saves the state of other callables in checkpoints.
        schedule = LambdaLR(optimizer, lambda epoch: self.lr_factor(epoch), last_epoch=epoch - 1)
        return optimizer, schedule


def _fused(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Rebuild an optimiser, before its first step, in its fused form."""
    if "fused" not in optimizer.defaults:
        raise ValueError(
            f"train.fused on: {type(optimizer).__name__} has no fused form; expected train.optim "
            "adam, amsgrad or sgd, or train.fused off"
        )
    groups = [{**group, "fused": True} for group in optimizer.param_groups]
    build: Any = type(optimizer)
    fused: torch.optim.Optimizer = build(groups, lr=optimizer.defaults["lr"], fused=True)
    return fused


def find_stage(stages: Sequence[Stage], epoch: int) -> tuple[int, int]:
    """The stage of an epoch; epochs are numbered across all stages.

    Args:
        stages: all stages of the run.
        epoch: the epoch, counted from 0.
    Returns:
        The stage's index and its first epoch.
    Raises:
        ValueError: the epoch is beyond the last stage.
    """
    first = 0
    for index, stage in enumerate(stages):
        if epoch < first + stage.max_epoch:
            return index, first
        first += stage.max_epoch
    raise ValueError(
        f"epoch {epoch + 1}: the stages have only {first} epochs; lengthen a stage "
        "(stages.N.max_epoch) or scale them all (train.scale)"
    )


def optimizer_stage(stages: Sequence[Stage], index: int) -> int:
    """Index of the stage that built a stage's optimiser: itself, or with "keep" an earlier one."""
    while stages[index].optimizer == "keep":
        index -= 1
    return index


def check_stages(
    stages: Sequence[Stage], weights: Mapping[str, float], model: nn.Module | None = None
) -> None:
    """Reject invalid stages.

    Args:
        stages: all stages of the run.
        weights: the criterion's default weights of all its terms.
        model: if given, each stage's optimiser is built for it, and discarded.
    Raises:
        ValueError: there is no stage, a loss weight names an unknown term, all weights of a stage
            are 0, a stage has no optimiser to keep, or its optimiser rejects the settings.
    """
    if not stages:
        raise ValueError("stages: expected at least one, got none")
    for number, stage in enumerate(stages, start=1):
        unknown = [name for name in stage.loss_weights if name not in weights]
        if unknown:
            raise ValueError(
                f"stages.{number}.loss_weights.{unknown[0]}: unknown loss term, expected one of "
                f"{', '.join(weights)}"
            )
        if not any({**weights, **stage.loss_weights}.values()):
            raise ValueError(
                f"stages.{number}.loss_weights: expected a weight other than 0, found none; set "
                f"the weight of one of {', '.join(weights)}, here or in the criterion"
            )
        if stage.optimizer == "keep" and number == 1:
            raise ValueError("stages.1.optimizer keep: there is no stage before the first")
        if stage.optimizer == "keep" and stages[number - 2].lr_scheduler == "cosine":
            raise ValueError(
                f"stages.{number}.optimizer keep: the previous stage's learning rate ends at 0 "
                "(lr_scheduler cosine), so nothing would be trained"
            )
        if stage.optimizer == "fresh" and model is not None:
            _check_optimizer(stage, number, model)


def _check_optimizer(stage: Stage, number: int, model: nn.Module) -> None:
    """Build the optimiser of a stage, which would otherwise fail when the stage begins."""
    try:
        stage.build_optimizer(model)
    except ValueError as error:
        raise ValueError(
            f"stage {number}: expected settings that the optimiser accepts (optim, train.fused, "
            f"adam.*, sgd.*, rmsprop.*), found: {error}"
        ) from error
