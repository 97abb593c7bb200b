"""torchvision's ResNets without the last down-sampling, and the loading of their weights."""

import logging
import os
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from magnifier_plugin.files import torch_load_reason

logger = logging.getLogger(__name__)

BACKBONES = ("resnet18", "resnet34", "resnet50", "resnet101")
WEIGHTS_VARIABLE = "MAGNIFIER_BACKBONE_WEIGHTS"
BACKBONE_PREFIX = "backbone."  # of the backbone's keys in a network's state dict


class Backbone(nn.Module):
    """A ResNet up to layer4, whose stride is 1 (MagnifierNet, section 4.1).

    The state-dict keys are torchvision's, so that its ImageNet weights load without renaming.

    Args:
        name: one of `BACKBONES`.
        stem_relu: apply a ReLU after the first batch norm, as the network trained on ImageNet does;
            False as in the authors' code, whose trained weights need it.
    Raises:
        ValueError: the name is not one of `BACKBONES`.
    """

    conv1: nn.Module
    bn1: nn.Module
    relu: nn.Module
    maxpool: nn.Module
    layer1: nn.Module
    layer2: nn.Module
    layer3: nn.Module
    layer4: nn.Module

    def __init__(self, name: str = "resnet50", *, stem_relu: bool = True) -> None:
        super().__init__()
        if name not in BACKBONES:
            raise ValueError(f"backbone: expected one of {', '.join(BACKBONES)}, got {name!r}")
        resnet = getattr(torchvision.models, name)(weights=None)
        keep_resolution(resnet.layer4)
        for child in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
            setattr(self, child, getattr(resnet, child))
        if not stem_relu:
            self.relu = nn.Identity()
        self.name = name
        self.layer4_channels: int = resnet.fc.in_features
        self.layer3_channels: int = self.layer4_channels // 2

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Feature maps of layer3 and layer4.

        Args:
            images: float [B, 3, H, W], normalised.
        Returns:
            layer3's float [B, C, H/16, W/16] and layer4's float [B, 2C, H/16, W/16], where C is
            `layer3_channels`: 1024 for ResNet-50.
        """
        features = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        layer3 = self.layer3(self.layer2(self.layer1(features)))
        return layer3, self.layer4(layer3)


def keep_resolution(layer: nn.Sequential) -> None:
    """Set the stride of a ResNet stage's first block to 1."""
    block: Any = layer[0]
    strided = block.conv2 if hasattr(block, "conv3") else block.conv1
    strided.stride = (1, 1)
    block.downsample[0].stride = (1, 1)


def load_backbone_weights(backbone: nn.Module, weights: str | Path = "") -> None:
    """Load ImageNet weights into a backbone.

    Args:
        backbone: changed in place. Its state-dict keys are a subset of torchvision's, and its
            attribute `name` is the name of the torchvision network.
        weights: a file with torchvision's keys, or a checkpoint of MagnifierNet, from which the
            backbone is loaded, or of DSA-reID, which has no layer4 in its backbone and thus fits
            DSA-reID without `pretrained_head` only; "none" to load nothing; "" for the variable
            MAGNIFIER_BACKBONE_WEIGHTS (a file or `none`), or if that is not set, torchvision's
            download (IMAGENET1K_V1, the weights available when the papers were written).
    Raises:
        FileNotFoundError: the file is missing or could not be downloaded.
        ValueError: the file is damaged, contains more than tensors, or belongs to another network.
    """
    chosen = str(weights) or default_weights()
    if chosen.lower() == "none":
        if not str(weights):
            logger.warning(
                "Backbone %s: random weights, because %s is none; unset it for ImageNet weights",
                *(backbone.name, WEIGHTS_VARIABLE),
            )
        return
    path = Path(chosen).expanduser() if chosen else download_weights(str(backbone.name))
    expected = backbone.state_dict()
    # Files written before torch 0.4.1 have no num_batches_tracked.
    state = {key: value for key, value in expected.items() if key.endswith("num_batches_tracked")}
    state |= backbone_weights(read_weights(path))
    wrong = [
        key
        for key, value in expected.items()
        if key not in state or state[key].shape != value.shape or not state[key].isfinite().all()
    ]
    if wrong:
        raise ValueError(
            f"{path}: expected the weights of torchvision's {backbone.name}, but {len(wrong)} of "
            f"{len(expected)} tensors are missing, of another shape or not finite, the first: "
            f"{wrong[0]}. "
            "Point model.backbone_weights to a file of that network, or choose the file's "
            "network with magnifier.backbone (dsa.backbone)."
        )
    backbone.load_state_dict({key: state[key] for key in expected})
    logger.info("Backbone %s: %d tensors from %s", backbone.name, len(expected), path)


def default_weights() -> str:
    """The file of ImageNet weights that the environment names, "none", or "" for a download."""
    return os.environ.get(WEIGHTS_VARIABLE, "")


def backbone_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The backbone's weights under torchvision's keys, from a network's or a backbone's weights."""
    state = {key.removeprefix("module."): value for key, value in state.items()}
    own = {key: value for key, value in state.items() if key.startswith(BACKBONE_PREFIX)}
    return {key.removeprefix(BACKBONE_PREFIX): value for key, value in (own or state).items()}


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file; no code in the file is run.

    Args:
        path: a file with a dictionary of tensors, possibly as its entry `state_dict`.
    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or contains anything but dense real tensors by name.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: expected a file of backbone weights (model.backbone_weights, or the "
            f"environment variable {WEIGHTS_VARIABLE}), found none"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the type depends on where the damage is
        raise ValueError(
            f"{path}: expected backbone weights that torch.load reads with weights_only=True, got "
            f"{type(error).__name__}: {torch_load_reason(error)}. The file is damaged or holds "
            "more than tensors: replace it, or delete it if it was downloaded."
        ) from error
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(_is_weight(*item) for item in state.items()):
        raise ValueError(
            f"{path}: expected a dictionary of names and dense real tensors, found "
            f"other content ({type(state).__name__}); point model.backbone_weights to weights "
            "of torchvision"
        )
    return state


def _is_weight(key: object, value: object) -> bool:
    """Whether it fits into a network's state dict: real numbers, or a batch norm's batch count."""
    if not isinstance(key, str) or not isinstance(value, Tensor):
        return False
    number = value.is_floating_point() or value.dtype == torch.int64
    return number and value.layout == torch.strided and value.device.type == "cpu"


def download_weights(name: str) -> Path:
    """The path of torchvision's ImageNet weights in torch's cache, downloaded if missing.

    torchvision's own `get_state_dict` is not used, because it lets a file in the cache run code.

    Args:
        name: one of `BACKBONES`.
    Raises:
        FileNotFoundError: the file is not in the cache and could not be downloaded.
        ValueError: the downloaded file is damaged.
    """
    url: str = torchvision.models.get_model_weights(name).IMAGENET1K_V1.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if path.is_file():
        return path
    logger.info("Downloading %s to %s", url, path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The name ends with the first digits of the content's hash: resnet50-0676ba61.pth.
        digest = path.stem.rpartition("-")[2]
        torch.hub.download_url_to_file(url, str(path), hash_prefix=digest, progress=False)
    except (OSError, HTTPException) as error:
        raise FileNotFoundError(
            f"ImageNet weights of {name} could not be downloaded from {url} ({error}). "
            "Download that file elsewhere and point to it with `model.backbone_weights FILE` or "
            f"{WEIGHTS_VARIABLE}=FILE, or train without: `model.pretrained False` or "
            f"{WEIGHTS_VARIABLE}=none."
        ) from error
    except RuntimeError as error:  # wrong hash
        raise ValueError(f"{url}: the download is damaged ({error}); try again") from error
    return path
