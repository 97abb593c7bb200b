"""Batch norm with statistics over the whole batch that several processes share."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from magnifier_plugin.models.heads import BNNeck, fix_shift
from magnifier_plugin.models.precision import at_least_float32


class _AllReduce(torch.autograd.Function):
    """The sum over the processes; its gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: object, tensor: Tensor) -> Tensor:
        tensor = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(tensor)
        return tensor

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return _AllReduce.forward(ctx, gradient)


def all_reduce(tensor: Tensor) -> Tensor:
    """The sum over all processes, with gradients."""
    total: Tensor = _AllReduce.apply(tensor)
    return total


class AllReduceBatchNorm(_BatchNorm):
    """Synchronised batch norm for the CPU; `torch.nn.SyncBatchNorm` supports only CUDA tensors."""

    def forward(self, input: Tensor) -> Tensor:
        """Args: input: float [B, C, …]."""
        if not (self.training and dist.is_initialized() and dist.get_world_size() > 1):
            output: Tensor = super().forward(input)
            return output
        features, channels = at_least_float32(input), input.shape[1]
        dims, shape = [0, *range(2, input.ndim)], [-1] + [1] * (input.ndim - 2)
        count = features.new_tensor([input.numel() / channels])
        sums = all_reduce(torch.cat([features.sum(dims), count]))
        mean, count = sums[:channels] / sums[channels:], sums[channels:]
        centred = features - mean.view(shape)
        variance = all_reduce(centred.square().sum(dims)) / count
        self._track(mean.detach(), (variance * count / (count - 1)).detach())
        scale = (variance + self.eps).rsqrt()
        if not self.affine:
            return (centred * scale.view(shape)).to(input.dtype)
        scaled = centred * (scale * self.weight).view(shape)
        return (scaled + self.bias.view(shape)).to(input.dtype)

    def _check_input_dim(self, input: Tensor) -> None:
        """torch's hook in batch norms; this one accepts any number of dimensions."""

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        """Update the running statistics with a batch's mean and unbiased variance."""
        running_mean, running_var = self.running_mean, self.running_var
        batches = self.num_batches_tracked
        if running_mean is None or running_var is None or batches is None:
            return
        batches.add_(1)
        momentum = 1.0 / float(batches) if self.momentum is None else self.momentum
        running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        running_var.lerp_(variance.to(running_var.dtype), momentum)


def convert_sync_batchnorm(module: nn.Module) -> nn.Module:
    """Replace every batch norm by its synchronised form, BNNecks included.

    On a GPU this is `torch.nn.SyncBatchNorm`. torch's own conversion assigns a parameter or None to
    `bias`, which fails for BNNeck's buffer.

    Args:
        module: the network, on its device; its children are replaced in place.
    Returns:
        The module, or its replacement if it is a batch norm itself. State-dict keys stay the same.
    """
    if isinstance(module, _BatchNorm):
        return _converted(module)
    for name, child in module.named_children():
        module.add_module(name, convert_sync_batchnorm(child))
    return module


def _converted(module: _BatchNorm) -> nn.Module:
    tensors = [*module.parameters(), *module.buffers()]
    on_gpu = bool(tensors) and tensors[0].is_cuda
    kind = nn.SyncBatchNorm if on_gpu else AllReduceBatchNorm
    norm = kind(
        *(module.num_features, module.eps, module.momentum),
        *(module.affine, module.track_running_stats),
    )
    if isinstance(module, BNNeck):
        fix_shift(norm)
    # The same tensors, as an optimiser may have them already.
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        setattr(norm, name, tensor)
    return norm.train(module.training)
