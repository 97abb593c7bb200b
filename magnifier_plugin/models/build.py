"""Models by name."""

from pathlib import Path
from typing import Any

from torch import nn

from magnifier_plugin.models.backbone import BACKBONES, load_backbone_weights
from magnifier_plugin.models.magnifiernet import MagnifierNet

MODELS = {"magnifiernet": MagnifierNet}
# torchreid passes no options, so each backbone has a name of its own there.
NAMES = tuple(MODELS) + tuple(
    f"{model}_{backbone}" for model in MODELS for backbone in BACKBONES if backbone != "resnet50"
)


def build_model(
    name: str,
    num_classes: int,
    loss: str = "magnifier",
    pretrained: bool = True,
    use_gpu: bool = True,
    *,
    backbone_weights: str | Path = "",
    **options: Any,
) -> nn.Module:
    """Build a model of this package.

    Args:
        name: "magnifiernet", or "magnifiernet_resnet18", "_resnet34", "_resnet101".
        num_classes: number N of training identities.
        loss: what the model returns in training: "magnifier", or torchreid's "softmax", "triplet".
        pretrained: load ImageNet weights into the backbone.
        use_gpu: torchreid's argument; the model is built on the CPU and the caller moves it.
        backbone_weights: a file of torchvision's keys, or "none"; "" for the environment's
            MAGNIFIER_BACKBONE_WEIGHTS, and without that torchvision's download.
        options: keyword arguments of the model's constructor.
    Raises:
        KeyError: no model has that name.
        TypeError: the constructor knows no such option.
        ValueError: the options do not go together, or the weights do not fit.
        FileNotFoundError: there are no weights.
    """
    if name not in NAMES:
        raise KeyError(f"Unknown model: {name!r}. Must be one of {', '.join(NAMES)}")
    family, _, backbone = name.partition("_resnet")
    if backbone:
        options = {"backbone": f"resnet{backbone}", **options}
    model = MODELS[family](num_classes, loss=loss, **options)
    if pretrained:
        load_backbone_weights(model.backbone, backbone_weights)
    return model
