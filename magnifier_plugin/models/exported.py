"""The module that is exported: a network with optional normalisation of input and embedding."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from magnifier_plugin.data.pixels import ToImageTensor


class ExportedNetwork(nn.Module):
    """A network with optional normalisation of its input and of its embedding.

    Args:
        network: the network, in evaluation mode.
        pixels: normalises uint8 pixels; None if the input is already normalised.
        unit_length: scale embeddings to length 1.
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
            images: [B, 3, H, W], RGB: uint8 with `pixels`, else normalised float32.
        Returns:
            Embeddings float32 [B, D], and with M the region ids uint8 [B, 2⌈H/16⌉, 2⌈W/16⌉].
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
    """Whether a network predicts regions; False for torchreid's models, which do not declare it."""
    return bool(getattr(network, "predicts_regions", False))
