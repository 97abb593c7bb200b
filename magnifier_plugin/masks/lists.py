"""Lists of the images that a conversion could not convert or whose person is ambiguous.

An entry is the image's path in the data set, so that the lists of several runs, each on another
folder of images, can be merged. Backslashes, tabs and line breaks in it are escaped, because a tab
separates the reason and a line break the entries.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from magnifier_plugin.files import write_atomically
from magnifier_plugin.masks.conversion import ConversionSummary

_TEXT = {"encoding": "utf-8", "errors": "surrogateescape"}  # file names may be invalid Unicode
_ESCAPES = {"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"}
_CHARACTERS = {escape: character for character, escape in _ESCAPES.items()}


def inside(image: Path, dataset_dir: Path) -> str:
    """An image's path relative to the data set's own folder."""
    return str(image.relative_to(dataset_dir))


def write_lists(
    summary: ConversionSummary, out_dir: Path, dataset_dir: Path, *, iuv_only: bool = False
) -> dict[str, Path]:
    """Writes the lists of missing, failed and ambiguous images.

    Entries of earlier runs are kept for images that this run did not look at; those of ambiguous
    images also for images whose files it left as they are.

    Args:
        summary: the conversion's result.
        out_dir: the folder to write to, that of the label maps.
        dataset_dir: the data set's own folder.
        iuv_only: whether no label maps were written. Such a conversion has its own three lists,
            because those of the label maps in the same folder remain valid.
    Returns:
        `missing`, `failed` and `ambiguous` → path of the list.
    Raises:
        OSError: a list cannot be read or written.
    """
    changed = [*summary.read, *summary.removed]
    prefix = "iuv_" if iuv_only else ""
    paths = {name: out_dir / f"{prefix}{name}.txt" for name in ("missing", "failed", "ambiguous")}
    missing = dict.fromkeys(summary.missing, "")
    for name, reasons, replaced in (
        ("missing", missing, summary.images),
        ("failed", summary.failures, summary.images),
        ("ambiguous", summary.ambiguous, changed),
    ):
        kept = _earlier(paths[name], {inside(image, dataset_dir) for image in replaced})
        entries = {
            inside(image, dataset_dir): " ".join(reason.split())
            for image, reason in reasons.items()
        }
        _write(paths[name], kept | entries)
    return paths


def _earlier(path: Path, replaced: Collection[str]) -> dict[str, str]:
    """The entries of an existing list, except for these images: image → reason, which may be ""."""
    lines = path.read_text(**_TEXT).split("\n") if path.is_file() else []
    entries = (line.partition("\t") for line in lines if line)
    found = {_unescape(image): reason for image, _, reason in entries}
    return {image: reason for image, reason in found.items() if image not in replaced}


def _write(path: Path, entries: Mapping[str, str]) -> None:
    names = {image: _escape(image) for image in sorted(entries)}
    lines = (f"{names[i]}\t{entries[i]}" if entries[i] else names[i] for i in names)
    with write_atomically(path) as part:
        part.write_text("".join(f"{line}\n" for line in lines), **_TEXT)


def _escape(image: str) -> str:
    return "".join(_ESCAPES.get(character, character) for character in image)


def _unescape(image: str) -> str:
    """The inverse of `_escape`; other backslashes, as in lists of earlier versions, are kept."""
    return re.sub(r"\\[\\tnr]", lambda found: _CHARACTERS[found[0]], image)
