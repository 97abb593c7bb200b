"""Label sets: YAML files that map the classes of a human parser to the 8 regions.

name: mine
trunk: [coat]                              # the classes that limbs join; only needed for limbs
classes:
  0: {name: background, region: background}
  1: {name: coat, region: chest}
  2: {name: arm, limb: arm}
  3: {name: trousers, limb: legs}
  4: {name: shin, region: lower leg}
  5: {name: smoke, region: unknown}        # ignored by every loss
limbs:                                     # classes to be split into an upper and a lower half
  arm: {upper: upper arm, lower: lower arm, stubby: lower arm}
  legs: {upper: upper leg, lower: lower leg, extent: [shin]}   # shin keeps its own region, but is
                                           # counted when the middle of the limb is computed
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from magnifier_plugin.files import absolute_path
from magnifier_plugin.regions import REGIONS, UNKNOWN
from magnifier_plugin.text_files import read_yaml
from magnifier_plugin.wording import one_line

_FOLDER = Path(__file__).parent / "label_sets"
_UNKNOWN_NAME = "unknown"


@dataclass(frozen=True)
class Limb:
    """Classes that together form one limb, and the regions of its two halves."""

    classes: tuple[int, ...]
    """Class ids."""
    upper: int
    """The region of the half next to the trunk."""
    lower: int
    """The region of the other half."""
    stubby: int | None = None
    """The region of pieces that are too short to be split; None: all pixels are one limb, which is
    always split."""
    extent: tuple[int, ...] = ()
    """Ids of classes that count for the middle of the limb but keep their own region."""


@dataclass(frozen=True)
class LabelSet:
    """A parser's classes and their regions."""

    name: str
    """Its name in `labels.json`."""
    classes: Mapping[int, str]
    """Class id → name."""
    region_of: Mapping[int, int]
    """Class id → region, for classes that are not part of a limb."""
    trunk: tuple[int, ...]
    """Ids of the classes that limbs join."""
    limbs: tuple[Limb, ...]
    """The limbs that have to be split."""
    definition: Mapping[str, Any]
    """The file's content, from which the checksum is computed."""

    @cached_property
    def regions(self) -> np.ndarray:
        """uint8 [256]: the region of each class that is not part of a limb; 255 elsewhere."""
        table = np.full(256, UNKNOWN, dtype=np.uint8)
        for class_id, region in self.region_of.items():
            table[class_id] = region
        return table


def label_set_names() -> tuple[str, ...]:
    """The names of the label sets that come with the package."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))


def load_label_set(name: str | os.PathLike[str]) -> LabelSet:
    """Loads a label set by its name, or from a custom YAML file.

    Args:
        name: `lip`, `cihp`, `atr`, `pascal`, `sapiens`, or the path of a file that ends in `.yaml`.
    Raises:
        FileNotFoundError: there is no such file.
        ValueError: there is no such name, or the file is not a label set.
    """
    if str(name) in label_set_names():
        path = _FOLDER / f"{name}.yaml"
    elif Path(name).suffix in (".yaml", ".yml"):
        path = absolute_path(name)
    else:
        raise ValueError(
            f"label set {str(name)!r}, expected one of {', '.join(label_set_names())} or the path "
            "of a YAML file"
        )
    content = read_yaml(path)
    try:
        return _parse(content)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{path}: {one_line(error)}; a label set has the keys name and classes and, for limbs, "
            f"trunk and limbs, as in {_FOLDER / 'lip.yaml'}"
        ) from error


def _parse(content: Mapping[str, Any]) -> LabelSet:
    _refuse_unknown_keys(content, {"name", "classes", "trunk", "limbs"}, "at the top level")
    known = {"name", "region", "limb"}
    for class_id, entry in content["classes"].items():
        if not isinstance(class_id, int) or not 0 <= class_id < UNKNOWN:
            raise ValueError(f"class id {class_id!r}, expected 0..{UNKNOWN - 1}")
        _refuse_unknown_keys(entry, known, f"in class {class_id}")
        if ("region" in entry) == ("limb" in entry):
            raise ValueError(f"class {class_id}: expected either a region or a limb")
    classes = {class_id: str(entry["name"]) for class_id, entry in content["classes"].items()}
    limb_of = {i: entry["limb"] for i, entry in content["classes"].items() if "limb" in entry}
    limbs = {name: dict(limb) for name, limb in content.get("limbs", {}).items()}
    if set(limb_of.values()) != set(limbs):
        raise ValueError(
            f"the classes refer to the limbs {sorted(set(map(str, limb_of.values())))}, but "
            f"`limbs` defines {sorted(map(str, limbs))}"
        )
    return LabelSet(
        name=str(content["name"]),
        classes=classes,
        region_of={
            i: _region(entry["region"])
            for i, entry in content["classes"].items()
            if i not in limb_of
        },
        trunk=tuple(_class_id(classes, name, "trunk") for name in content.get("trunk", [])),
        limbs=tuple(
            _limb([i for i in classes if limb_of.get(i) == name], limb, classes)
            for name, limb in limbs.items()
        ),
        # The form that a JSON file gives back: its keys are strings.
        definition=json.loads(json.dumps(content)),
    )


def _limb(own: list[int], limb: Mapping[str, Any], classes: Mapping[int, str]) -> Limb:
    _refuse_unknown_keys(limb, {"upper", "lower", "stubby", "extent"}, "in a limb")
    stubby = _region(limb["stubby"]) if "stubby" in limb else None
    extent = tuple(_class_id(classes, name, "extent") for name in limb.get("extent", []))
    return Limb(tuple(own), _region(limb["upper"]), _region(limb["lower"]), stubby, extent)


def _class_id(classes: Mapping[int, str], name: str, where: str) -> int:
    ids = [class_id for class_id, known in classes.items() if known == name]
    if not ids:
        raise ValueError(f"{where}: no class has the name {name!r}")
    return ids[0]


def _region(name: str) -> int:
    if name == _UNKNOWN_NAME:
        return UNKNOWN
    if name not in REGIONS:
        raise ValueError(f"region {name!r}, expected one of {', '.join(REGIONS)} or unknown")
    return REGIONS.index(name)


def _refuse_unknown_keys(entry: Mapping[str, Any], known: set[str], where: str) -> None:
    unknown = set(entry) - known
    if unknown:
        raise ValueError(f"unknown keys {sorted(unknown)} {where}, expected {sorted(known)}")
