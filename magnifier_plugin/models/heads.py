"""BNNeck and identity head."""

from typing import NamedTuple

import torch
from torch import Tensor, nn


def fix_shift(norm: nn.modules.batchnorm._BatchNorm) -> None:
    """Make a batch norm's shift a buffer of zeros.

    It is a buffer, not a frozen parameter, because torchreid's engine sets every `requires_grad` at
    the start of each epoch. The key stays `bias`, so that weights of other strong baselines fit.
    """
    del norm.bias
    norm.register_buffer("bias", torch.zeros(norm.num_features))


class BNNeck(nn.BatchNorm1d):
    """Batch norm without a shift (Luo et al., "Bag of tricks and a strong baseline", 2019).

    The triplet loss uses the feature before it, cross entropy and retrieval the feature after it.

    Args:
        channels: width D of the feature.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        fix_shift(self)


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
        # In the BNNeck's own precision: under autocast the statistics of a few dozen images stay
        # float32, and in a model converted by `.half()` or `.double()` the dtypes match.
        embedding = self.neck(features.to(self.neck.weight.dtype))
        return HeadOutput(embedding, self.classifier(embedding))
