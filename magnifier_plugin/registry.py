"""The one file that knows torchreid's registries.

torchreid exists as its repository's package and as a repackage on PyPI whose modules lie one level
deeper. Both offer the same attributes of `torchreid`, and only these are used.
"""

from functools import partial
from types import ModuleType
from typing import Any

import torchreid

from magnifier_plugin.catalogue.names import MASKED_SUFFIX, registered_datasets
from magnifier_plugin.data.annotated import masked
from magnifier_plugin.engine.engine import ImageMagnifierEngine
from magnifier_plugin.losses.magnifier import MagnifierCriterion, SemanticDiversityLoss
from magnifier_plugin.models.build import NAMES, build_model
from magnifier_plugin.synthetic.dataset import Synthetic


def register() -> None:
    """Add this package's names to torchreid's; a second call changes nothing.

    Models `magnifiernet…`, a data set `<name>_masked` for each image data set that torchreid knows
    by now, the data set `synthetic`, `torchreid.engine.ImageMagnifierEngine`, and
    `torchreid.losses.SemanticDiversityLoss` and `.MagnifierCriterion`.

    Raises:
        RuntimeError: one of these names is taken by something else.
    """
    for name in NAMES:
        _add(vars(torchreid.models)["__model_factory"], name, _Factory(build_model, name))
    datasets = registered_datasets()
    for name, cls in list(datasets.items()):
        if not name.endswith(MASKED_SUFFIX) and cls is not Synthetic:
            _add(datasets, name + MASKED_SUFFIX, masked(cls, name))
    _add(datasets, "synthetic", Synthetic)
    _put(torchreid.engine, ImageMagnifierEngine)
    _put(torchreid.losses, SemanticDiversityLoss)
    _put(torchreid.losses, MagnifierCriterion)


class _Factory(partial):
    """torchreid's four-argument model factory; equal to another one of the same model."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Factory) and self.args == other.args

    __hash__ = object.__hash__


def _add(registry: dict[str, Any], name: str, entry: Any) -> None:
    taken = registry.setdefault(name, entry)
    if taken != entry:
        _refuse(name, taken)


def _put(module: ModuleType, cls: type) -> None:
    taken = vars(module).setdefault(cls.__name__, cls)
    if taken is not cls:
        _refuse(f"{module.__name__}.{cls.__name__}", taken)


def _refuse(name: str, taken: Any) -> None:
    raise RuntimeError(
        f"torchreid's name {name!r} is taken already, by {taken!r}; magnifier_plugin needs it. "
        "Import magnifier_plugin first, or register the other one under another name."
    )
