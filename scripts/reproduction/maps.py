"""Variants of label maps and IUV for rows: eroded, dilated, some missing, or from keypoints.

They are made once, from the maps of the training images, in `<folder>/<variant>/<data set>/…`, and
used through `masks.dir <folder>/<variant>`, also for the rendered data set.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from magnifier_plugin.annotators.keypoints import KeypointSource
from magnifier_plugin.config import ConfigError
from magnifier_plugin.data.annotated import AnnotatedDataset
from magnifier_plugin.files import write_atomically
from magnifier_plugin.masks.checking import manifest_folder
from magnifier_plugin.masks.conversion import convert
from magnifier_plugin.masks.degradation import dilate, erode, scaled_radius
from magnifier_plugin.masks.label_maps import read_labels, write_labels
from magnifier_plugin.masks.manifest import MANIFEST
from magnifier_plugin.masks.paths import iuv_path, label_path
from magnifier_plugin.text_files import read_json
from magnifier_plugin.workers import on_all_cores
from reproduction.settings import RENDERED

MADE = "made.json"
PIXELS = 2  # radius of erosion and dilation at 256 × 128


@dataclass(frozen=True)
class Variant:
    """How a variant differs from the data set's own maps."""

    change: Callable[[np.ndarray, float], np.ndarray] | None = None
    """Label map, radius → label map; IUV are then not copied. None: maps are copied unchanged."""
    missing: float = 0.0
    """Share of the training images without label map and IUV, 0..1."""
    drawn: bool = False
    """Whether label maps are drawn from the data set's keypoints, not made from its own maps."""


KEYPOINTS = "keypoints"
VARIANTS = {
    "eroded": Variant(erode),
    "dilated": Variant(dilate),
    "missing-30": Variant(missing=0.3),
    "missing-70": Variant(missing=0.7),
    "missing-100": Variant(missing=1.0),
    KEYPOINTS: Variant(drawn=True),
}


class _Task(NamedTuple):
    """One map to write."""

    source: Path
    target: Path
    variant: Variant


def make_maps(dataset: AnnotatedDataset, folder: Path, name: str) -> None:
    """Make a variant of the maps of a training set, unless it is complete.

    Args:
        dataset: the training set, with its own maps.
        folder: folder of the variant.
        name: a key of `VARIANTS`.
    Raises:
        ConfigError: the existing maps in `folder` were made from other maps, or the data set has no
            keypoints.
        ValueError: the keypoints cannot be read.
        OSError: a file cannot be written.
    """
    drawn = VARIANTS[name].drawn
    if drawn and not without_drawn_maps(folder, [own.name for own, _ in dataset.parts]):
        return
    tasks, folders = ([], []) if drawn else _tasks(dataset, folder, VARIANTS[name])
    sources = [(_keypoints_file(dataset), folder)] if drawn else [task[:2] for task in tasks]
    fingerprint = _fingerprint(sources, folder)
    made = folder / MADE
    before = read_json(made)["fingerprint"] if made.is_file() else None
    if before is not None:
        if before != fingerprint:
            raise ConfigError(
                f"{folder}: its maps were made from other maps than {dataset.name} has now; choose "
                "another --out, so that their results are not mixed"
            )
        return
    _mark(made, name, None)  # an interrupted call leaves maps that are known to be incomplete
    if drawn:
        _draw(dataset, folder)
    for _ in on_all_cores(_write, tasks):
        pass
    for own, maps in folders:
        maps.mkdir(parents=True, exist_ok=True)  # also where every map is missing
        if own:
            shutil.copyfile(own / MANIFEST, maps / MANIFEST)
    _mark(made, name, fingerprint)


def _fingerprint(sources: Sequence[tuple[Path, Path]], folder: Path) -> str:
    """A digest of files' content and of the places in `folder` that are written from them.

    It does not depend on paths and times: a data set may be moved, or rendered again.
    """
    digest = hashlib.blake2b(digest_size=16)
    for source, target in sources:
        content = hashlib.blake2b(source.read_bytes()).digest()
        digest.update(os.fsencode(target.relative_to(folder)) + b"\0" + content)
    return digest.hexdigest()


def _mark(made: Path, name: str, fingerprint: str | None) -> None:
    """Write that a variant's maps are ours; without a fingerprint, that they are unfinished."""
    with write_atomically(made) as part:
        part.write_text(json.dumps({"variant": name, "fingerprint": fingerprint}) + "\n")


def without_drawn_maps(folder: Path, names: Iterable[str]) -> list[str]:
    """The data sets for which no user put label maps from keypoints into the variant's folder."""
    if (folder / MADE).is_file():
        return list(names)
    return [name for name in names if not (folder / name / MANIFEST).is_file()]


def _keypoints_file(dataset: AnnotatedDataset) -> Path:
    if dataset.keypoints_file is not None:
        return dataset.keypoints_file
    if dataset.name == RENDERED:
        raise ConfigError(
            f"{dataset.name}: has no keypoints, because an earlier version rendered it; remove "
            f"{dataset.dataset_dir.parent} to render it again"
        )
    raise ConfigError(
        f"{dataset.name}: expected keypoints or label maps made from them, found neither; leave "
        'out the row "made from keypoints"'
    )


def _draw(dataset: AnnotatedDataset, folder: Path) -> None:
    """Draw the label maps of the training images from the data set's keypoints."""
    source = KeypointSource(_keypoints_file(dataset))
    for annotations, images in dataset.parts:
        summary = convert(
            source,
            annotations.dataset_dir,
            folder / annotations.name,
            dataset_dir=annotations.dataset_dir,
            images=[Path(image) for image in images],
            overwrite=True,
        )
        for image, reason in summary.failures.items():
            raise ValueError(f"{image}: {reason}")


def _tasks(
    dataset: AnnotatedDataset, folder: Path, variant: Variant
) -> tuple[list[_Task], list[tuple[Path | None, Path]]]:
    """The maps to write, and for each data set (folder of its own manifest, folder to write to)."""
    tasks: list[_Task] = []
    folders: list[tuple[Path | None, Path]] = []
    for annotations, images in dataset.parts:
        places = annotations.dataset_dir, annotations.folder, annotations.masks_dir
        labels = {image: label_path(image, *places) for image in images}
        existing = [label for label in labels.values() if label.is_file()]
        folders.append((manifest_folder(existing), folder / annotations.name))
        missing = missing_images(images, annotations.dataset_dir, variant.missing)
        for image, label in labels.items():
            if image in missing:
                continue
            target = label_path(image, annotations.dataset_dir, annotations.name, folder)
            if label.is_file():
                tasks.append(_Task(label, target, variant))
            if variant.change is None and iuv_path(label).is_file():
                tasks.append(_Task(iuv_path(label), iuv_path(target), variant))
    return tasks, folders


def missing_images(images: Sequence[str], dataset_dir: Path, share: float) -> set[str]:
    """The images that lose their maps: the same on every machine; a larger share adds images."""

    def order(image: str) -> str:
        name = os.path.relpath(image, dataset_dir)
        return hashlib.blake2b(os.fsencode(name), digest_size=8).hexdigest()

    return set(sorted(images, key=order)[: round(share * len(images))])


def _write(task: _Task) -> None:
    if task.variant.change is None:
        with write_atomically(task.target) as part:
            shutil.copyfile(task.source, part)
        return
    labels = read_labels(task.source)
    radius = scaled_radius(PIXELS, labels.shape[0])
    write_labels(task.target, task.variant.change(labels, radius))
