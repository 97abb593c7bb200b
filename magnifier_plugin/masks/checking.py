"""Checks of each label map and IUV before a training run is wasted on them.

A file that cannot be trained on (unreadable, of another size) is a fault. A file that can be
trained on but looks like a mistake (feet above the head, a tiny body) is odd: a person must judge.
"""

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from magnifier_plugin.annotators.densepose import label_set_definition, label_set_name, read_iuv
from magnifier_plugin.annotators.keypoints import KeypointSource
from magnifier_plugin.annotators.label_set import label_set_names, load_label_set
from magnifier_plugin.annotators.npy import NpyFolder
from magnifier_plugin.images import image_size
from magnifier_plugin.masks.label_maps import read_labels
from magnifier_plugin.masks.manifest import MANIFEST, Manifest, read_manifest
from magnifier_plugin.masks.paths import iuv_path
from magnifier_plugin.masks.plausibility import oddities, sides_may_be_swapped
from magnifier_plugin.regions import BODY_REGIONS, NUM_REGIONS, REGIONS
from magnifier_plugin.workers import on_all_cores

logger = logging.getLogger(__name__)

# Kinds of findings, worst first.
KINDS = (
    "unreadable",
    "wrong size",
    "empty",
    "odd",
    "few regions",
    "uncertain",
    "missing",
    "fine",
)
FAULTS = KINDS[:2]
# A region that covers a smaller fraction of the image is neither counted nor compared.
SPECK = 0.002
_SWAPPED = "left and right of the body may be swapped; a side view looks like this too"


class Finding(NamedTuple):
    """The result of checking one image's label map and IUV."""

    image: Path
    label: Path | None
    """The label map; None if there is none."""
    iuv: Path | None
    """The IUV; None if there is none."""
    kind: str
    """One of KINDS."""
    reasons: tuple[str, ...] = ()
    """What is wrong or odd, in words."""
    hints: tuple[str, ...] = ()
    """Signs of a mistake that correct label maps show too, but less often."""
    shares: tuple[float, ...] = ()
    """Fraction of the image that each region covers, 0..1, unknown last; empty if there is no label
    map that can be read and has the image's size."""

    @property
    def body(self) -> float:
        """The fraction of the image that the body covers, 0..1."""
        return sum(self.shares[region] for region in BODY_REGIONS) if self.shares else 0.0


def check_labels(
    labels: Mapping[str, Path],
    *,
    min_regions: int = 3,
    workers: int | None = None,
    progress: bool = True,
) -> list[Finding]:
    """Checks every label map of a data set, and the IUV next to it, on all cores.

    Args:
        labels: image → path of its label map (`paths.label_path`), whether or not it exists.
        min_regions: a label map with fewer body regions is a finding, 1..7.
        workers: number of processes; None: one for each core.
        progress: show a progress bar, if there is a terminal.
    Returns:
        One finding for each image, worst first.
    """
    tasks = [(Path(image), label, min_regions) for image, label in labels.items()]
    findings = on_all_cores(_inspect, tasks, workers)
    bar = tqdm(findings, total=len(tasks), unit="image", disable=None if progress else True)
    return sorted(bar, key=_worst_first)


def mean_shares(findings: Iterable[Finding]) -> dict[str, float]:
    """Region → mean fraction of the image that it covers, 0..1.

    The mean is over the images whose label map could be read.
    """
    shares = [finding.shares for finding in findings if finding.shares]
    return dict(zip((*REGIONS, "unknown"), np.mean(shares, axis=0), strict=True)) if shares else {}


def check_manifest(folder: str | os.PathLike[str], label_set: str) -> Manifest | None:
    """Checks that a data set's label maps use the label set that a run expects.

    Args:
        folder: the data set's label maps, such as `mask_labels/market1501`.
        label_set: name of the expected label set (`densepose`, `lip`, …), or path of a YAML file.
    Returns:
        The manifest; None, with a warning, if there is no `labels.json`.
    Raises:
        ValueError: they use another label set, or another version of the expected one.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        logger.warning("%s: no %s, so the label set of its maps is unknown", folder, MANIFEST)
        return None
    name, definition = _find_label_set(label_set)
    if manifest.label_set != name:
        raise ValueError(
            f"{folder}: the label maps use label set {manifest.label_set}, expected {name}; name "
            f"theirs (masks.label_set {manifest.label_set}; check_masks.py: --label-set "
            f"{manifest.label_set}), or convert again into an empty folder"
        )
    if definition is not None and manifest.checksum != Manifest("", name, definition).checksum:
        raise ValueError(
            f"{folder}: the label maps use another version of label set {name} (checksum "
            f"{manifest.checksum}); convert again into an empty folder"
        )
    return manifest


def manifest_folder(labels: Iterable[Path | None]) -> Path | None:
    """The folder above a data set's label maps that contains `labels.json`; None if none does."""
    label = next(filter(None, labels), None)
    return next((p for p in label.parents if (p / MANIFEST).is_file()), None) if label else None


def _find_label_set(label_set: str) -> tuple[str, Mapping[str, Any] | None]:
    """A label set's name, and its definition if this package knows it."""
    for hands in ("lower arm", "background"):
        if label_set == label_set_name(hands):
            return label_set, label_set_definition(hands)
    for source in (NpyFolder, KeypointSource):
        if label_set == source.label_set:
            return label_set, source.definition
    if label_set in label_set_names() or Path(label_set).suffix in (".yaml", ".yml"):
        known = load_label_set(label_set)
        return known.name, known.definition
    return label_set, None


def _worst_first(finding: Finding) -> tuple[int, int, float, str]:
    return KINDS.index(finding.kind), -len(finding.reasons), finding.body, str(finding.image)


class _Fault(NamedTuple):
    """Why a file cannot be trained on."""

    kind: str
    reason: str


def _inspect(task: tuple[Path, Path, int]) -> Finding:
    """Checks one image's files; a task is (image, path of its label map, minimum of regions)."""
    image, place, min_regions = task
    label, iuv = (path if path.is_file() else None for path in (place, iuv_path(place)))
    if label is None and iuv is None:
        return Finding(image, None, None, "missing", ("no label map",))
    try:
        size = image_size(image)
    except (ValueError, OSError) as error:
        reason = f"photo: {str(error).removeprefix(f'{image}: ')}"
        return Finding(image, label, iuv, "unreadable", (reason,))
    labels, label_fault = _read("label map", label, read_labels, size)
    planes, iuv_fault = _read("IUV", iuv, read_iuv, size)
    shares = () if labels is None else _shares(labels)
    faults = [fault for fault in (label_fault, iuv_fault) if fault]
    if faults:
        kind = min((fault.kind for fault in faults), key=KINDS.index)
        return Finding(image, label, iuv, kind, tuple(f.reason for f in faults), (), shares)
    hints = (_SWAPPED,) if planes is not None and sides_may_be_swapped(planes[..., 0]) else ()
    if labels is None:
        return Finding(image, None, iuv, "missing", ("no label map, only IUV",), hints)
    kind, reasons = _judge(labels, shares, min_regions)
    if kind == "fine" and hints:
        kind = "uncertain"
    return Finding(image, label, iuv, kind, reasons, hints, shares)


def _read(
    what: str, path: Path | None, reader: Callable[[Path], np.ndarray], size: tuple[int, int]
) -> tuple[np.ndarray | None, _Fault | None]:
    """An array [H, W, …] of the image's size, or the fault of its file; neither without a file."""
    if path is None:
        return None, None
    try:
        array = reader(path)
    except (ValueError, OSError) as error:
        return None, _Fault("unreadable", f"{what}: {str(error).removeprefix(f'{path}: ')}")
    if array.shape[:2] == size:
        return array, None
    reason = "{}: {} × {} (height × width), but its image is {} × {}"
    return None, _Fault("wrong size", reason.format(what, *array.shape[:2], *size))


def _shares(labels: np.ndarray) -> tuple[float, ...]:
    counts = np.bincount(labels.ravel(), minlength=NUM_REGIONS)
    merged = (*counts[:NUM_REGIONS], counts[NUM_REGIONS:].sum())
    return tuple(float(count / labels.size) for count in merged)


def _judge(
    labels: np.ndarray, shares: tuple[float, ...], min_regions: int
) -> tuple[str, tuple[str, ...]]:
    """Kind and reasons of a label map that can be trained on."""
    regions = [region for region in BODY_REGIONS if shares[region] >= SPECK]
    if not regions:
        return "empty", ("no body in it",)
    odd, few = tuple(oddities(labels, regions)), tuple[str, ...]()
    if len(regions) < min_regions:
        few = (f"only {len(regions)} of {len(BODY_REGIONS)} body regions",)
    return "odd" if odd else "few regions" if few else "fine", (*odd, *few)
