"""`labels.json`: how the label maps of a folder were made."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from magnifier_plugin.files import write_atomically
from magnifier_plugin.text_files import read_json

MANIFEST = "labels.json"
# Increased whenever the converter makes different label maps from the same annotations.
CONVERTER = 1


@dataclass(frozen=True)
class Manifest:
    """How the label maps of a folder were made; the content of its `labels.json`.

    Label maps of two label sets must not be mixed, nor used in a training that expects others.
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
        raise ValueError(f"{path}: damaged ({error!r}); convert the masks again") from error
    if not intact:
        raise ValueError(f"{path}: its checksum does not match its content; convert again")
    return manifest


def write_manifest(folder: str | os.PathLike[str], manifest: Manifest) -> None:
    """Writes `labels.json` into a data set's folder of label maps; makes the folder if missing."""
    text = json.dumps({**asdict(manifest), "checksum": manifest.checksum}) + "\n"
    with write_atomically(Path(folder, MANIFEST)) as part:
        part.write_text(text, encoding="utf-8")
