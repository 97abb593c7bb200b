"""The streams of DSA-reID up to their features, and the fusion of these (section 3.2, Fig. 3)."""

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from magnifier_plugin.models.backbone import Backbone
from magnifier_plugin.models.parts import (
    Merge,
    PartLinear,
    convolution,
    for_parts,
    residual_stage,
)
from magnifier_plugin.models.precision import mean_in_float32
from magnifier_plugin.regions import (
    MERGED_PARTS,
    NUM_PARTS,
    PART_TO_SIDELESS,
    SIDELESS_PARTS,
    SIDELESS_TO_MERGED,
)

# Branch ("G", "L") → feature [B, C]; returned by both streams and by the fusion.
Features = dict[str, Tensor]
# Number of parts that a branch's feature consists of.
PART_COUNTS = {"G": 1, "L": len(MERGED_PARTS)}
# conv3 and conv4 each halve the DSAP-images.
DOWNSAMPLING = 4


class HeadNetwork(nn.ModuleDict):
    """A stream's Head network: layers and average pooling for each of its branches (Eq. 1 and 2).

    Args:
        modules: layers by branch, "G" (global) and "L" (local); empty if the stream is not built.
    """

    def forward(self, features: Tensor | None) -> Features:
        """Args: features: float [B, c, h, w]. Returns: float [B, C] by branch."""
        return {name: mean_in_float32(layers(features), (2, 3)) for name, layers in self.items()}


def main_head(
    backbone: Backbone, branches: tuple[str, ...], in_channels: int, channels: int
) -> HeadNetwork:
    """Build the MF-Stream's Head network on layer3, and move layer4 from the backbone into it.

    Global: the backbone's layer4 (stride 1). Local: for each of the 8 merged parts a layer4 with
    one eighth of the channels, all on the same feature map F (section 4.2).

    Args:
        backbone: its layer4 is replaced by an identity. Only pre-trained layers remain in it, so
            that torchreid's `open_layers` and `new_layers` can tell them from new layers.
        branches: "G", "L", both or none.
        in_channels: layer3's width.
        channels: layer4's width.
    """
    layer4: Any = backbone.layer4
    backbone.layer4 = nn.Identity()
    head = HeadNetwork()
    if "G" in branches:
        head["G"] = layer4
    if "L" in branches:
        parts = PART_COUNTS["L"]
        part = residual_stage(type(layer4[0]), in_channels, channels // parts, blocks=len(layer4))
        head["L"] = for_parts(part, parts, shared_input=True)
    return head


class NoBackbone(nn.Module):
    """Replaces the backbone in a network without the MF-Stream, whose Head network is empty."""

    def forward(self, images: Tensor) -> tuple[None, None]:
        return None, None


class GuidingStream(nn.Module):
    """DSAG-Stream: a sub-branch per DSAP-image, merged twice, and a Head network (Table 1).

    Args:
        channels: width C of d_G and of d_L, equal to the width of the backbone's layer4.
        branches: "G", "L" or both.
        width: factor of the channels of conv1 to conv4, see `scaled`.
    """

    def __init__(self, channels: int, branches: tuple[str, ...], *, width: float = 1.0) -> None:
        super().__init__()
        first, second, third, fourth = (scaled(c, width) for c in (32, 64, 64, 128))
        self.conv1 = for_parts(convolution(3, first, 5), NUM_PARTS)
        self.conv2 = for_parts(convolution(first, second, 3), NUM_PARTS)
        self.conv3 = for_parts(residual_stage(BasicBlock, second, third, stride=2), NUM_PARTS)
        self.merge_sides = Merge(PART_TO_SIDELESS)
        blocks = residual_stage(BasicBlock, third, fourth, stride=2)
        self.conv4 = for_parts(blocks, len(SIDELESS_PARTS))
        self.merge_charts = Merge(SIDELESS_TO_MERGED)
        self.head = HeadNetwork()
        merged = len(MERGED_PARTS)
        if "G" in branches:  # conv5_g
            self.head["G"] = residual_stage(BasicBlock, merged * fourth, channels)
        if "L" in branches:  # conv5_l
            self.head["L"] = for_parts(
                residual_stage(BasicBlock, fourth, channels // merged), merged
            )

    def forward(self, textures: Tensor | None, batch: int) -> Features:
        """Compute the features of the DSAP-images.

        Args:
            textures: float [B, 24, 3, S, S], normalised; S is a multiple of 4.
            batch: B, the number of images that the textures belong to.
        Returns:
            d_G and d_L as "G" and "L", float [B, C] each.
        Raises:
            ValueError: textures is None, or has the wrong shape or dtype.
        """
        parts = check_textures(textures, batch).flatten(1, 2)  # [B, 24·3, S, S]
        parts = self.conv3(self.conv2(self.conv1(parts)))  # [B, 24·64, S/2, S/2]
        parts = self.conv4(self.merge_sides(parts))  # [B, 13·128, S/4, S/4]
        features: Features = self.head(self.merge_charts(parts))
        return features


class NoGuidingStream(nn.Module):
    """Replaces the DSAG-Stream in a network without it."""

    def forward(self, textures: Tensor | None, batch: int) -> Features:
        return {}


class AddFusion(nn.Module):
    """z = f + d (section 3.2.3)."""

    def forward(self, f: Features, d: Features) -> Features:
        """Args: f, d: float [B, C] by branch. Returns: z, the same."""
        return {name: f[name] + d[name] for name in f}


class ConcatFusion(nn.Module):
    """z = FC([f, d]), "Concatenation+fc" of Table 5.

    Global: one layer from 2C to C. Local: one layer per part, from [f_L,i, d_L,i] to z_L,i, so that
    the features of different parts are not mixed (the paper does not specify this).

    Args:
        channels: width C of f and of d in each branch.
        branches: "G", "L" or both.
    """

    def __init__(self, channels: int, branches: tuple[str, ...]) -> None:
        super().__init__()
        self.layers = nn.ModuleDict()
        for name in branches:
            width = channels // PART_COUNTS[name]
            self.layers[name] = PartLinear(2 * width, width, parts=PART_COUNTS[name])

    def forward(self, f: Features, d: Features) -> Features:
        """Args: f, d: float [B, C] by branch. Returns: z, the same."""
        fused = {}
        for name, layer in self.layers.items():
            shape = (PART_COUNTS[name], -1)
            pair = [torch.unflatten(features, 1, shape) for features in (f[name], d[name])]
            fused[name] = layer(torch.cat(pair, dim=2).flatten(1))
        return fused


class SingleStream(nn.Module):
    """z := f or z := d in a network with one stream."""

    def forward(self, f: Features, d: Features) -> Features:
        """Args: f, d: float [B, C] by branch, one of them empty. Returns: the other."""
        return f or d


def build_fusion(
    fusion: str, streams: tuple[str, ...], channels: int, branches: tuple[str, ...]
) -> nn.Module:
    """The fusion by its configuration name, "add" or "concat"; `SingleStream` for one stream."""
    if len(streams) == 1:
        return SingleStream()
    return AddFusion() if fusion == "add" else ConcatFusion(channels, branches)


def scaled(channels: int, width: float) -> int:
    """channels × width, at least 1; from 8 on rounded to a multiple of 8 (for tensor cores)."""
    share = channels * width
    return max(1, round(share)) if share < 8 else 8 * round(share / 8)


def check_textures(textures: Tensor | None, batch: int) -> Tensor:
    """Raise a ValueError unless the textures have the shape and dtype that the stream expects."""
    expected = f"float textures [{batch}, {NUM_PARTS}, 3, S, S] (DSAP-images), S a multiple of 4"
    if textures is None:
        raise ValueError(
            f"DSA-reID's DSAG-Stream expects {expected}; got none. Pass textures=..., or build "
            "without this stream (dsa.streams ['MF']), or test with the MF-Stream's features "
            "(dsa.test_features f)"
        )
    shape = tuple(textures.shape)
    size = shape[-1] if shape else 0
    if (
        shape != (batch, NUM_PARTS, 3, size, size)
        or not size
        or size % DOWNSAMPLING
        or not textures.is_floating_point()
    ):
        raise ValueError(
            f"DSA-reID's DSAG-Stream expects {expected}, normalised like the images; got "
            f"{textures.dtype} {list(shape)}"
        )
    return textures
