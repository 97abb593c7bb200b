"""MagnifierNet's mask module M predicts regions and makes the masks for pooling (section 3.1).

Lan et al., "MagnifierNet: Towards Semantic Adversary and Fusion", BMVC 2020.
"""

from typing import cast

import torch
from torch import Tensor, nn

from magnifier_plugin.models.pooling import RESCALINGS, fill_unknown, region_masks, rescale_labels
from magnifier_plugin.regions import NUM_REGIONS

DECONVOLUTION_INITS = ("kaiming", "normal")


class SegmentationHead(nn.Module):
    """Region logits at twice the feature map's size (section 3.1; the head of Mask R-CNN).

    3 × 3 transposed convolution of stride 2 to 256 channels, batch norm, ReLU, 1 × 1 convolution.
    Kernel size and batch norm follow the authors' code; the paper only cites the head.

    Args:
        channels: width of the feature map.
        bias: give the transposed convolution a bias (the authors' code does not).
        deconvolution_init: initialisation of the transposed convolution: "kaiming" (He et al.,
            2015, as in Mask R-CNN) or "normal" (authors' code), a normal distribution with standard
            deviation 0.001.
    Raises:
        ValueError: deconvolution_init is unknown.
    """

    def __init__(
        self, channels: int, *, bias: bool = True, deconvolution_init: str = "kaiming"
    ) -> None:
        super().__init__()
        if deconvolution_init not in DECONVOLUTION_INITS:
            raise ValueError(
                "magnifier.deconvolution_init: expected one of "
                f"{', '.join(DECONVOLUTION_INITS)}; got {deconvolution_init!r}"
            )
        hidden = 256
        self.upsample = nn.ConvTranspose2d(
            channels, hidden, 3, stride=2, padding=1, output_padding=1, bias=bias
        )
        self.norm = nn.BatchNorm2d(hidden)
        self.relu = nn.ReLU(inplace=True)
        self.predict = nn.Conv2d(hidden, NUM_REGIONS, 1)
        if deconvolution_init == "kaiming":
            nn.init.kaiming_normal_(self.upsample.weight, mode="fan_out", nonlinearity="relu")
        else:
            nn.init.normal_(self.upsample.weight, std=0.001)
        nn.init.normal_(self.predict.weight, std=0.001)
        nn.init.zeros_(cast(Tensor, self.predict.bias))

    def forward(self, features: Tensor) -> Tensor:
        """Args: features: float [B, C, h, w]. Returns: logits [B, 8, 2h, 2w]."""
        logits: Tensor = self.predict(self.relu(self.norm(self.upsample(features))))
        return logits


class MaskModule(nn.Module):
    """M: predict the regions, and make the masks that the branches pool with (section 3.1).

    Args:
        channels: layer4's width.
        rescaling: how region maps are rescaled from 2h × 2w to h × w, see `region_masks`.
        bias: give the transposed convolution a bias (the authors' code does not).
        deconvolution_init: see `SegmentationHead`.
    Raises:
        ValueError: rescaling or deconvolution_init is unknown.
    """

    def __init__(
        self,
        channels: int,
        *,
        rescaling: str = "bilinear",
        bias: bool = True,
        deconvolution_init: str = "kaiming",
    ) -> None:
        super().__init__()
        if rescaling not in RESCALINGS:
            raise ValueError(
                f"magnifier.mask_rescaling: expected one of {', '.join(RESCALINGS)}; "
                f"got {rescaling!r}"
            )
        self.head = SegmentationHead(channels, bias=bias, deconvolution_init=deconvolution_init)
        self.rescaling = rescaling

    def forward(self, layer4: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Compute region logits and masks.

        The masks come from the label maps, as in training. Unknown pixels, and images without label
        maps, as at inference, use the arg-max of the head's logits.

        Args:
            layer4: float [B, C, h, w].
            labels: uint8 [B, H, W], region ids or 255; None for no label maps.
        Returns:
            Logits float [B, 8, 2h, 2w] and masks float [B, 8, h, w] in [0, 1].
        """
        logits = self.head(layer4)
        regions = logits.detach().argmax(dim=1).to(torch.uint8)
        if labels is not None:
            regions = fill_unknown(rescale_labels(labels, logits.shape[-2:]), regions)
        return logits, region_masks(regions, layer4.shape[-2:], self.rescaling, layer4.dtype)


class NoMaskModule(nn.Module):
    """The mask module of a network without M: no logits, no masks."""

    def forward(self, layer4: Tensor, labels: Tensor | None) -> tuple[None, None]:
        return None, None
