"""MagnifierNet (Lan et al., "MagnifierNet: Towards Semantic Adversary and Fusion", BMVC 2020)."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from magnifier_plugin.models.backbone import Backbone
from magnifier_plugin.models.branches import (
    Branch,
    BranchOutput,
    GlobalBranch,
    SemanticAdversarialBranch,
    SemanticFusionBranch,
)
from magnifier_plugin.models.magnifier_options import (
    BRANCHES,
    check_options,
    warn_no_masks_are_learnt,
)
from magnifier_plugin.models.mask_module import MaskModule, NoMaskModule


class MagnifierOutput(NamedTuple):
    """The outputs of MagnifierNet in training with `loss="magnifier"`."""

    branches: dict[str, BranchOutput]
    """One entry for each of "G", "SAB", "SFB" that the network has, in that order."""
    mask_logits: Tensor | None
    """float [B, 8, 2h, 2w], region logits; None without M."""

    @property
    def embedding(self) -> Tensor:
        """The branches' embeddings after their BNNecks, concatenated: float [B, D]."""
        return torch.cat([branch.embedding for branch in self.branches.values()], dim=1)


class RegionDescription(NamedTuple):
    """The regions of images as the network predicts them, and their features."""

    labels: Tensor
    """int64 [B, 2⌈H/16⌉, 2⌈W/16⌉], region ids predicted by M."""
    features: Tensor | None
    """float32 [B, 8, C], SFB's pooled regions p(x_k) (Eq. 1) in id order, zeros for a region that
    is absent; None without SFB."""


class MagnifierNet(nn.Module):
    """Global, Semantic Adversarial and Semantic Fusion Branch on one backbone (Fig. 1).

    With ResNet-50 the embedding has 2048 + 1024 + 1024 = 4096 dimensions. The state-dict keys do
    not depend on `loss`. In addition to the image, the network takes the batch keys
    `training_inputs` in training and `test_inputs` in evaluation (see `declared_inputs`).

    Args:
        num_classes: number N of training identities.
        loss: decides what `forward` returns in training: a `MagnifierOutput` for "magnifier", what
            torchreid's engines expect (lists over the branches) for "softmax" and "triplet".
        backbone: name of a torchvision ResNet, one of `BACKBONES`.
        branches: which of G, M, SAB, SFB to build, as in the rows of the paper's Table 2.
        sampling: SAB's sampling, "torso" or "baseline".
        keep: K̂, number of body regions that SAB keeps.
        fusion: SFB's fusion, "gru" or "lstm" (authors' code); for the ablation branch AB "concat"
            or "concat-reduced" (authors' code), see `SemanticFusionBranch`.
        mask_rescaling: "bilinear" (paper), "nearest" or "nearest-corner" (authors' code).
        authors_bias: biases as in the authors' code: SAB's reduction, AB's reductions and the
            transposed convolution of M have none, the classifiers have one.
        stem_relu: ReLU after the backbone's first batch norm; the authors' code has none.
        deconvolution_init: initialisation of M's transposed convolution, "kaiming" or "normal"
            (authors' code), see `SegmentationHead`.
    Raises:
        ValueError: an unknown name, or options that contradict each other.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        loss: str = "magnifier",
        backbone: str = "resnet50",
        branches: Sequence[str] = BRANCHES,
        sampling: str = "torso",
        keep: int = 4,
        fusion: str = "gru",
        mask_rescaling: str = "bilinear",
        authors_bias: bool = False,
        stem_relu: bool = True,
        deconvolution_init: str = "kaiming",
    ) -> None:
        super().__init__()
        check_options(loss, branches)
        self.training_inputs, self.test_inputs = self.declared_inputs(branches, loss)
        self.backbone = Backbone(backbone, stem_relu=stem_relu)
        layer3, layer4 = self.backbone.layer3_channels, self.backbone.layer4_channels
        self.mask_module: nn.Module = NoMaskModule()
        if "M" in branches:
            self.mask_module = MaskModule(
                layer4,
                rescaling=mask_rescaling,
                bias=not authors_bias,
                deconvolution_init=deconvolution_init,
            )
        built: dict[str, GlobalBranch | SemanticAdversarialBranch | SemanticFusionBranch] = {}
        if "G" in branches:
            built["G"] = GlobalBranch(layer4, num_classes, bias=authors_bias)
        if "SAB" in branches:
            built["SAB"] = SemanticAdversarialBranch(
                layer3, num_classes, sampling=sampling, keep=keep, authors_bias=authors_bias
            )
        if "SFB" in branches:
            built["SFB"] = SemanticFusionBranch(
                layer3, num_classes, fusion=fusion, authors_bias=authors_bias
            )
        self.loss, self.branches = loss, nn.ModuleDict(built)
        self.feature_dim = sum(branch.embedding_size for branch in built.values())

    @staticmethod
    def declared_inputs(
        branches: Sequence[str], loss: str
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The batch keys that a network with these options needs in addition to the image.

        Args:
            branches, loss: as in the constructor.
        Returns:
            `training_inputs`, ("mask",) if M learns from label maps, else (); and `test_inputs`,
            always ().
        """
        return (("mask",) if "M" in branches and loss == "magnifier" else ()), ()

    def forward(
        self, images: Tensor, mask: Tensor | None = None, return_featuremaps: bool = False
    ) -> Tensor | MagnifierOutput | list[Tensor] | tuple[list[Tensor], list[Tensor]]:
        """Embed images, or compute the inputs of the losses.

        Args:
            images: float [B, 3, H, W], normalised.
            mask: training only: label maps uint8 [B, H, W], region ids or 255; without them the
                branches pool with the segmentation head's prediction.
            return_featuremaps: return layer4's feature map float [B, 2C, H/16, W/16] instead (for
                torchreid's activation map tool).
        Returns:
            In evaluation the raw embedding float [B, D]; in training the outputs for `loss`.
        """
        features: tuple[Tensor, Tensor] = self.backbone(images)
        layer3, layer4 = features
        if return_featuremaps:
            return layer4
        output = self._compute_outputs(layer3, layer4, mask)
        return self._for_loss(output) if self.training else output.embedding

    def _compute_outputs(
        self, layer3: Tensor, layer4: Tensor, mask: Tensor | None
    ) -> MagnifierOutput:
        mask_logits, regions = self.mask_module(layer4, mask if self.training else None)
        # The network's own mode: torchreid puts frozen children into evaluation mode (open_layers).
        outputs = {
            name: branch(layer3, layer4, regions, training=self.training)
            for name, branch in self.branches.items()
        }
        return MagnifierOutput(outputs, mask_logits)

    @property
    def predicts_regions(self) -> bool:
        """Whether the network has M."""
        return isinstance(self.mask_module, MaskModule)

    def predict_regions(self, images: Tensor) -> Tensor:
        """Predict regions with the segmentation head.

        Args:
            images: float [B, 3, H, W], normalised.
        Returns:
            int64 [B, 2⌈H/16⌉, 2⌈W/16⌉], region ids.
        Raises:
            ValueError: the network has no M.
        """
        logits: Tensor = self._require_mask_module().head(self.backbone(images)[1])
        return logits.argmax(dim=1)

    def embed_with_regions(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute embedding and predicted regions in one pass; for a network in evaluation mode.

        Args:
            images: float [B, 3, H, W], normalised.
        Returns:
            The raw embedding float [B, D] and int64 [B, 2⌈H/16⌉, 2⌈W/16⌉], region ids.
        Raises:
            ValueError: the network has no M.
        """
        self._require_mask_module()
        layer3, layer4 = self.backbone(images)
        output = self._compute_outputs(layer3, layer4, None)
        return output.embedding, cast(Tensor, output.mask_logits).argmax(dim=1)

    def describe_regions(self, images: Tensor) -> RegionDescription:
        """The predicted regions and their features, for comparing two images region by region.

        Args:
            images: float [B, 3, H, W], normalised; the network is in evaluation mode.
        Raises:
            ValueError: the network has no M.
        """
        mask_module = self._require_mask_module()
        layer3, layer4 = self.backbone(images)
        logits, masks = mask_module(layer4, None)
        features = None
        if "SFB" in self.branches:
            fusion = cast(SemanticFusionBranch, self.branches["SFB"])
            features = fusion.pool(layer3, masks).float()
        return RegionDescription(logits.argmax(dim=1), features)

    def _require_mask_module(self) -> MaskModule:
        if not isinstance(self.mask_module, MaskModule):
            raise ValueError(
                "magnifier.branches: regions are predicted by M, and this network has none"
            )
        return self.mask_module

    def branch_features(self, images: Tensor) -> dict[str, Tensor]:
        """Branch → the feature map that it pools, float [B, C, H/16, W/16]; G's has 2C channels.

        Args:
            images: float [B, 3, H, W], normalised.
        """
        layer3, layer4 = self.backbone(images)
        branches = cast(Mapping[str, Branch], self.branches)
        return {name: branch.feature_map(layer3, layer4) for name, branch in branches.items()}

    def embedding_sizes(self) -> dict[str, int]:
        """Branch → number of its dimensions in the embedding, in order."""
        branches = cast(Mapping[str, Branch], self.branches)
        return {name: branch.embedding_size for name, branch in branches.items()}

    def imagenet_modules(self) -> Backbone:
        """The module that is initialised with ImageNet weights, under torchvision's names."""
        return self.backbone

    def _for_loss(
        self, output: MagnifierOutput
    ) -> MagnifierOutput | list[Tensor] | tuple[list[Tensor], list[Tensor]]:
        if self.loss == "magnifier":
            return output
        if output.mask_logits is not None:
            warn_no_masks_are_learnt()
        logits = [branch.logits for branch in output.branches.values()]
        if self.loss == "softmax":
            return logits
        return logits, [branch.feature for branch in output.branches.values()]
