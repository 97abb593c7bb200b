"""The stages of a training: how long, which optimiser, which learning rate, which losses."""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torchreid
from torch import nn

SCHEDULERS = ("single_step", "multi_step", "cosine")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a training; the defaults are the paper's first stage but for its length.

    max_epoch: epochs of this stage.
    lr: learning rate after the warm-up.
    lr_scheduler: torchreid's "single_step" (× lr_gamma every stepsize[-1] epochs), "multi_step"
        (× lr_gamma at each of stepsize) or "cosine" (to 0 at the stage's end).
    stepsize: epochs, counted from the stage's start.
    lr_gamma: factor of the learning rate at a step.
    warmup_epoch: epochs in which the factor rises linearly from warmup_factor to 1.
    warmup_factor: factor in the first epoch.
    gamma: γ, weight of the Semantic Diversity loss.
    optimizer: further arguments of torchreid's `build_optimizer`, such as optim and weight_decay.
    """

    max_epoch: int
    lr: float = 3.5e-4
    lr_scheduler: str = "multi_step"
    stepsize: Sequence[int] = (40, 70)
    lr_gamma: float = 0.1
    warmup_epoch: int = 10
    warmup_factor: float = 0.01
    gamma: float = 0.0
    optimizer: Mapping[str, Any] = field(
        default_factory=lambda: {"optim": "adam", "weight_decay": 5e-4, "adam_beta2": 0.999}
    )

    def __post_init__(self) -> None:
        if self.max_epoch < 1:
            raise ValueError(
                f"max_epoch: expected at least one epoch a stage, got {self.max_epoch}"
            )
        if self.lr_scheduler not in SCHEDULERS:
            raise ValueError(
                f"lr_scheduler: expected one of {', '.join(SCHEDULERS)}, got {self.lr_scheduler!r}"
            )
        if self.lr_scheduler == "single_step" and not self.stepsize:
            raise ValueError("stepsize: single_step needs the number of epochs between two steps")
        if self.gamma < 0:
            raise ValueError(f"gamma: expected a weight of at least 0, got {self.gamma}")

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

    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """A fresh optimiser, by torchreid's own builder."""
        return torchreid.optim.build_optimizer(model, lr=self.lr, **self.optimizer)

    def build_scheduler(
        self, optimizer: torch.optim.Optimizer
    ) -> torch.optim.lr_scheduler.LambdaLR:
        """A scheduler to be stepped once an epoch."""
        # A plain function: the state of any other callable would end up in the checkpoint.
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: self.lr_factor(epoch))


def paper_stages(gamma: float = 2e-3) -> tuple[Stage, Stage]:
    """The paper's two stages (section 4.1): 460 epochs without, 40 with the SD loss."""
    return (
        Stage(max_epoch=460),
        Stage(max_epoch=40, lr=1e-3, stepsize=(), warmup_epoch=0, gamma=gamma),
    )


def find_stage(stages: Sequence[Stage], epoch: int) -> tuple[int, int]:
    """Which stage an epoch belongs to; epochs count on through the stages.

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
        f"epoch {epoch + 1}: expected one of the stages' {first}; "
        "lengthen a stage, or set train.max_epoch, which scales them"
    )
