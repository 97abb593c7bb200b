"""Models by name."""

from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from magnifier_plugin.models.backbone import BACKBONES, load_backbone_weights
from magnifier_plugin.models.dsa import DSAReID
from magnifier_plugin.models.magnifiernet import MagnifierNet


class ModelFamily(NamedTuple):
    """A model class; each of its backbones has a name of its own."""

    network: type[MagnifierNet] | type[DSAReID]
    """Built as `network(num_classes, loss=..., backbone=..., **options)`. Its `imagenet_modules()`
    returns the module to load ImageNet weights into, None for none."""
    loss: str
    """The model's own loss, the value of `loss=None`."""


MODELS = {
    "magnifiernet": ModelFamily(MagnifierNet, "magnifier"),
    "dsa_reid": ModelFamily(DSAReID, "dsa"),
}
# torchreid passes no options, so each backbone has a name of its own there.
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
        name: "magnifiernet", or "magnifiernet_resnet18", "_resnet34", "_resnet101".
        num_classes: number N of training identities.
        loss: what the model returns in training: its own loss ("magnifier") or torchreid's
            "softmax", "triplet"; None for its own.
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
