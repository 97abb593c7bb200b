"""The stages of a training: their length, optimiser, learning rate and loss weights."""

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
    """One stage of a training.

    Raises:
        ValueError: a value is out of its range.
    """

    max_epoch: int
    """Epochs of this stage."""
    lr: float = 3.5e-4
    """Learning rate after the warm-up."""
    lr_scheduler: str = "multi_step"
    """torchreid's "single_step" (× lr_gamma every stepsize[-1] epochs), "multi_step" (× lr_gamma
    at each of stepsize) or "cosine" (to 0 at the stage's end)."""
    stepsize: Sequence[int] = ()
    """Epochs, counted from the stage's start."""
    lr_gamma: float = 0.1
    """The learning rate's factor at a step."""
    warmup_epoch: int = 0
    """Epochs in which the factor rises linearly from warmup_factor to 1."""
    warmup_factor: float = 0.01
    """The learning rate's factor in the first epoch."""
    loss_weights: Mapping[str, float] = field(default_factory=dict)
    """Weights of loss terms by name, in place of the criterion's defaults."""
    optimizer: str = "fresh"
    """"keep" continues the optimiser and the schedule of the stage before."""
    optimizer_options: Mapping[str, Any] = field(
        default_factory=lambda: {"optim": "adam", "weight_decay": 5e-4, "adam_beta2": 0.999}
    )
    """Arguments of torchreid's `build_optimizer`, such as optim and weight_decay."""
    fused: str = "auto"
    """Update all weights in one kernel: "on", "off", or "auto": if the optimiser can."""

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
        if self.lr_scheduler == "single_step" and not self.stepsize:
            raise ValueError("stepsize: single_step needs the number of epochs between two steps")
        for name, weight in self.loss_weights.items():
            if not weight >= 0:
                raise ValueError(f"loss_weights.{name}: expected at least 0, got {weight}")

    def lr_factor(self, epoch: int) -> float:
        """The learning rate's factor in an epoch, counted from 0 at this stage's start."""
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
        """A fresh optimiser by torchreid's own builder, and its schedule, stepped once per epoch.

        Args:
            model: whose parameters are trained.
            epoch: of this stage that comes next, counted from 0.
        Raises:
            ValueError: `fused` is "on" and the optimiser has no such form.
        """
        optimizer = torchreid.optim.build_optimizer(model, lr=self.lr, **self.optimizer_options)
        if self.fused == "on" or (self.fused == "auto" and "fused" in optimizer.defaults):
            optimizer = _fused(optimizer)
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        # A plain function: the state of any other callable would end up in the checkpoint.
        schedule = LambdaLR(optimizer, lambda epoch: self.lr_factor(epoch), last_epoch=epoch - 1)
        return optimizer, schedule


def _fused(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The same optimiser, before its first step, in the form that updates all weights at once."""
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
    """The stage of an epoch; epochs are numbered through all stages.

    Args:
        stages: of the training.
        epoch: counted from 0.
    Returns:
        The stage's index and its first epoch.
    Raises:
        ValueError: the stages have fewer epochs.
    """
    first = 0
    for index, stage in enumerate(stages):
        if epoch < first + stage.max_epoch:
            return index, first
        first += stage.max_epoch
    raise ValueError(
        f"epoch {epoch + 1}: expected one of the stages' {first}; lengthen a stage "
        "(stages.N.max_epoch) or scale them all (train.scale)"
    )


def optimizer_stage(stages: Sequence[Stage], index: int) -> int:
    """The stage whose optimiser a stage trains with: itself, or an earlier one that is kept."""
    while stages[index].optimizer == "keep":
        index -= 1
    return index


def check_stages(stages: Sequence[Stage], loss_names: Sequence[str]) -> None:
    """Refuse stages that cannot be trained.

    Args:
        stages: of the training.
        loss_names: the criterion's terms.
    Raises:
        ValueError: there is no stage, a weight is of an unknown term, or there is no optimiser to
            keep.
    """
    if not stages:
        raise ValueError("stages: expected at least one, got none")
    for number, stage in enumerate(stages, start=1):
        unknown = [name for name in stage.loss_weights if name not in loss_names]
        if unknown:
            raise ValueError(
                f"stages.{number}.loss_weights.{unknown[0]}: unknown loss term, expected one of "
                f"{', '.join(loss_names)}"
            )
        if stage.optimizer == "keep" and number == 1:
            raise ValueError("stages.1.optimizer keep: there is no stage before the first")
        if stage.optimizer == "keep" and stages[number - 2].lr_scheduler == "cosine":
            raise ValueError(
                f"stages.{number}.optimizer keep: the learning rate of the stage before ends at 0 "
                "(lr_scheduler cosine), so nothing would be trained"
            )
