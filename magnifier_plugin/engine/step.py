"""One batch's step of a training: network, losses, gradients, optimiser."""

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
from magnifier_plugin.engine.objective import Objective
from magnifier_plugin.engine.precision import Precision
from magnifier_plugin.engine.sync_batchnorm import convert_sync_batchnorm
from magnifier_plugin.engine.threads import ThreadCount
from magnifier_plugin.engine.weights import load_state
from magnifier_plugin.losses.terms import Criterion

MOST_SKIPPED = 10
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StepOptions:
    """How a batch becomes a step.

    Raises:
        ValueError: a value is out of its range.
    """

    compile: bool = False
    """Compile the network with `torch.compile`; the first steps then take minutes."""
    clip_grad: float = 0.0
    """Largest norm of all gradients together (`clip_grad_norm_`); 0 does not clip."""
    accumulate: int = 1
    """Batches whose gradients are averaged for one step. Batch norm and batch-hard mining see each
    batch alone. Fewer at an epoch's end, where the batches do not suffice."""
    ema: float = 0.0
    """Decay of the weights' moving average, which is then what is tested and saved; 0 for none."""
    sync_bn: bool = False
    """Batch norm of all processes' shares of a batch together, see `sync_batchnorm`."""

    def __post_init__(self) -> None:
        if not self.clip_grad >= 0:
            raise ValueError(f"clip_grad: expected at least 0, got {self.clip_grad}")
        if self.accumulate < 1:
            raise ValueError(f"accumulate: expected at least one batch, got {self.accumulate}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema: expected a decay of at least 0 and below 1, got {self.ema}")


class TrainingStep:
    """Trains a model with one batch.

    A batch whose loss is not finite is skipped: weights, running statistics and optimiser stay as
    they are.

    Args:
        model: on its device; in training mode when the step is called.
        criterion: of the model's outputs.
        precision: where and how the model computes.
        inputs: batch keys that the model takes besides the image.
        options: see `StepOptions`.
        processes: that share each batch.
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
        self._trained: list[bool] = []  # which parameters are trained by the wrapped one
        self.threads = ThreadCount(precision.device)
        self.scaler = precision.gradient_scaler()
        self.average = WeightAverage(model, self.options.ema) if self.options.ema else None
        self.skipped = 0
        """Batches that were skipped since the training began."""
        self.skipped_in_a_row = 0
        self.accumulated = 0
        """Batches since the optimiser's last step; 0 where a checkpoint can be written."""
        self._summed = 0  # of them, those whose gradients were added

    def __call__(
        self,
        data: Mapping[str, Any],
        optimizer: Optimizer,
        weights: Mapping[str, float],
        *,
        last: bool = False,
    ) -> dict[str, Tensor]:
        """One batch; with it the optimiser's step, unless more batches are to be accumulated.

        Args:
            data: a batch of the training loader.
            optimizer: of the model.
            weights: of loss terms by name, in place of the criterion's.
            last: whether it is the epoch's last batch.
        Returns:
            Scalars by name: the total, "loss", and every term and metric; nothing of a batch that
            is skipped.
        Raises:
            FloatingPointError: the loss of `MOST_SKIPPED` batches in a row was not finite.
        """
        self.threads.adapt()
        if not self.accumulated:
            optimizer.zero_grad()
            self._summed = 0
        self.accumulated += 1
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        total, losses = self._losses(data, weights)
        if losses["loss"].isfinite():
            self.skipped_in_a_row = 0
            torch.autograd.backward(self.scaler.scale(total))
            self._summed += 1
        else:
            for buffer, before in zip(self.model.buffers(), buffers, strict=True):
                buffer.copy_(before)
            self._skip(losses, data)
            losses = {}
        if last or self.accumulated == self.options.accumulate:
            self.accumulated = 0
            if self._summed:
                self._optimise(optimizer)
        return losses

    def reset(self) -> None:
        """A training begins anew, with the model's weights."""
        self.scaler = self.precision.gradient_scaler()
        self.skipped = self.skipped_in_a_row = self.accumulated = 0
        if self.average:
            self.average.restart()

    def content(self) -> dict[str, Any]:
        """What a checkpoint needs of it, in plain types: "step", and the averages as "state_dict".

        Without averages there is no "state_dict"; the model's own is the checkpoint's then.
        """
        step: dict[str, Any] = {
            "skipped": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
            "scaler": self.scaler.state_dict(),
        }
        if self.average is None:
            return {"step": step}
        step |= {"averaged": self.average.steps, "weights": self.model.state_dict()}
        return {"step": step, "state_dict": self.average.state_dict()}

    def restore(self, content: Mapping[str, Any], origin: str) -> None:
        """Continue from a checkpoint, after the model has loaded its "state_dict".

        Args:
            content: of the checkpoint; one without "step" is an older one.
            origin: what errors call it, such as its path.
        Raises:
            ValueError: its weights are of another model.
        """
        self.reset()
        step = content.get("step", {})
        if "weights" in step:
            load_state(self.model, step["weights"], origin)
        if self.average:
            self.average.restart()
            if "averaged" in step:
                self.average.load(content["state_dict"], step["averaged"])
        self.skipped = step.get("skipped", 0)
        self.skipped_in_a_row = step.get("skipped_in_a_row", 0)
        if step.get("scaler") and self.scaler.is_enabled():
            self.scaler.load_state_dict(step["scaler"])

    def tested_weights(self) -> AbstractContextManager[None]:
        """Inside the block the model has the weights that are tested: the averages, if any."""
        return self.average.in_model() if self.average else nullcontext()

    def _losses(
        self, data: Mapping[str, Any], weights: Mapping[str, float]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """This process's total, and the means of all losses over the processes."""
        targets = self.precision.targets(take_inputs(data, self.inputs))
        pids = data["pid"].to(self.precision.device, non_blocking=True)
        images = self.precision.images(data["img"])
        trained = [parameter.requires_grad for parameter in self.model.parameters()]
        if self._trained != trained:
            # DistributedDataParallel takes what is trainable when it is built.
            self._wrapped, self._trained = self.processes.wrap(self.objective), trained
        total, named = self._wrapped(images, pids, targets, weights)
        return total, self.processes.mean({"loss": total, **named})

    def _optimise(self, optimizer: Optimizer) -> None:
        """The optimiser's step with the mean of the batches' gradients."""
        self.scaler.unscale_(optimizer)
        parameters = list(self.model.parameters())
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self._summed > 1:
            for gradient in gradients:
                gradient.div_(self._summed)
        if self.options.clip_grad:
            nn.utils.clip_grad_norm_(parameters, self.options.clip_grad)
        self.scaler.step(optimizer)
        self.scaler.update()
        if self.average:
            self.average.update()

    def _skip(self, losses: Mapping[str, Tensor], data: Mapping[str, Any]) -> None:
        self.skipped += 1
        self.skipped_in_a_row += 1
        values = ", ".join(f"{name} {loss.item():g}" for name, loss in losses.items())
        if self.skipped_in_a_row < MOST_SKIPPED:
            logger.warning(
                "Batch skipped, its loss is not finite: %s; %d in a row, %d in this training",
                *(values, self.skipped_in_a_row, self.skipped),
            )
            return
        images = ", ".join(map(str, data.get("impath", ())))
        raise FloatingPointError(
            f"expected finite losses, got {values}, in {MOST_SKIPPED} batches in a row; the last "
            f"one's images: {images}. Lower train.lr, set train.clip_grad or amp off; model.resume "
            "continues from the last checkpoint, which has finite weights"
        )
