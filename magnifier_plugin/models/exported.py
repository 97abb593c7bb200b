"""What an exported graph computes: a network, its input's normalisation, its embedding's length."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from magnifier_plugin.data.pixels import ToImageTensor


class ExportedNetwork(nn.Module):
    """What the graph computes: a network between its input and the form of its embedding.

    Args:
        network: in evaluation.
        pixels: normalises uint8 pixels; None for images that are normalised already.
        unit_length: embeddings of length 1, else raw.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self, network: nn.Module, pixels: ToImageTensor | None, *, unit_length: bool
    ) -> None:
        super().__init__()
        self.network: Any = network
        self.takes_pixels, self.unit_length = pixels is not None, unit_length
        if pixels:
            self.register_buffer("scale", pixels.scale)
            self.register_buffer("shift", pixels.shift)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Embed images.

        Args:
            images: [B, 3, H, W], RGB: uint8 with `pixels`, else float32, normalised.
        Returns:
            Embeddings float32 [B, D]; of a network with M its regions too, uint8 [B, H/8, W/8].
        """
        if self.takes_pixels:
            images = images.float() * self.scale + self.shift
        regions: tuple[Tensor, ...] = ()
        if predicts_regions(self.network):
            embedding, ids = self.network.embed_with_regions(images)
            regions = (ids.to(torch.uint8),)
        else:
            embedding = self.network(images)
        return (F.normalize(embedding) if self.unit_length else embedding, *regions)


def predicts_regions(network: nn.Module) -> bool:
    """Whether a network predicts regions; torchreid's models declare nothing."""
    return bool(getattr(network, "predicts_regions", False))
