"""`labels.json`: how the label maps of a folder were made."""

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from magnifier_plugin.catalogue.images import images_below
from magnifier_plugin.files import write_atomically
from magnifier_plugin.images import read_png
from magnifier_plugin.masks.label_maps import MODES
from magnifier_plugin.masks.paths import is_written
from magnifier_plugin.text_files import read_json

MANIFEST = "labels.json"
# Increased whenever the converter makes different label maps from the same annotations.
CONVERTER = 1
_REPAIR = "delete this file and convert again with --overwrite"


@dataclass(frozen=True)
class Manifest:
    """How the label maps of a folder were made; the content of its `labels.json`.

    Label maps of two label sets must not be mixed, nor used in a training run that expects others.
    """

    source: str
    """The annotator's kind, as in `scripts/convert_masks.py --source`."""
    label_set: str
    """The name of the table from the annotator's ids to the 8 regions."""
    definition: Mapping[str, Any]
    """That table, as plain JSON types."""
    converter: int = CONVERTER
    """The converter's version."""

    @property
    def checksum(self) -> str:
        """Hex digits; equal checksums mean equal label maps from the same annotations."""
        decisive = json.dumps([self.definition, self.converter], sort_keys=True)
        return hashlib.sha256(decisive.encode()).hexdigest()[:16]


def read_manifest(folder: str | os.PathLike[str]) -> Manifest | None:
    """Reads how the label maps of a data set were made.

    Args:
        folder: the data set's label maps, such as `mask_labels/market1501`.
    Returns:
        The manifest; None if there is no `labels.json`, as for label maps made by other means.
    Raises:
        ValueError: `labels.json` is damaged.
    """
    path = Path(folder, MANIFEST)
    if not path.is_file():
        return None
    try:
        known = read_json(path)
        manifest = Manifest(**{key: known[key] for key in Manifest.__dataclass_fields__})
        intact = known["checksum"] == manifest.checksum
    except (ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {str(error).removeprefix(f'{path}: ')}"
        raise ValueError(f"{path}: damaged ({reason}); {_REPAIR}") from error
    if not intact:
        raise ValueError(f"{path}: its checksum does not match its content; {_REPAIR}")
    return manifest


def write_manifest(folder: str | os.PathLike[str], manifest: Manifest) -> None:
    """Writes `labels.json` into a data set's folder of label maps; makes the folder if missing."""
    text = json.dumps({**asdict(manifest), "checksum": manifest.checksum}) + "\n"
    with write_atomically(Path(folder, MANIFEST)) as part:
        part.write_text(text, encoding="utf-8")


def ensure_manifest(out_dir: Path, ours: Manifest, replaced: Collection[Path]) -> None:
    """Writes `labels.json` unless it is up to date; refuses to mix two label sets in a folder.

    Args:
        out_dir: the data set's label maps.
        ours: how new label maps are made.
        replaced: the label maps in out_dir that will be replaced.
    Raises:
        ValueError: out_dir has label maps of another label set, or has, besides `replaced`, some of
            an unknown one.
    """
    theirs = read_manifest(out_dir)
    kept = _find_label_map(out_dir, replaced) if theirs is None else None
    if kept is not None:
        raise ValueError(
            f"{out_dir}: contains label maps, but no {MANIFEST} that says how they were made, and "
            f"{kept} would not be replaced; convert into another folder, replace all label maps "
            "(--overwrite), or remove those that are not replaced"
        )
    # Label maps that will be replaced count too: an interrupted conversion would mix the two sets.
    if (
        theirs is not None
        and theirs.checksum != ours.checksum
        and _find_label_map(out_dir, ()) is not None
    ):
        raise ValueError(
            f"{out_dir}: contains label maps of label set {theirs.label_set} ({theirs.checksum}), "
            f"the new ones would be of {ours.label_set} ({ours.checksum}); two label sets must not "
            "be mixed: convert into another folder, or remove these label maps first"
        )
    if theirs != ours:
        write_manifest(out_dir, ours)


def _find_label_map(folder: Path, replaced: Collection[Path]) -> Path | None:
    """A label map at any depth below a folder that is not one of `replaced`; None without one."""
    paths = (path for path in images_below(folder) if path.suffix == ".png")
    return next((path for path in paths if path not in replaced and _may_be_labels(path)), None)


def _may_be_labels(path: Path) -> bool:
    """Whether a PNG may be a label map, and not a photo or a sheet that a script drew."""
    try:
        return is_written(path) and read_png(path).mode in MODES
    except ValueError:  # damaged
        return True
