"""Loading state dicts, whole or as weights to start from, and optimisers, with clear errors."""

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
    """Keys that the model does not have."""
    reshaped: list[str]
    """Keys of both whose shapes differ."""

    def without(self, keys: set[str]) -> "Comparison":
        """The differences in other keys."""
        return Comparison(*([key for key in part if key not in keys] for part in self))


def load_state(model: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Load a state dict whole.

    Args:
        model: filled in place.
        state: of the same model with the same number of identities.
        origin: what errors call the state dict, such as its path.
    Raises:
        ValueError: another model or another number of identities; says how many tensors differ.
    """
    difference = compare(model, state)
    if any(difference):
        raise ValueError(_mismatch(model, state, origin, difference))
    model.load_state_dict(state)


class Loaded(NamedTuple):
    """What `load_matching` did."""

    loaded: int
    """Tensors that were loaded."""
    untrained: int
    """Classifier tensors of the model that stay as they are."""
    unused: int
    """Tensors of the file that only training needs (`training_only_keys`)."""

    def __str__(self) -> str:
        return (
            f"{self.loaded} tensors loaded, {self.untrained} classifier tensors left untrained, "
            f"{self.unused} of training only not used"
        )


def load_matching(model: nn.Module, state: Mapping[str, Tensor], origin: str) -> Loaded:
    """Load weights to start from: all but the classifiers of another set of identities.

    A model whose class names `training_only_keys` (prefixes of keys, such as DSA-reID's guiding
    stream) and that was built without them takes a file that has them.

    Args:
        model: filled in place.
        state: of the same model.
        origin: what errors call the state dict, such as its path.
    Raises:
        ValueError: anything else does not match.
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
    """Load an optimiser's moments and step counts; its settings (lr, weight decay, …) stay.

    Args:
        optimizer: as it is configured now.
        state: of an optimiser's `state_dict`.
    Returns:
        Whether it was loaded. Another kind of optimiser, or other parameter groups, are logged as
        a warning.
    """
    if [*map(_kind, optimizer.param_groups)] != [*map(_kind, state["param_groups"])]:
        logger.warning(
            "The checkpoint's optimiser is of another kind, or has other groups of parameters "
            "(train.optim, train.staged_lr, train.new_layers): the optimiser starts afresh"
        )
        return False
    settings = [
        {key: value for key, value in group.items() if key != "params"}
        for group in optimizer.param_groups
    ]
    optimizer.load_state_dict(dict(state))
    for group, kept in zip(optimizer.param_groups, settings, strict=True):
        group.update(kept)
    return True


def _kind(group: Mapping[str, Any]) -> tuple[object, ...]:
    """What the state of a parameter group depends on: its size, and the moments that are kept."""
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
    hint = "the file is of another model, or of other options"
    if reshaped and not missing and not unexpected and all("classifier" in k for k in reshaped):
        hint = (
            "the file was trained on another number of identities; model.load_weights takes all "
            "but the classifiers, model.resume needs the same training set"
        )
    return f"{origin}: of the model's {len(own)} tensors, {'; '.join(parts)}: {hint}"
