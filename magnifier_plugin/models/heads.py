"""BNNeck and identity head."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn


def _fix_shift(norm: nn.BatchNorm1d | nn.SyncBatchNorm) -> None:
    """Make a batch norm's shift a buffer of zeros.

    A buffer, not a frozen parameter: torchreid's engine sets every `requires_grad` at each epoch's
    start. The key stays `bias`, so that weights of other strong baselines fit.
    """
    del norm.bias
    norm.register_buffer("bias", torch.zeros(norm.num_features))


class BNNeck(nn.BatchNorm1d):
    """Batch norm with no shift (Luo et al., "Bag of tricks and a strong baseline", 2019).

    The triplet loss acts on what comes before it, cross entropy and retrieval on what comes after.

    Args:
        channels: width D of the feature.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        _fix_shift(self)


class SyncBNNeck(nn.SyncBatchNorm):
    """`BNNeck` whose statistics are those of all processes' batches."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        _fix_shift(self)


def convert_sync_batchnorm(module: nn.Module) -> nn.Module:
    """Replace every batch norm by its synchronised form, BNNecks included.

    torch's own conversion assigns a parameter-or-None to `bias` and fails on BNNeck's buffer.

    Args:
        module: its children are replaced in place.
    Returns:
        The module, or its replacement if it is a batch norm itself. State-dict keys stay the same.
    """
    if isinstance(module, BNNeck):
        synchronised = SyncBNNeck(module.num_features)
        synchronised.load_state_dict(module.state_dict())
        return synchronised.to(module.weight).train(module.training)
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        convert: Callable[[nn.Module], nn.Module] = nn.SyncBatchNorm.convert_sync_batchnorm
        return convert(module)
    for name, child in module.named_children():
        module.add_module(name, convert_sync_batchnorm(child))
    return module


class HeadOutput(NamedTuple):
    """The outputs of an identity head."""

    embedding: Tensor
    """float [B, D] after the BNNeck: for retrieval."""
    logits: Tensor
    """float [B, N]: for cross entropy."""


class IdentityHead(nn.Module):
    """BNNeck and classifier.

    Args:
        channels: width D of the feature.
        num_classes: number N of training identities.
        bias: give the classifier a bias (the authors' code does, the strong baseline does not).
    """

    def __init__(self, channels: int, num_classes: int, *, bias: bool = False) -> None:
        super().__init__()
        self.neck = BNNeck(channels)
        self.classifier = nn.Linear(channels, num_classes, bias=bias)
        nn.init.normal_(self.classifier.weight, std=0.001)
        if bias:
            nn.init.zeros_(self.classifier.bias)

    def forward(self, features: Tensor) -> HeadOutput:
        """Args: features: float [B, D]."""
        # In the BNNeck's own precision: the statistics of a few dozen images stay float32 under
        # autocast, and a model converted by `.half()` or `.double()` gets what it computes in.
        embedding = self.neck(features.to(self.neck.weight.dtype))
        return HeadOutput(embedding, self.classifier(embedding))
