"""Add this package's models, data sets, engines and losses to torchreid's registries.

torchreid exists as the package in its repository and as a package on PyPI whose modules are one
level deeper. The attributes of `torchreid` are the same in both, and only these are used.
"""

import os
from collections.abc import Sequence
from functools import cache, partial
from types import ModuleType
from typing import Any

import torchreid
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from magnifier_plugin.catalogue.listed import register_source
from magnifier_plugin.catalogue.names import MASKED_SUFFIX, registered_datasets
from magnifier_plugin.catalogue.occluded import OCCLUDED_SETS
from magnifier_plugin.data.annotated import AnnotatedDataset
from magnifier_plugin.engine.engine import StagedEngine
from magnifier_plugin.engine.stages import Stage
from magnifier_plugin.losses.magnifier import SemanticDiversityLoss
from magnifier_plugin.losses.terms import Criterion
from magnifier_plugin.models.build import NAMES, build_model
from magnifier_plugin.synthetic.dataset import Synthetic
from magnifier_plugin.systems import SYSTEMS


def register() -> None:
    """Register everything that this package adds to torchreid; a second call changes nothing.

    These are the models; the data sets `synthetic` and `catalogue.occluded.OCCLUDED_SETS`; a data
    set `<name>_masked` for each image data set registered so far; for each row of
    `systems.SYSTEMS` its engine in `torchreid.engine` and its criterion in `torchreid.losses`; and
    `torchreid.losses.SemanticDiversityLoss`.

    Raises:
        RuntimeError: one of these names is already taken by something else.
    """
    for name in NAMES:
        _add(vars(torchreid.models)["__model_factory"], name, _Factory(build_model, name))
    datasets = registered_datasets()
    _add(datasets, "synthetic", Synthetic)
    for occluded in OCCLUDED_SETS:
        _add(datasets, occluded.name, occluded)
    for name in list(datasets):
        if not name.endswith(MASKED_SUFFIX):
            _add(datasets, name + MASKED_SUFFIX, _Factory(_open_masked, name))
    for name, system in SYSTEMS.items():
        _put(torchreid.engine, system.engine, _engine_of(name))
        _put(torchreid.losses, system.criterion.__name__, system.criterion)
    _put(torchreid.losses, SemanticDiversityLoss.__name__, SemanticDiversityLoss)


def register_dataset(name: str, path: str | os.PathLike[str]) -> None:
    """Register your own data set and `<name>_masked` in torchreid; a second call changes nothing.

    Args:
        name: letters, digits, _ and -.
        path: a CSV with the columns path, pid, camid and split, or a folder with train, query and
            gallery; see `catalogue/README.md`.
    Raises:
        FileNotFoundError: path does not exist.
        ValueError: the name has other characters or is taken. Errors in the content are raised when
            the data set is opened.
    """
    register_source(name, path)
    register()


def _open_masked(name: str, *, mode: str = "train", **options: Any) -> AnnotatedDataset:
    """A data set whose training samples include masks; an engine may declare other inputs."""
    return AnnotatedDataset(name, mode=mode, inputs=("mask",) * (mode == "train"), **options)


class _Factory(partial):
    """A partial function that equals another one with the same function and arguments."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Factory) and (self.func, self.args, self.keywords) == (
            other.func,
            other.args,
            other.keywords,
        )

    __hash__ = object.__hash__


@cache
def _engine_of(name: str) -> type[StagedEngine]:
    """`StagedEngine` with the criterion and the stages of a row of `SYSTEMS` as defaults."""

    class SystemEngine(StagedEngine):
        def __init__(
            self,
            datamanager: Any,
            model: nn.Module,
            optimizer: Optimizer | None = None,
            scheduler: LRScheduler | None = None,
            *,
            criterion: Criterion | None = None,
            stages: Sequence[Stage] | None = None,
            **options: Any,
        ) -> None:
            if stages is None and optimizer is None:
                stages = SYSTEMS[name].stages()
            if criterion is None:
                criterion = SYSTEMS[name].criterion()
            _check_outputs(name, model, criterion)
            super().__init__(
                *(datamanager, model, optimizer, scheduler),
                criterion=criterion,
                stages=stages,
                **options,
            )

    system = SYSTEMS[name]
    SystemEngine.__name__ = SystemEngine.__qualname__ = system.engine
    SystemEngine.__doc__ = (
        f"{StagedEngine.__doc__}\n    Defaults: criterion `{system.criterion.__name__}()`, "
        "the stages of the paper."
    )
    return SystemEngine


def _check_outputs(name: str, model: nn.Module, criterion: Criterion) -> None:
    """Reject a model built for another loss, such as torchreid's, with the system's criterion."""
    system = SYSTEMS[name]
    loss = getattr(model, "loss", None)  # of our networks and torchreid's, not of all others
    is_other = isinstance(loss, str) and loss != system.loss
    if is_other and type(criterion) is system.criterion:
        owners = (row.engine for row in SYSTEMS.values() if row.loss == loss)
        owner = next(owners, "torchreid's engines")
        raise ValueError(
            f"model: expected a network built for loss={system.loss!r}, found loss={loss!r}, whose "
            f"outputs are for {owner}; {system.engine} takes "
            f"magnifier_plugin.build_model({name!r}, num_classes)"
        )


def _add(registry: dict[str, Any], name: str, entry: Any) -> None:
    taken = registry.setdefault(name, entry)
    if taken != entry:
        _refuse(name, taken)


def _put(module: ModuleType, name: str, entry: Any) -> None:
    taken = vars(module).setdefault(name, entry)
    if taken is not entry:
        _refuse(f"{module.__name__}.{name}", taken)


def _refuse(name: str, taken: Any) -> None:
    raise RuntimeError(
        f"torchreid's name {name!r} is taken already, by {taken!r}; magnifier_plugin needs it. "
        "Import magnifier_plugin first, or register the other object under another name."
    )
