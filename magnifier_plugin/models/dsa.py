"""DSA-reID (Zhang et al., "Densely Semantically Aligned Person Re-Identification", CVPR 2019)."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from magnifier_plugin.models.backbone import Backbone
from magnifier_plugin.models.dsa_options import (
    BRANCHES,
    STREAMS,
    built_streams,
    check_combination,
    check_values,
)
from magnifier_plugin.models.dsa_streams import (
    PART_COUNTS,
    GuidingStream,
    NoBackbone,
    NoGuidingStream,
    build_fusion,
    main_head,
)
from magnifier_plugin.models.parts import classifier


class DSAOutput(NamedTuple):
    """The output of DSA-reID in training with `loss="dsa"`, without entries for missing branches.

    B is the batch size, N the number of training identities, C layer4's width.
    """

    f_logits: dict[str, Tensor]
    """"G": float [B, N]; "L": float [B, 8, N], from one classifier per f_L,i. Empty without the
    MF-Stream."""
    z_logits: dict[str, Tensor]
    """"G", "L": float [B, N]."""
    z: dict[str, Tensor]
    """"G", "L": float [B, C], the fused features, for the triplet loss."""


class ImageNetModules(nn.ModuleDict):
    """Modules under torchvision's names, to load ImageNet weights into.

    Args:
        name: name of the torchvision network.
        modules: modules by their names in that network.
    """

    def __init__(self, name: str, modules: Mapping[str, nn.Module]) -> None:
        super().__init__(modules)
        self.name = name


class DSAReID(nn.Module):
    """Main full image stream and densely semantically aligned guiding stream (Fig. 3).

    The DSAG-Stream guides the training; the embedding consists of f_G and f_L of the MF-Stream and
    needs only the image (2048 + 8 · 256 dimensions with ResNet-50). A network without the
    DSAG-Stream has the same state-dict keys except those of `training_only_keys`.

    Args:
        num_classes: number N of training identities.
        loss: decides what `forward` returns in training: a `DSAOutput` for "dsa", what torchreid's
            engines expect for "softmax" and "triplet". These engines provide no textures, so only
            the MF-Stream is built then, whatever `streams` says.
        backbone: name of a torchvision ResNet, one of `BACKBONES`.
        streams: "MF", "DSAG" or both. With one stream, z is that stream's feature.
        branches: "global", "local" or both; only one for Table 3's "Single" rows.
        fusion: "add" (paper) or "concat" (Table 5).
        test_features: the embedding: "f" (paper), "z", "z_G" or "z_L" (Table 3).
        width: factor of the channels of the DSAG-Stream's conv1 to conv4.
        pretrained_head: initialise the global head with ImageNet's layer4 (paper: random).
    Raises:
        ValueError: an unknown name, or options that contradict each other.
    """

    # Prefixes of the state-dict keys that only a network with the DSAG-Stream has.
    training_only_keys: tuple[str, ...] = ("guiding_stream.", "fusion.")

    def __init__(
        self,
        num_classes: int,
        *,
        loss: str = "dsa",
        backbone: str = "resnet50",
        streams: Sequence[str] = STREAMS,
        branches: Sequence[str] = tuple(BRANCHES),
        fusion: str = "add",
        test_features: str = "f",
        width: float = 1.0,
        pretrained_head: bool = False,
    ) -> None:
        super().__init__()
        check_values(loss, backbone, streams, branches, fusion, test_features, width)
        check_combination(loss, streams, branches, fusion, test_features, pretrained_head)
        self.loss, self.test_features, self.pretrained_head = loss, test_features, pretrained_head
        self.streams = built_streams(streams, loss)
        self.branches = tuple(letter for name, letter in BRANCHES.items() if name in branches)
        self.training_inputs, self.test_inputs = self.declared_inputs(streams, test_features, loss)

        resnet = Backbone(backbone)
        layer3, channels = resnet.layer3_channels, resnet.layer4_channels
        main = self.branches if "MF" in self.streams else ()
        self.head = main_head(resnet, main, layer3, channels)
        self.backbone = resnet if main else NoBackbone()
        self.guiding_stream = (
            GuidingStream(channels, self.branches, width=width)
            if "DSAG" in self.streams
            else NoGuidingStream()
        )
        self.fusion = build_fusion(fusion, self.streams, channels, self.branches)
        self.f_classifiers, self.z_classifiers = nn.ModuleDict(), nn.ModuleDict()
        for name in main:
            self.f_classifiers[name] = classifier(channels, num_classes, parts=PART_COUNTS[name])
        for name in self.branches:
            self.z_classifiers[name] = classifier(channels, num_classes)
        one = test_features.removeprefix("z_")
        self.tested = (one,) if one in self.branches else self.branches
        self.feature_dim = channels * len(self.tested)

    @staticmethod
    def declared_inputs(
        streams: Sequence[str], test_features: str, loss: str
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The batch keys that a network with these options needs in addition to the image.

        Args:
            streams, test_features, loss: as in the constructor.
        Returns:
            `training_inputs` and `test_inputs`: ("textures",) or ().
        """
        training = ("textures",) if "DSAG" in built_streams(streams, loss) else ()
        return training, () if test_features == "f" else training

    def forward(
        self, images: Tensor, textures: Tensor | None = None, return_featuremaps: bool = False
    ) -> Tensor | DSAOutput | list[Tensor] | tuple[list[Tensor], list[Tensor]]:
        """Embed images, or compute the inputs of the losses.

        Args:
            images: float [B, 3, H, W], normalised.
            textures: float [B, 24, 3, S, S], normalised DSAP-images, S a multiple of 4; required
                if `training_inputs` or `test_inputs` names them, else not used.
            return_featuremaps: return the global branch's feature map float [B, C, H/16, W/16]
                instead, or the local branch's if there is no global one (for torchreid's activation
                map tool).
        Returns:
            In evaluation the raw embedding float [B, D]; in training the outputs for `loss`.
        Raises:
            ValueError: the textures are missing or have the wrong shape or dtype, or a feature map
                is requested of a network without the MF-Stream.
        """
        features, _ = self.backbone(images)  # F [B, 1024, H/16, W/16]
        if return_featuremaps:
            return self._feature_map(features)
        f = self.head(features)  # f_G, f_L
        if not self.training and self.test_features == "f":
            return torch.cat(list(f.values()), dim=1)
        d = self.guiding_stream(textures, len(images))  # d_G, d_L
        z = self.fusion(f, d)  # z_G, z_L
        if not self.training:
            return torch.cat([z[name] for name in self.tested], dim=1)
        f_logits = {name: layers(f[name]) for name, layers in self.f_classifiers.items()}
        z_logits = {name: layers(z[name]) for name, layers in self.z_classifiers.items()}
        return self._for_loss(DSAOutput(f_logits, z_logits, z))

    def imagenet_modules(self) -> ImageNetModules | None:
        """The modules that are initialised with ImageNet weights, under torchvision's names.

        Returns:
            The network's own modules, not copies: conv1 to layer3, and with `pretrained_head` the
            global head as layer4. None if there is no MF-Stream.
        """
        if not isinstance(self.backbone, Backbone):
            return None
        modules = dict(self.backbone.named_children())
        if self.pretrained_head:
            modules["layer4"] = self.head["G"]
        return ImageNetModules(self.backbone.name, modules)

    def _feature_map(self, features: Tensor | None) -> Tensor:
        if features is None:
            raise ValueError(
                "return_featuremaps: expected a network with the MF-Stream, got dsa.streams "
                f"{list(self.streams)}; build it with dsa.streams ['MF', 'DSAG']"
            )
        feature_map: Tensor = self.head[self.branches[0]](features)
        return feature_map

    def _for_loss(
        self, output: DSAOutput
    ) -> DSAOutput | list[Tensor] | tuple[list[Tensor], list[Tensor]]:
        if self.loss == "dsa":
            return output
        logits: list[Tensor] = []
        for branch in output.f_logits.values():
            logits += branch.unbind(1) if branch.ndim == 3 else [branch]
        logits += output.z_logits.values()
        return logits if self.loss == "softmax" else (logits, list(output.z.values()))
