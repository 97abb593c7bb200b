"""Layers with separate weights for each body part, computed as one grouped layer.

A grouped layer of P parts stores the tensors of P separate layers, concatenated along the first
dimension: `tensor.chunk(P)[i]` belongs to part i. A grouped convolution of 24 parts is one
operation; 24 convolutions of a few channels each would leave a GPU idle.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck


def residual_stage(
    block: type[BasicBlock | Bottleneck],
    in_channels: int,
    channels: int,
    *,
    blocks: int = 2,
    stride: int = 1,
) -> nn.Sequential:
    """Stacked ResNet blocks, as torchvision stacks and initialises them.

    Args:
        block: torchvision's `BasicBlock` or `Bottleneck`.
        in_channels: width of the input.
        channels: width of the output, a multiple of the block's expansion.
        blocks: number of blocks.
        stride: stride of the first block.
    """
    planes = channels // block.expansion
    shortcut = None
    if stride != 1 or in_channels != channels:
        projection = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
        shortcut = nn.Sequential(projection, nn.BatchNorm2d(channels))
    first = block(in_channels, planes, stride, shortcut)
    stage = nn.Sequential(first, *(block(channels, planes) for _ in range(blocks - 1)))
    for module in stage.modules():
        if isinstance(module, nn.Conv2d):
            _initialise(module, parts=1)
    return stage


def convolution(in_channels: int, channels: int, kernel: int) -> nn.Sequential:
    """Convolution with same padding, batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )


def for_parts(stage: nn.Sequential, parts: int, *, shared_input: bool = False) -> nn.Sequential:
    """Turn the layers of one part into grouped layers of all parts, each with its own weights.

    Args:
        stage: layers of one part, from `convolution` or `residual_stage`; changed in place and
            reinitialised.
        parts: number P of parts; the channels are multiplied by P and ordered part by part.
        shared_input: all parts read the same feature map, so the input channels stay; the stage
            must come from `residual_stage` and change the width.
    Returns:
        The stage; state-dict keys stay the same.
    """
    first: Any = stage[0]
    shared = (first.conv1, first.downsample[0]) if shared_input else ()
    for module in list(stage.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Conv2d):
                setattr(module, name, _grouped(child, parts, shared=child in shared))
            elif isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.BatchNorm2d(child.num_features * parts))
    return stage


def _grouped(convolution: nn.Conv2d, parts: int, *, shared: bool) -> nn.Conv2d:
    """One convolution per part as one layer, whose outputs are concatenated part by part."""
    groups = 1 if shared else parts
    grouped = nn.Conv2d(
        convolution.in_channels * groups,
        convolution.out_channels * parts,
        convolution.kernel_size[0],
        convolution.stride[0],
        int(convolution.padding[0]),
        groups=groups,
        bias=False,
    )
    _initialise(grouped, parts)
    return grouped


@torch.no_grad()
def _initialise(convolution: nn.Conv2d, parts: int) -> None:
    """ResNet's initialisation per part: torch's fan-out of a grouped weight counts all parts."""
    for weight in convolution.weight.chunk(parts):
        nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")


class Merge(nn.Module):
    """Add the feature maps of parts that belong together (DSA-reID, section 3.2.1, Fig. 4).

    Args:
        table: integer [P], part → merged part, values 0..M − 1, each at least once.
    """

    table: Tensor

    def __init__(self, table: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("table", torch.tensor(table.tolist()), persistent=False)
        self.merged = int(table.max()) + 1

    def forward(self, parts: Tensor) -> Tensor:
        """Args: parts: float [B, P·C, h, w]. Returns: float [B, M·C, h, w], same memory format."""
        channels = parts.shape[1] // len(self.table)
        sums = torch.zeros_like(parts[:, : self.merged * channels])
        torch.unflatten(sums, 1, (self.merged, channels)).index_add_(
            1, self.table, torch.unflatten(parts, 1, (len(self.table), channels))
        )
        return sums


class PartLinear(nn.Module):
    """A fully connected layer per part, initialised like torch's `nn.Linear`.

    Args:
        in_features: width of one part's input.
        out_features: width of one part's output.
        parts: number P of parts.
        bias: add a learnt bias.
    """

    def __init__(
        self, in_features: int, out_features: int, *, parts: int = 1, bias: bool = True
    ) -> None:
        super().__init__()
        bound = in_features**-0.5
        self.weight = nn.Parameter(torch.empty(parts, out_features, in_features))
        nn.init.uniform_(self.weight, -bound, bound)
        if bias:
            self.bias = nn.Parameter(torch.empty(parts, out_features))
            nn.init.uniform_(self.bias, -bound, bound)
        else:
            self.register_parameter("bias", None)

    def forward(self, features: Tensor) -> Tensor:
        """Args: features: float [B, P·in_features]. Returns: float [B, P·out_features]."""
        # In the layer's own precision: a model converted by `.half()` still pools in float32.
        features = features.to(self.weight.dtype)
        parts = torch.unflatten(features, 1, (len(self.weight), -1))
        outputs = torch.einsum("bpi,poi->bpo", parts, self.weight)
        return (outputs if self.bias is None else outputs + self.bias).flatten(1)


def classifier(
    channels: int, num_classes: int, *, parts: int = 1, hidden: int = 512
) -> nn.Sequential:
    """Two fully connected layers per part (DSA-reID, section 3.2.4).

    The paper specifies only the two layers; the hidden width and the batch norm and ReLU between
    them are our choice.

    Args:
        channels: width P·C of the features of all parts together.
        num_classes: number N of training identities.
        parts: number P of parts, each with its own classifier.
        hidden: width between the layers.
    Returns:
        A module from float [B, P·C] to logits float [B, P, N], or [B, N] for one part.
    """
    last = PartLinear(hidden, num_classes, parts=parts)
    nn.init.normal_(last.weight, std=0.001)
    nn.init.zeros_(last.bias)
    layers = nn.Sequential(
        PartLinear(channels // parts, hidden, parts=parts, bias=False),
        nn.BatchNorm1d(parts * hidden),
        nn.ReLU(inplace=True),
        last,
    )
    return layers.append(nn.Unflatten(1, (parts, num_classes))) if parts > 1 else layers
