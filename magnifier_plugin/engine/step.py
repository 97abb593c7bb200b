"""A training step on one batch: network, losses, gradients, optimiser."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from magnifier_plugin.data.inputs import take_inputs
from magnifier_plugin.engine.averaging import WeightAverage
from magnifier_plugin.engine.distributed import ONE_PROCESS, Processes
from magnifier_plugin.engine.finite import are_finite, largest_statistic
from magnifier_plugin.engine.objective import Objective
from magnifier_plugin.engine.precision import Precision
from magnifier_plugin.engine.sync_batchnorm import convert_sync_batchnorm
from magnifier_plugin.engine.threads import ThreadCount
from magnifier_plugin.engine.weights import load_state
from magnifier_plugin.losses.terms import Criterion

MAX_SKIPPED = 10
MIN_SCALE = 1.0  # infinite gradients at a lower loss scale are not caused by the scale
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StepOptions:
    """Options of the training step.

    Raises:
        ValueError: a value is out of its range.
    """

    compile: bool = False
    """Compile the network with `torch.compile`; the first steps then take minutes."""
    clip_grad: float = 0.0
    """Largest norm of all gradients taken together (`clip_grad_norm_`); 0: no clipping."""
    accumulate: int = 1
    """Batches whose gradients are averaged for one step; fewer at the end of an epoch if not enough
    are left. Batch norm and batch-hard mining see one batch at a time."""
    ema: float = 0.0
    """Decay of a moving average of the weights, which is then tested and saved; 0: no average."""
    sync_bn: bool = False
    """Batch norm over the whole batch of all processes, see `sync_batchnorm`."""

    def __post_init__(self) -> None:
        if not self.clip_grad >= 0:
            raise ValueError(f"clip_grad: expected at least 0, got {self.clip_grad}")
        if self.accumulate < 1:
            raise ValueError(f"accumulate: expected at least one batch, got {self.accumulate}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema: expected a decay of at least 0 and below 1, got {self.ema}")


class TrainingStep:
    """Trains a model with one batch at a time.

    A batch whose loss or running statistics are not finite is skipped, and so is an optimiser step
    whose gradients are not: weights, running statistics and optimiser are not changed. If fp16
    gradients overflow, the loss scale is lowered instead, which is not counted as skipped, and
    running statistics change.

    Args:
        model: the network, on its device; in training mode when the step is called.
        criterion: computes the losses of the model's outputs.
        precision: device and precision of the model.
        inputs: batch keys that the model needs in addition to the image.
        options: see `StepOptions`.
        processes: the processes that share each batch.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: Criterion,
        precision: Precision,
        inputs: Sequence[str],
        options: StepOptions | None = None,
        processes: Processes = ONE_PROCESS,
    ) -> None:
        self.options, self.processes = options or StepOptions(), processes
        self.model, self.precision, self.inputs = model, precision, inputs
        if self.options.sync_bn:
            convert_sync_batchnorm(model)
        network: Any = torch.compile(model) if self.options.compile else model
        self.objective = Objective(network, criterion, precision)
        self._wrapped: nn.Module = self.objective
        self._trained: list[bool] = []  # requires_grad of all parameters when `_wrapped` was built
        self.threads = ThreadCount(precision.device)
        self.scaler = precision.gradient_scaler()
        self.average = WeightAverage(model, self.options.ema) if self.options.ema else None
        self.skipped = 0
        """Number of batches, or accumulated steps, skipped since the training run began."""
        self.skipped_in_a_row = 0
        """Number of these since the optimiser's last step."""
        self.accumulated = 0
        """Batches since the optimiser's last step; checkpoints can be written when it is 0."""
        self._summed = 0  # number of these whose gradients were added
        self._buffers: list[Tensor] = []  # running statistics before these
        self._last: tuple[Mapping[str, Tensor], Sequence[str]] = {}, ()  # losses, images of a batch

    def __call__(
        self, data: Mapping[str, Any], optimizer: Optimizer, weights: Mapping[str, float]
    ) -> dict[str, Tensor]:
        """Train with one batch, and step the optimiser unless more batches are to be accumulated.

        Args:
            data: a batch of the training loader.
            optimizer: the model's optimiser.
            weights: weights by loss term, which override the criterion's.
        Returns:
            Scalars by name: the total, "loss", all terms and metrics; empty if it was skipped.
        Raises:
            FloatingPointError: `MAX_SKIPPED` batches were skipped since the optimiser's last step.
        """
        self.threads.adapt()
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        if not self.accumulated:
            optimizer.zero_grad()
            self._summed, self._buffers = 0, buffers
        self.accumulated += 1
        total, losses, statistic = self._losses(data, weights)
        self._last = losses, data.get("impath", ())
        if (losses["loss"] + 0 * statistic).isfinite():  # 0 * ∞ is NaN; one transfer from a GPU
            torch.autograd.backward(self.scaler.scale(total))
            self._summed += 1
        else:
            finite = losses["loss"].isfinite()
            self._skip("running statistics are" if finite else "loss is", buffers)
            losses = {}
        skipped = self.accumulated == self.options.accumulate and not self.finish(optimizer)
        return {} if skipped else losses

    def finish(self, optimizer: Optimizer) -> bool:
        """Step the optimiser with the batches accumulated so far, if any, as at an epoch's end.

        Returns:
            Whether nothing had to be skipped: the gradients were finite.
        """
        summed, self._summed, self.accumulated = self._summed, 0, 0
        if summed and not self._optimise(optimizer, summed):
            self._skip("gradients are", self._buffers)
            return False
        return True

    def reset(self) -> None:
        """Reset all state for a new training run that starts with the model's current weights."""
        self.scaler = self.precision.gradient_scaler()
        self.skipped = self.skipped_in_a_row = self.accumulated = 0
        if self.average:
            self.average.restart()

    def content(self) -> dict[str, Any]:
        """The step's part of a checkpoint: "step" and, with `ema`, "state_dict".

        "state_dict" has the averaged weights; without `ema` it is left out, and the checkpoint has
        the model's own state dict.
        """
        step: dict[str, Any] = {"skipped": self.skipped, "scaler": self.scaler.state_dict()}
        if self.average is None:
            return {"step": step}
        step |= {"averaged": self.average.steps, "weights": self.model.state_dict()}
        return {"step": step, "state_dict": self.average.state_dict()}

    def restore(self, content: Mapping[str, Any], origin: str) -> None:
        """Restore a checkpoint's state, after the model has loaded its "state_dict".

        Args:
            content: the checkpoint's content; old checkpoints have no "step".
            origin: name of the checkpoint in errors, such as its path.
        Raises:
            ValueError: its weights belong to another model.
        """
        step = content.get("step", {})
        if "weights" in step:
            load_state(self.model, step["weights"], origin)
        self.reset()
        if self.average and "averaged" in step:
            self.average.load(content["state_dict"], step["averaged"])
        self.skipped = step.get("skipped", 0)
        if step.get("scaler") and self.scaler.is_enabled():
            self.scaler.load_state_dict(step["scaler"])

    def tested_weights(self) -> AbstractContextManager[None]:
        """Give the model the weights to test inside the block: with `ema` the averages."""
        return self.average.in_model() if self.average else nullcontext()

    def _losses(
        self, data: Mapping[str, Any], weights: Mapping[str, float]
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """This process's total loss; means over the processes: of losses, largest statistic."""
        targets = self.precision.targets(take_inputs(data, self.inputs))
        pids = data["pid"].to(self.precision.device, non_blocking=True)
        images = self.precision.images(data["img"])
        trained = [parameter.requires_grad for parameter in self.model.parameters()]
        if self._trained != trained:
            # DistributedDataParallel considers parameters that are trainable when it is built.
            self._wrapped, self._trained = self.processes.wrap(self.objective), trained
        total, named = self._wrapped(images, pids, targets, weights)
        statistic = largest_statistic(self.model).to(total.device)
        means = self.processes.mean({"": statistic, "loss": total, **named})
        return total, means, means.pop("")

    def _optimise(self, optimizer: Optimizer, summed: int) -> bool:
        """Step the optimiser with the mean gradient of `summed` batches, if it is finite."""
        self.scaler.unscale_(optimizer)
        parameters = list(self.model.parameters())
        gradients = [p.grad for p in parameters if p.grad is not None]
        if summed > 1:
            for gradient in gradients:
                gradient.div_(summed)
        # If gradients of fp16 overflow, the scaler skips the step and lowers its scale. Processes
        # agree, since they have the same gradients.
        if not (self.scaler.is_enabled() or are_finite(gradients)):
            return False
        if self.options.clip_grad:
            nn.utils.clip_grad_norm_(parameters, self.options.clip_grad)
        scale = self.scaler.get_scale()
        self.scaler.step(optimizer)
        self.scaler.update()
        if (lowered := self.scaler.get_scale()) < scale:  # the scaler made no step
            return lowered >= MIN_SCALE
        if self.average:
            self.average.update()
        self.skipped_in_a_row = 0
        return True

    def _skip(self, what: str, before: list[Tensor]) -> None:
        """Count the last batch as skipped, log why (`what`), and restore buffers from `before`."""
        for buffer, value in zip(self.model.buffers(), before, strict=True):
            buffer.copy_(value)
        self.skipped += 1
        self.skipped_in_a_row += 1
        losses, images = self._last
        values = ", ".join(f"{name} {loss.item():g}" for name, loss in losses.items())
        if self.skipped_in_a_row < MAX_SKIPPED:
            logger.warning(
                "Batch skipped, its %s not finite: %s; %d in a row, %d in this run",
                *(what, values, self.skipped_in_a_row, self.skipped),
            )
            return
        raise FloatingPointError(
            f"expected finite losses and gradients, skipped {MAX_SKIPPED} batches in a row; the "
            f"last one's {what} not finite: {values}; its images: {', '.join(map(str, images))}. "
            "Lower train.lr, set train.clip_grad or amp off; model.resume continues from the last "
            "checkpoint, which is from before these batches and has finite weights"
        )
