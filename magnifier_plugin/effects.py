"""Why a configuration key has no effect with the values of other keys."""

from collections.abc import Callable, Mapping

from yacs.config import CfgNode

from magnifier_plugin.models.backbone import WEIGHTS_VARIABLE, default_weights

Reason = Callable[[CfgNode], str]
"""Configuration → why a key has no effect with it; "" if it has, or if its value changes nothing
anyway, such as a backbone that the model's name includes too."""


def needs_branch(*branches: str) -> Reason:
    """For keys of some of MagnifierNet's branches: one of them must be built."""

    def reason(cfg: CfgNode) -> str:
        built = cfg.magnifier.branches
        if set(branches) & set(built):
            return ""
        return f"magnifier.branches {','.join(built)} builds no {' or '.join(branches)}"

    return reason


def needs_loss(loss: str, other: Reason = lambda cfg: "") -> Reason:
    """For keys of a system's criterion: `loss.name` must be the system's; then `other` holds."""

    def reason(cfg: CfgNode) -> str:
        if cfg.loss.name == loss:
            return other(cfg)
        return f"loss.name {cfg.loss.name} does not use it, {loss} does"

    return reason


def needs_other_loss(cfg: CfgNode) -> str:
    """For the weights of torchreid's losses, which DSA-reID's own loss replaces."""
    if cfg.loss.name != "dsa":
        return ""
    return "loss.name dsa uses dsa.weight_f, dsa.weight_z and dsa.weight_t instead"


def needs_guiding(cfg: CfgNode) -> str:
    """For keys of DSA-reID's DSAG-Stream."""
    if cfg.loss.name != "dsa":
        return f"loss.name {cfg.loss.name} builds no DSAG-Stream"
    streams = ",".join(cfg.dsa.streams)
    return "" if "DSAG" in cfg.dsa.streams else f"dsa.streams {streams} builds no DSAG-Stream"


def needs_dsa_branch(branch: str) -> Reason:
    """For loss terms of one of DSA-reID's branches."""

    def reason(cfg: CfgNode) -> str:
        if branch in cfg.dsa.branches:
            return ""
        return f"dsa.branches {','.join(cfg.dsa.branches)} builds no {branch} branch"

    return reason


def needs_main_stream(other: Reason = lambda cfg: "") -> Reason:
    """For keys of DSA-reID's MF-Stream: it must be built; then `other` holds."""

    def reason(cfg: CfgNode) -> str:
        if cfg.loss.name == "dsa" and "MF" not in cfg.dsa.streams:
            return f"dsa.streams {','.join(cfg.dsa.streams)} builds no MF-Stream"
        return other(cfg)

    return reason


def needs_unnamed_backbone(section: str) -> Reason:
    """For a section's `backbone`, which a model's name replaces (`magnifiernet_resnet18`)."""

    def reason(cfg: CfgNode) -> str:
        family, _, depth = cfg.model.name.partition("_resnet")
        if not depth or cfg[section].backbone == f"resnet{depth}":
            return ""
        return f"{cfg.model.name} has the backbone resnet{depth}; set model.name {family}"

    return reason


def needs_imagenet_head(cfg: CfgNode) -> str:
    """For `dsa.pretrained_head`."""
    return _loads_no_weights(cfg) if cfg.dsa.pretrained_head else ""


def _loads_no_weights(cfg: CfgNode) -> str:
    if not cfg.model.pretrained:
        return "model.pretrained False loads no ImageNet weights"
    if cfg.model.backbone_weights.lower() == "none":
        return "model.backbone_weights none loads no ImageNet weights"
    if not cfg.model.backbone_weights and default_weights().lower() == "none":
        return f"{WEIGHTS_VARIABLE}=none loads no ImageNet weights"
    return ""


def needs_pretrained(cfg: CfgNode) -> str:
    """For `model.backbone_weights`."""
    is_file = cfg.model.backbone_weights.lower() not in ("", "none")
    return _loads_no_weights(cfg) if is_file else ""


def _needs_own_backbone(cfg: CfgNode) -> str:
    """For `model.backbone_weights` with torchreid's models."""
    given = cfg.model.pretrained and cfg.model.backbone_weights
    return f"{cfg.model.name} is torchreid's, which loads its own ImageNet weights" * bool(given)


def _needs_triplets(key: str, in_effect: float | None) -> Reason:
    """For torchreid's keys of the triplet loss; `in_effect` is the value that softmax implies."""

    def reason(cfg: CfgNode) -> str:
        if cfg.loss.name != "softmax" or cfg.loss.triplet[key] == in_effect:
            return ""
        return "loss.name softmax is the cross entropy alone, with weight 1"

    return reason


NEEDS: Mapping[str, Reason] = {
    "model.backbone_weights": needs_pretrained,
    "loss.triplet.margin": _needs_triplets("margin", None),
    "loss.triplet.weight_t": _needs_triplets("weight_t", 0),
    "loss.triplet.weight_x": _needs_triplets("weight_x", 1),
}
"""Key → why it has no effect, for every model."""

TORCHREIDS_NEEDS: Mapping[str, Reason] = {"model.backbone_weights": _needs_own_backbone}
"""Key → why it has no effect, for torchreid's own models."""
