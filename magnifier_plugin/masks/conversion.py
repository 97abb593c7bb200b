"""Annotations of a whole data set → label maps, on all cores.

Memory does not grow with the number of images, their names aside; every file is written whole or
not at all; what is finished is not done again, so an interrupted conversion is simply repeated.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from magnifier_plugin.annotators.densepose import write_iuv
from magnifier_plugin.annotators.source import Item, Source
from magnifier_plugin.files import absolute_path, image_size
from magnifier_plugin.masks.label_maps import write_labels
from magnifier_plugin.masks.manifest import Manifest, read_manifest, write_manifest
from magnifier_plugin.masks.matching import Matches, dataset_folder, list_images, match
from magnifier_plugin.masks.paths import iuv_path, label_path
from magnifier_plugin.regions import NUM_REGIONS, REGIONS
from magnifier_plugin.workers import on_all_cores


@dataclass(frozen=True)
class Summary:
    """What became of a data set's annotations.

    converted: label maps written now.
    already_there: label maps that an earlier run wrote.
    missing: images without an annotation; normal, an annotator does not find everybody.
    strays: annotations without an image.
    failures: image → why its annotation could not be read.
    doubts: image → why the choice among several people in it is uncertain.
    areas: region → its share in the pixels written now, 0..1; empty when nothing was.
    """

    converted: int
    already_there: int
    missing: tuple[Path, ...]
    strays: tuple[str, ...]
    failures: Mapping[Path, str]
    doubts: Mapping[Path, str]
    areas: Mapping[str, float]


def convert(
    source: Source,
    images_dir: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    *,
    dataset_dir: str | os.PathLike[str] | None = None,
    keep_iuv: bool = False,
    overwrite: bool = False,
    workers: int | None = None,
    progress: bool = True,
) -> Summary:
    """Turns what an annotator wrote into a data set's label maps.

    Args:
        source: the annotations.
        images_dir: the data set's images, or a folder within them.
        out_dir: `<folder of all label maps>/<data set's name in torchreid>`.
        dataset_dir: the data set's own folder; None: found from images_dir (`dataset_folder`).
        keep_iuv: write the IUV beside each label map too; DSA-reID needs it.
        overwrite: do finished label maps again.
        workers: processes; None: one for each core.
        progress: show a bar, where there is a terminal.
    Returns:
        The summary. One annotation that cannot be read stops nothing: it stands in `failures`.
    Raises:
        ValueError: annotations cannot be told apart by name, out_dir holds label maps of another
            label set, or there is no IUV to keep.
        OSError: a folder does not exist, out_dir cannot be written, the disk is full.
        RuntimeError: a worker process was killed.
    """
    if keep_iuv and not source.has_iuv:
        raise ValueError(f"source {source.name} has no IUV to keep; DensePose's sources have")
    out_dir = absolute_path(out_dir)
    matches = match(source, list_images(images_dir, skip=[out_dir, *source.folders]))
    jobs = _jobs(
        matches, dataset_dir or dataset_folder(images_dir, out_dir.name), out_dir, keep_iuv
    )
    left = [job for job in jobs if overwrite or not job.is_done()]
    _claim(out_dir, source, fresh=len(left) == len(jobs))
    return _summary(matches, jobs, left, _carry_out(left, workers, progress))


class _Job(NamedTuple):
    item: Item
    image: Path
    label: Path
    keep_iuv: bool

    def is_done(self) -> bool:
        wanted = [self.label, iuv_path(self.label)] if self.keep_iuv else [self.label]
        return all(path.is_file() for path in wanted)


class _Outcome(NamedTuple):
    """counts: pixels of each region, those of unknown region last."""

    image: Path
    counts: np.ndarray
    failure: str = ""
    doubt: str = ""


class _Tally(NamedTuple):
    """The outcomes of all jobs, added up."""

    failures: dict[Path, str]
    doubts: dict[Path, str]
    counts: np.ndarray

    def add(self, outcome: _Outcome) -> None:
        if outcome.failure:
            self.failures[outcome.image] = outcome.failure
        if outcome.doubt:
            self.doubts[outcome.image] = outcome.doubt
        self.counts[:] += outcome.counts

    def areas(self) -> dict[str, float]:
        total = self.counts.sum()
        return (
            {name: float(self.counts[i] / total) for i, name in enumerate(REGIONS)} if total else {}
        )


def _jobs(
    matches: Matches, dataset_dir: str | os.PathLike[str], out_dir: Path, keep_iuv: bool
) -> list[_Job]:
    folder, dataset, masks_dir = absolute_path(dataset_dir), out_dir.name, out_dir.parent
    return [
        _Job(item, image, label_path(image, folder, dataset, masks_dir), keep_iuv)
        for item, image in matches.pairs
    ]


def _claim(out_dir: Path, source: Source, fresh: bool) -> None:
    """Puts the stamp into out_dir; refuses to mix two label sets there."""
    ours = Manifest(source.name, source.label_set, source.definition)
    theirs = read_manifest(out_dir)
    if theirs is None and not fresh:
        raise ValueError(
            f"{out_dir}: holds label maps, but no labels.json that says how they were made; "
            "convert into another folder, or overwrite them (--overwrite)"
        )
    if theirs is not None and theirs.checksum != ours.checksum:
        raise ValueError(
            f"{out_dir}: holds label maps of label set {theirs.label_set} ({theirs.checksum}), "
            f"these would be {ours.label_set} ({ours.checksum}); two label sets must not be "
            "mixed: convert into another folder, or remove this one first"
        )
    if theirs != ours:
        write_manifest(out_dir, ours)


def _carry_out(jobs: Sequence[_Job], workers: int | None, progress: bool) -> _Tally:
    tally = _Tally({}, {}, np.zeros(NUM_REGIONS + 1, dtype=np.int64))
    outcomes = on_all_cores(_convert_one, jobs, workers)
    hidden = None if progress and jobs else True
    for outcome in tqdm(outcomes, total=len(jobs), unit="image", disable=hidden):
        tally.add(outcome)
    return tally


def _summary(
    matches: Matches, jobs: Sequence[_Job], left: Sequence[_Job], tally: _Tally
) -> Summary:
    return Summary(
        converted=len(left) - len(tally.failures),
        already_there=len(jobs) - len(left),
        missing=tuple(matches.missing),
        strays=tuple(matches.strays),
        failures=tally.failures,
        doubts=tally.doubts,
        areas=tally.areas(),
    )


def _convert_one(job: _Job) -> _Outcome:
    try:
        annotation = job.item.read(image_size(job.image))
    except (ValueError, OSError) as error:
        return _Outcome(job.image, np.zeros(NUM_REGIONS + 1, dtype=np.int64), failure=str(error))
    # Not caught: what cannot be written, for a full disk or a missing right, stops the conversion.
    if job.keep_iuv:
        write_iuv(iuv_path(job.label), annotation.iuv)
    write_labels(job.label, annotation.labels)
    counts = np.bincount(annotation.labels.ravel(), minlength=NUM_REGIONS)
    known, unknown = counts[:NUM_REGIONS], counts[NUM_REGIONS:].sum(keepdims=True)
    return _Outcome(job.image, np.concatenate([known, unknown]), doubt=annotation.doubt)
