"""A MagnifierNet with a few thousand parameters, for tests that do not depend on its size."""

import pytest
import torch
from torch import nn

from magnifier_plugin import build_model


class TinyBackbone(nn.Module):
    """Stands in for a ResNet: two strided convolutions, 16 and 32 channels at 1/16."""

    layer3_channels, layer4_channels = 16, 32

    def __init__(self, name, *, stem_relu=True):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 16, stride=16)
        self.layer4 = nn.Conv2d(16, 32, 1)

    def forward(self, images):
        layer3 = self.conv1(images).relu()
        return layer3, self.layer4(layer3).relu()


def tiny_model(num_classes=3, loss="magnifier", **options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("magnifier_plugin.models.magnifiernet.Backbone", TinyBackbone)
        return build_model("magnifiernet", num_classes, loss, pretrained=False, **options)


def drawn(regions):
    """The result of `draw_kept_regions` for these region ids."""
    kept = torch.zeros(8, 1, 1)
    kept[list(regions)] = 1
    return kept
