"""Label maps looked at one by one before they cost a training run: what is wrong, what is odd.

What cannot be trained on (unreadable, of another size) is wrong; what can but looks like a
mistake (feet above the head, hardly any body) is odd and for a person to judge.
"""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from magnifier_plugin.annotators.densepose import label_set_definition, label_set_name, read_iuv
from magnifier_plugin.annotators.label_set import label_set_names, load_label_set
from magnifier_plugin.annotators.npy import NpyFolder
from magnifier_plugin.files import image_size
from magnifier_plugin.masks.label_maps import read_labels
from magnifier_plugin.masks.manifest import MANIFEST, Manifest, read_manifest
from magnifier_plugin.masks.paths import iuv_path
from magnifier_plugin.regions import BODY_REGIONS, NUM_REGIONS, PARTS, REGIONS
from magnifier_plugin.workers import on_all_cores

logger = logging.getLogger(__name__)

# Kinds of findings, the worst first.
KINDS = ("unreadable", "wrong size", "empty", "odd", "few regions", "missing", "fine")
WRONG = KINDS[:2]
# A region with a smaller share of the picture is a speck, it is not counted or compared.
SPECK = 0.002
# A body with a smaller share of the picture is odd: whom would the annotator have meant?
SMALL_BODY = 0.03
# A body whose middle lies within this share of the width from a side is somebody else's.
SIDE = 0.2
# Regions as they follow each other downwards in anybody who stands, walks or sits.
_DOWNWARDS = ("head", "chest", "upper leg", "lower leg", "foot")
# By how much, in heights of the picture, the lower one may lie higher.
_TOLERANCE = 0.05
_TORSO = ("back", "front")
# Part ids of the limbs of each side; a head turns by itself.
_SIDES = {
    side: [i for i, part in enumerate(PARTS) if side in part.split() and "head" not in part]
    for side in ("left", "right")
}
# One side of the torso must be this many times as visible to say where the person faces.
_FACING = 4


class Finding(NamedTuple):
    """What is to be said of one image's label map.

    kind: one of KINDS. reasons: in words, the weightiest first; empty where all is fine.
    shares: of each region in the picture, 0..1, unknown last; empty where it could not be read.
    """

    image: Path
    label: Path | None
    kind: str
    reasons: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()

    @property
    def body(self) -> float:
        """The body's share in the picture."""
        return sum(self.shares[region] for region in BODY_REGIONS) if self.shares else 0.0


def check_labels(
    labels: Mapping[str, Path | None],
    *,
    min_regions: int = 3,
    workers: int | None = None,
    progress: bool = True,
) -> list[Finding]:
    """Looks at every label map of a data set, on all cores.

    Args:
        labels: image → its label map, None where there is none (`MaskedDataset.labels`).
        min_regions: fewer body regions than these are a finding, 1..7.
        workers: processes; None: one for each core.
        progress: show a bar, where there is a terminal.
    Returns:
        One finding for each image, the worst first.
    """
    tasks = [(Path(image), label, min_regions) for image, label in labels.items()]
    findings = on_all_cores(_check, tasks, workers)
    bar = tqdm(findings, total=len(tasks), unit="image", disable=None if progress else True)
    return sorted(bar, key=_badness)


def mean_shares(findings: Iterable[Finding]) -> dict[str, float]:
    """Region → its mean share in the pictures whose label map could be read."""
    shares = [finding.shares for finding in findings if finding.shares]
    return dict(zip((*REGIONS, "unknown"), np.mean(shares, axis=0), strict=True)) if shares else {}


def check_manifest(folder: str | os.PathLike[str], label_set: str) -> Manifest | None:
    """Makes sure that a data set's label maps are of the label set that a run expects.

    Args:
        folder: such as `mask_labels/market1501`.
        label_set: the expected one's name (`densepose`, `lip`, …), or the path of one's own YAML.
    Returns:
        How they were made; None, with a warning, where no `labels.json` says it.
    Raises:
        ValueError: they are of another label set, or of another state of this one.
    """
    stamp = read_manifest(folder)
    if stamp is None:
        logger.warning("%s: no %s, so nobody knows the label set of its maps", folder, MANIFEST)
        return None
    name, definition = _known(label_set)
    if stamp.label_set != name:
        raise ValueError(
            f"{folder}: label maps of label set {stamp.label_set}, expected {name}; set "
            f"masks.label_set {stamp.label_set}, or convert again into an empty folder"
        )
    if definition is not None and stamp.checksum != Manifest("", name, definition).checksum:
        raise ValueError(
            f"{folder}: label maps of another state of label set {name} (checksum "
            f"{stamp.checksum}); convert again into an empty folder"
        )
    return stamp


def manifest_folder(labels: Iterable[Path | None]) -> Path | None:
    """The folder above a data set's label maps in which `labels.json` lies; None if in none."""
    label = next(filter(None, labels), None)
    return next((p for p in label.parents if (p / MANIFEST).is_file()), None) if label else None


def _known(label_set: str) -> tuple[str, Mapping | None]:
    """A label set's name, and its definition where this package knows it."""
    for hands in ("lower arm", "background"):
        if label_set == label_set_name(hands):
            return label_set, label_set_definition(hands)
    if label_set == NpyFolder.label_set:
        return label_set, NpyFolder.definition
    if label_set in label_set_names() or Path(label_set).suffix in (".yaml", ".yml"):
        known = load_label_set(label_set)
        return known.name, known.definition
    return label_set, None


def _badness(finding: Finding) -> tuple[int, int, float, str]:
    return (
        KINDS.index(finding.kind),
        -len(finding.reasons),
        finding.body,
        str(finding.image),
    )


def _check(task: tuple[Path, Path | None, int]) -> Finding:
    image, label, min_regions = task
    if label is None or not label.is_file():
        return Finding(image, None, "missing", ("no label map",))
    try:
        labels, size = read_labels(label), image_size(image)
    except (ValueError, OSError) as error:
        return Finding(image, label, "unreadable", (str(error).removeprefix(f"{label}: "),))
    if labels.shape != size:
        told = "{} × {} (height × width), its image is {} × {}".format(*labels.shape, *size)
        return Finding(image, label, "wrong size", (told,))
    counts = np.bincount(labels.ravel(), minlength=NUM_REGIONS)
    shares = (*counts[:NUM_REGIONS] / labels.size, counts[NUM_REGIONS:].sum() / labels.size)
    shares = tuple(map(float, shares))
    seen = [region for region in BODY_REGIONS if shares[region] >= SPECK]
    if not seen:
        return Finding(image, label, "empty", ("nobody in it",), shares)
    try:
        odd = (*_oddities(labels, seen), *_mirrored(label, size))
    except (ValueError, OSError) as error:  # the IUV beside it
        return Finding(image, label, "unreadable", (str(error),), shares)
    few = (
        (f"only {len(seen)} of {len(BODY_REGIONS)} body regions",)
        if len(seen) < min_regions
        else ()
    )
    kind = "odd" if odd else "few regions" if few else "fine"
    return Finding(image, label, kind, (*odd, *few), shares)


def _oddities(labels: np.ndarray, seen: Sequence[int]) -> list[str]:
    """What is odd in a label map in which these body regions are seen."""
    height, width = labels.shape
    body = np.isin(labels, BODY_REGIONS)
    odd = []
    if body.mean() < SMALL_BODY:
        odd.append(f"the body covers {body.mean():.1%} of the picture")
    middle = np.nonzero(body)[1].mean() / width
    if not SIDE <= middle <= 1 - SIDE:
        odd.append(f"the body lies at the {'left' if middle < SIDE else 'right'} side")
    downwards = [name for name in _DOWNWARDS if REGIONS.index(name) in seen]
    rows = [np.nonzero(labels == REGIONS.index(name))[0].mean() / height for name in downwards]
    for upper, lower, above, below in zip(downwards, downwards[1:], rows, rows[1:], strict=False):
        if below < above - _TOLERANCE:
            odd.append(f"{lower} above {upper}")
    return odd


def _mirrored(label: Path, size: tuple[int, int]) -> list[str]:
    """Whether left and right are swapped in the IUV beside a label map, if one was kept.

    Who shows the front of the torso has the right side of the body on the picture's left.
    """
    path = iuv_path(label)
    if not path.is_file():
        return []
    part = read_iuv(path)[..., 0]
    if part.shape != size:
        raise ValueError(f"{path}: {part.shape}, its image is {size} (height, width)")
    back, front = (np.count_nonzero(part == PARTS.index(f"torso {side}")) for side in _TORSO)
    if max(back, front) < _FACING * max(min(back, front), 1):
        return []
    left, right = (np.nonzero(np.isin(part, _SIDES[side]))[1] for side in ("left", "right"))
    if not left.size or not right.size:
        return []
    # Positive where the body's left lies on the picture's right, as in somebody who faces us.
    lead = (left.mean() - right.mean()) / size[1] * (1 if front > back else -1)
    return ["left and right of the body are swapped"] if lead < -_TOLERANCE else []
