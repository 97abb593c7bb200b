"""Load state dicts, completely or as initial weights, and optimisers, with clear errors."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.optim import Optimizer

logger = logging.getLogger(__name__)


class Comparison(NamedTuple):
    """How a state dict differs from a model's."""

    missing: list[str]
    """Keys of the model that the state dict lacks."""
    unexpected: list[str]
    """Keys of the state dict that the model lacks."""
    reshaped: list[str]
    """Keys of both with different shapes."""

    def without(self, keys: set[str]) -> "Comparison":
        """This comparison without some keys."""
        return Comparison(*([key for key in part if key not in keys] for part in self))


def load_state(model: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Load a complete state dict.

    Args:
        model: the model; changed in place.
        state: a state dict of the same model with the same number of identities.
        origin: name of the state dict in errors, such as its path.
    Raises:
        ValueError: it belongs to another model or another number of identities; the message says
            how many tensors differ.
    """
    difference = compare(model, state)
    if any(difference):
        raise ValueError(_mismatch(model, state, origin, difference))
    model.load_state_dict(state)


class Loaded(NamedTuple):
    """The result of `load_matching`."""

    loaded: int
    """Number of loaded tensors."""
    untrained: int
    """Number of classifier tensors of the model that were not loaded."""
    unused: int
    """Number of tensors in the file that only training needs (`training_only_keys`)."""

    def __str__(self) -> str:
        return (
            f"{self.loaded} tensors loaded, {self.untrained} classifier tensors left untrained, "
            f"{self.unused} not used, since only training needs them"
        )


def load_matching(model: nn.Module, state: Mapping[str, Tensor], origin: str) -> Loaded:
    """Load initial weights: everything except classifiers for another set of identities.

    Keys that start with one of the model's `training_only_keys`, such as those of DSA-reID's
    guiding stream, may also be missing in the model.

    Args:
        model: the model; changed in place.
        state: a state dict of the same model.
        origin: name of the state dict in errors, such as its path.
    Raises:
        ValueError: other tensors do not match.
    """
    difference = compare(model, state)
    classifiers = {key for keys in difference for key in keys if "classifier" in key}
    prefixes: Sequence[str] = getattr(model, "training_only_keys", ())
    unused = {key for key in difference.unexpected if key.startswith(tuple(prefixes))}
    difference = difference.without(classifiers | unused)
    if any(difference):
        raise ValueError(_mismatch(model, state, origin, difference))
    own = model.state_dict()
    loaded = {key: value for key, value in state.items() if key in own and key not in classifiers}
    model.load_state_dict(own | loaded)
    return Loaded(len(loaded), len(own) - len(loaded), len(unused))


def load_optimizer(optimizer: Optimizer, state: Mapping[str, Any]) -> bool:
    """Load an optimiser's moments and step counts, but not its settings (lr, weight decay, …).

    Args:
        optimizer: the optimiser, with the current settings; changed in place.
        state: the result of an optimiser's `state_dict`.
    Returns:
        Whether it was loaded. A warning is logged if it was not, because it belongs to another kind
        of optimiser or to other parameter groups.
    """
    if [*map(_kind, optimizer.param_groups)] != [*map(_kind, state["param_groups"])]:
        logger.warning(
            "The checkpoint's optimiser is of another kind, or has other groups of parameters "
            "(train.optim, train.staged_lr, train.new_layers): the optimiser starts afresh"
        )
        return False
    # With the current settings: where torch puts Adam's `step` depends on `fused`.
    pairs = zip(optimizer.param_groups, state["param_groups"], strict=True)
    groups = [{**current, "params": saved["params"]} for current, saved in pairs]
    optimizer.load_state_dict({**state, "param_groups": groups})
    return True


def _kind(group: Mapping[str, Any]) -> tuple[object, ...]:
    """What a parameter group's state depends on: the number of tensors, and the kind of moments."""
    kind = {"betas", "alpha", "momentum"} & set(group)
    return len(group["params"]), kind, bool(group.get("momentum")), bool(group.get("amsgrad"))


def compare(model: nn.Module, state: Mapping[str, Tensor]) -> Comparison:
    """The differences between a model's state dict and another one."""
    own = model.state_dict()
    return Comparison(
        missing=[key for key in own if key not in state],
        unexpected=[key for key in state if key not in own],
        reshaped=[key for key in own if key in state and own[key].shape != state[key].shape],
    )


def _mismatch(
    model: nn.Module, state: Mapping[str, Tensor], origin: str, difference: Comparison
) -> str:
    missing, unexpected, reshaped = difference
    own = model.state_dict()
    parts = []
    if reshaped:
        key = reshaped[0]
        parts.append(
            f"{len(reshaped)} of another shape (such as {key}: {list(state[key].shape)} in the "
            f"file, {list(own[key].shape)} in the model)"
        )
    for keys, what in ((missing, "missing in the file"), (unexpected, "unknown to the model")):
        if keys:
            parts.append(f"{len(keys)} {what} (such as {keys[0]})")
    hint = "the file belongs to another model, or to other options"
    if reshaped and not missing and not unexpected and all("classifier" in k for k in reshaped):
        hint = (
            "the file was trained on another number of identities; model.load_weights takes all "
            "but the classifiers, model.resume needs the same training set"
        )
    return f"{origin}: expected the model's {len(own)} tensors, found {'; '.join(parts)}: {hint}"
