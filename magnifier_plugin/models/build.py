"""Build models by name."""

from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from magnifier_plugin.models.backbone import BACKBONES, load_backbone_weights
from magnifier_plugin.models.dsa import DSAReID
from magnifier_plugin.models.magnifiernet import MagnifierNet


class ModelFamily(NamedTuple):
    """A model class, which is registered under one name per backbone."""

    network: type[MagnifierNet] | type[DSAReID]
    """Built by `network(num_classes, loss=..., backbone=..., **options)`. Its `imagenet_modules()`
    returns the module to load ImageNet weights into, or None."""
    loss: str
    """The model's own loss, used for `loss=None`."""


MODELS = {
    "magnifiernet": ModelFamily(MagnifierNet, "magnifier"),
    "dsa_reid": ModelFamily(DSAReID, "dsa"),
}
# torchreid passes no options, so each backbone needs its own name there.
NAMES = tuple(MODELS) + tuple(
    f"{model}_{backbone}" for model in MODELS for backbone in BACKBONES if backbone != "resnet50"
)


def build_model(
    name: str,
    num_classes: int,
    loss: str | None = None,
    pretrained: bool = True,
    use_gpu: bool = True,
    *,
    backbone_weights: str | Path = "",
    **options: Any,
) -> nn.Module:
    """Build a model of this package.

    Args:
        name: "magnifiernet" or "dsa_reid" (ResNet-50), or one of these with the suffix "_resnet18",
            "_resnet34" or "_resnet101".
        num_classes: number N of training identities.
        loss: decides what the model returns in training: "magnifier" or "dsa", the model's own
            loss, or torchreid's "softmax" or "triplet"; None for the model's own.
        pretrained: load ImageNet weights into the backbone.
        use_gpu: torchreid's argument, not used: the model is built on the CPU, the caller moves it.
        backbone_weights: see `load_backbone_weights`.
        options: keyword arguments of the model's constructor.
    Raises:
        KeyError: there is no such model.
        TypeError: the constructor has no such option.
        ValueError: the options contradict each other, or the weights do not fit.
        FileNotFoundError: the weights were not found and could not be downloaded.
    """
    if name not in NAMES:
        raise KeyError(f"Unknown model: {name!r}. Must be one of {', '.join(NAMES)}")
    family, _, depth = name.partition("_resnet")
    if depth:
        backbone = f"resnet{depth}"
        if options.setdefault("backbone", backbone) != backbone:
            raise ValueError(
                f"model.name: {name} has the backbone {backbone}, but the option backbone is "
                f"{options['backbone']!r}; leave one of them out"
            )
    network, own_loss = MODELS[family]
    model = network(num_classes, loss=own_loss if loss is None else loss, **options)
    modules = model.imagenet_modules()
    if pretrained and modules is not None:
        load_backbone_weights(modules, backbone_weights)
    return model
