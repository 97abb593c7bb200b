"""torchvision's ResNets without the last down-sampling, and where their weights come from."""

import logging
import os
import pickle
from pathlib import Path
from urllib.error import URLError

import torch
import torchvision
from torch import Tensor, nn

logger = logging.getLogger(__name__)

BACKBONES = ("resnet18", "resnet34", "resnet50", "resnet101")
WEIGHTS_VARIABLE = "MAGNIFIER_BACKBONE_WEIGHTS"


class Backbone(nn.Module):
    """A ResNet up to layer4, whose stride is 1 (MagnifierNet, section 4.1).

    Names are torchvision's, so that its ImageNet weights load without renaming.

    Args:
        name: one of `BACKBONES`.
    Raises:
        ValueError: the name is none of them.
    """

    def __init__(self, name: str = "resnet50") -> None:
        super().__init__()
        if name not in BACKBONES:
            raise ValueError(f"backbone: expected one of {', '.join(BACKBONES)}, got {name!r}")
        resnet = getattr(torchvision.models, name)(weights=None)
        keep_resolution(resnet.layer4)
        for child in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
            setattr(self, child, getattr(resnet, child))
        self.name = name
        self.layer4_channels: int = resnet.fc.in_features
        self.layer3_channels: int = self.layer4_channels // 2

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features of two depths.

        Args:
            images: float [B, 3, H, W], normalised.
        Returns:
            layer3's [B, C, H/16, W/16] and layer4's [B, 2C, H/16, W/16]; C is 1024 for ResNet-50.
        """
        features = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        layer3 = self.layer3(self.layer2(self.layer1(features)))
        return layer3, self.layer4(layer3)


def keep_resolution(layer: nn.Sequential) -> None:
    """Set the stride of a ResNet stage's first block to 1."""
    block = layer[0]
    strided = block.conv2 if hasattr(block, "conv3") else block.conv1
    strided.stride = (1, 1)
    block.downsample[0].stride = (1, 1)


def load_backbone_weights(backbone: Backbone, weights: str | Path = "") -> None:
    """Load ImageNet weights into a backbone.

    Args:
        backbone: filled in place.
        weights: a file of torchvision's keys; "none" for none at all; "" for what the environment's
            MAGNIFIER_BACKBONE_WEIGHTS says (a file or `none`), and torchvision's download
            (IMAGENET1K_V1, the weights of the paper's time) if it says nothing.
    Raises:
        FileNotFoundError: the file is missing, or nothing could be downloaded.
        ValueError: the file holds no weights of this backbone.
    """
    weights = str(weights) or os.environ.get(WEIGHTS_VARIABLE, "")
    if weights.lower() == "none":
        return
    state = read_weights(Path(weights).expanduser()) if weights else download_weights(backbone.name)
    origin = weights or "torchvision's download"
    state = {key.removeprefix("module."): value for key, value in state.items()}
    expected = backbone.state_dict()
    wrong = [
        key
        for key, value in expected.items()
        if key not in state or state[key].shape != value.shape
    ]
    if wrong:
        raise ValueError(
            f"{origin}: expected the weights of torchvision's {backbone.name}, but "
            f"{len(wrong)} of {len(expected)} tensors are missing or of another shape, "
            f"the first: {wrong[0]}. Point model.backbone_weights to a file of that network, or "
            "choose the network with magnifier.backbone."
        )
    backbone.load_state_dict({key: state[key] for key in expected})
    logger.info("Backbone %s: %d tensors from %s", backbone.name, len(expected), origin)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file; nothing in the file is run."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: expected a file of backbone weights (model.backbone_weights, or the "
            f"environment's {WEIGHTS_VARIABLE}), found none"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ValueError(
            f"{path}: expected backbone weights that torch.load reads with weights_only=True; "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'empty file'}"
        ) from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(
            f"{path}: expected a dictionary of tensors, found {type(content).__name__}"
        )
    return state


def download_weights(name: str) -> dict[str, Tensor]:
    """torchvision's ImageNet weights of a network, from its cache or its server."""
    entry = torchvision.models.get_model_weights(name).IMAGENET1K_V1
    try:
        return entry.get_state_dict(progress=False, check_hash=True)
    except (URLError, OSError) as error:
        raise FileNotFoundError(
            f"ImageNet weights of {name} could not be downloaded from {entry.url} ({error}). "
            "Fetch that file elsewhere and point to it with `model.backbone_weights FILE` or the "
            f"environment's {WEIGHTS_VARIABLE}=FILE, or train without: `model.pretrained False` "
            f"or {WEIGHTS_VARIABLE}=none."
        ) from error
