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
# Increased when the converter makes other label maps of the same annotations than before.
CONVERTER = 1


@dataclass(frozen=True)
class Manifest:
    """How the label maps of a folder were made; the content of its `labels.json`.

    Label maps of two tables must not be mixed, nor trained on where others are expected.
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
        """Hex digits; two label sets with the same one give the same label maps."""
        decisive = json.dumps([self.definition, self.converter], sort_keys=True)
        return hashlib.sha256(decisive.encode()).hexdigest()[:16]


def read_manifest(folder: str | os.PathLike[str]) -> Manifest | None:
    """How the label maps below a data set's folder of label maps were made.

    Args:
        folder: such as `mask_labels/market1501`.
    Returns:
        The manifest, or None if there is none: the label maps were made in another way.
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
        raise ValueError(f"{path}: its checksum is not that of its content; convert again")
    return manifest


def write_manifest(folder: str | os.PathLike[str], manifest: Manifest) -> None:
    """Writes `labels.json` into a data set's folder of label maps, which is made if missing."""
    text = json.dumps({**asdict(manifest), "checksum": manifest.checksum}) + "\n"
    with write_atomically(Path(folder, MANIFEST)) as part:
        part.write_text(text, encoding="utf-8")
