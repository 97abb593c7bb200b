"""Annotations of a whole data set → label maps and IUV, on all cores.

Memory does not grow with the number of images, except for their names. Each file is written
atomically and finished files are kept, so an interrupted conversion can simply be run again.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
from tqdm import tqdm

from magnifier_plugin.annotators.densepose import write_iuv
from magnifier_plugin.annotators.source import Source, UnreadAnnotation
from magnifier_plugin.catalogue.images import list_images
from magnifier_plugin.files import absolute_path
from magnifier_plugin.images import image_size
from magnifier_plugin.masks.inputs import refuse_inputs
from magnifier_plugin.masks.label_maps import write_labels
from magnifier_plugin.masks.manifest import Manifest, ensure_manifest
from magnifier_plugin.masks.matching import dataset_folder, match
from magnifier_plugin.masks.paths import is_written, iuv_path, label_path
from magnifier_plugin.regions import NUM_REGIONS, REGIONS
from magnifier_plugin.workers import on_all_cores


@dataclass(frozen=True)
class ConversionSummary:
    """The result of converting a data set's annotations."""

    converted: int
    """Number of images whose label map, IUV or both were written in this run."""
    already_there: int
    """Number of images whose files an earlier run wrote and this one kept."""
    images: tuple[Path, ...]
    """All images that this run looked at."""
    read: tuple[Path, ...]
    """Those whose annotation this run read, or tried to."""
    removed: tuple[Path, ...]
    """The missing images whose files of an earlier run were removed, with overwrite."""
    missing: tuple[Path, ...]
    """Images left without files: no annotation, or no person in it. Annotators miss some people."""
    unmatched: tuple[str, ...]
    """Names of annotations without an image; those of images that were not to be converted are
    left out, where they are known."""
    failures: Mapping[Path, str]
    """Image → why its annotation could not be read."""
    ambiguous: Mapping[Path, str]
    """Image → why the choice among several people in it is ambiguous."""
    areas: Mapping[str, float]
    """Region → its fraction of the pixels converted in this run, 0..1; empty if there were none."""


def convert(
    source: Source,
    images_dir: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    *,
    dataset_dir: str | os.PathLike[str] | None = None,
    images: Sequence[Path] | None = None,
    keep_iuv: bool = False,
    iuv_only: bool = False,
    overwrite: bool = False,
    workers: int | None = None,
    progress: bool = True,
) -> ConversionSummary:
    """Converts an annotator's output into a data set's label maps, IUV or both.

    Args:
        source: the annotations.
        images_dir: the folder of the data set's images, or a subfolder of it.
        out_dir: `<folder of all label maps>/<data set's name in torchreid>`.
        dataset_dir: the data set's own folder; None: derived from images_dir (`dataset_folder`).
        images: absolute paths of the data set's images; None: all below images_dir.
        keep_iuv: also write the IUV next to each label map; DSA-reID needs it.
        iuv_only: write the IUV but no label maps; out_dir may hold label maps of any label set.
        overwrite: convert finished images again, and remove the files of missing images.
        workers: number of processes; None: one for each core.
        progress: show a progress bar, if there is a terminal.
    Returns:
        The summary; it lists annotations that could not be read in `failures`.
    Raises:
        ValueError: annotations cannot be matched to images by name, out_dir holds label maps of
            another label set, the source has no IUV, keep_iuv and iuv_only are both set, or a
            file to write is an image or an annotation; nothing is written then.
        OSError: a folder does not exist, out_dir cannot be written, or the disk is full.
        RuntimeError: a worker process was killed.
    """
    _check_iuv(source, keep_iuv, iuv_only)
    out_dir = absolute_path(out_dir)
    skip = [out_dir, *source.folders]
    images = list_images(images_dir, skip) if images is None else images
    dataset_dir = absolute_path(dataset_dir or dataset_folder(images_dir, out_dir.name))
    matches = match(source, images, dataset_dir, skip)
    target = _Target(dataset_dir, out_dir, not iuv_only, keep_iuv or iuv_only)
    jobs = [_job(annotation, image, target, overwrite) for annotation, image in matches.pairs]
    written = (path for image in images for path in target.files(image))
    refuse_inputs(written, out_dir, images, [images_dir, dataset_dir], source.files)
    unfinished = [job for job in jobs if job.label or job.iuv]
    if target.labels:
        gone = matches.missing if overwrite else []
        replaced = [job.label for job in unfinished] + [target.files(image)[0] for image in gone]
        manifest = Manifest(source.name, source.label_set, source.definition)
        ensure_manifest(out_dir, manifest, set(filter(None, replaced)))
    totals = _run(unfinished, workers, progress)
    kept = () if overwrite else [image for image in matches.missing if target.has_files(image)]
    missing = sorted({*matches.missing, *totals.missing}.difference(kept))
    removed = [image for image in missing if _remove(target.files(image))] if overwrite else []
    return ConversionSummary(
        converted=len(unfinished) - len(totals.failures) - len(totals.missing),
        already_there=len(jobs) - len(unfinished) + len(kept),
        images=tuple(images),
        read=tuple(job.image for job in unfinished),
        removed=tuple(removed),
        missing=tuple(missing),
        unmatched=tuple(matches.unmatched),
        failures=totals.failures,
        ambiguous=totals.ambiguous,
        areas=totals.areas(),
    )


def _check_iuv(source: Source, keep_iuv: bool, iuv_only: bool) -> None:
    if keep_iuv and iuv_only:
        raise ValueError("keep_iuv and iuv_only: expected one of the two, got both")
    if (keep_iuv or iuv_only) and not source.has_iuv:
        raise ValueError(
            f"source {source.name} has no IUV; only DensePose's sources have one (densepose-iuv, "
            "densepose-dump, densepose-json)"
        )


class _Target(NamedTuple):
    """The files that a conversion writes."""

    dataset_dir: Path
    out_dir: Path
    labels: bool
    """Whether it writes label maps."""
    iuv: bool
    """Whether it writes IUV."""

    def files(self, image: Path) -> tuple[Path | None, Path | None]:
        """The paths of an image's label map and IUV; None for one that is not written."""
        label = label_path(image, self.dataset_dir, self.out_dir.name, self.out_dir.parent)
        return label if self.labels else None, iuv_path(label) if self.iuv else None

    def has_files(self, image: Path) -> bool:
        """Whether all files of an image are written."""
        return all(path is None or is_written(path) for path in self.files(image))


class _Job(NamedTuple):
    """One image's conversion."""

    annotation: UnreadAnnotation
    image: Path
    label: Path | None
    """Where to write the label map; None: do not write it."""
    iuv: Path | None
    """Where to write the IUV; None: do not write it."""


class _Outcome(NamedTuple):
    """The result of one job."""

    image: Path
    counts: np.ndarray
    """int64 [NUM_REGIONS + 1]: number of pixels of each region, unknown last."""
    missing: bool = False
    """Whether the annotator found no person."""
    failure: str = ""
    """Why the annotation could not be read; "" if it could."""
    ambiguous: str = ""
    """Why the choice among several people is ambiguous; "" if it is not."""


class _Totals(NamedTuple):
    """The outcomes of all jobs."""

    missing: list[Path]
    """Images in which the annotator found no person."""
    failures: dict[Path, str]
    """Image → why its annotation could not be read."""
    ambiguous: dict[Path, str]
    """Image → why the choice among several people in it is ambiguous."""
    counts: np.ndarray
    """int64 [NUM_REGIONS + 1], the sum over the outcomes."""

    def add(self, outcome: _Outcome) -> None:
        if outcome.missing:
            self.missing.append(outcome.image)
        if outcome.failure:
            self.failures[outcome.image] = outcome.failure
        if outcome.ambiguous:
            self.ambiguous[outcome.image] = outcome.ambiguous
        self.counts[:] += outcome.counts

    def areas(self) -> dict[str, float]:
        total = self.counts.sum()
        if not total:
            return {}
        return {name: float(self.counts[i] / total) for i, name in enumerate(REGIONS)}


def _job(annotation: UnreadAnnotation, image: Path, target: _Target, overwrite: bool) -> _Job:
    """One image's conversion; finished files are left out, unless overwrite is set."""
    label, iuv = (
        None if path is None or (is_written(path) and not overwrite) else path
        for path in target.files(image)
    )
    return _Job(annotation, image, label, iuv)


def _remove(files: Iterable[Path | None]) -> bool:
    """Removes those files that exist; returns whether there was one."""
    found = [path for path in files if path is not None and path.is_file()]
    for path in found:
        path.unlink()
    return bool(found)


def _run(jobs: Sequence[_Job], workers: int | None, progress: bool) -> _Totals:
    totals = _Totals([], {}, {}, np.zeros(NUM_REGIONS + 1, dtype=np.int64))
    outcomes = on_all_cores(_convert_one, jobs, workers)
    hidden = None if progress and jobs else True
    for outcome in tqdm(outcomes, total=len(jobs), unit="image", disable=hidden):
        totals.add(outcome)
    return totals


def _convert_one(job: _Job) -> _Outcome:
    nothing = np.zeros(NUM_REGIONS + 1, dtype=np.int64)
    try:
        annotation = job.annotation.read(image_size(job.image))
    except (ValueError, OSError) as error:
        return _Outcome(job.image, nothing, failure=str(error))
    if annotation is None or not annotation.has_person:
        return _Outcome(job.image, nothing, missing=True)
    # An error while writing (full disk, no permission) is not caught: it ends the conversion.
    if job.iuv:
        write_iuv(job.iuv, cast(np.ndarray, annotation.iuv))
    if job.label:
        write_labels(job.label, annotation.labels)
    counts = np.bincount(annotation.labels.ravel(), minlength=NUM_REGIONS)
    known, unknown = counts[:NUM_REGIONS], counts[NUM_REGIONS:].sum(keepdims=True)
    return _Outcome(job.image, np.concatenate([known, unknown]), ambiguous=annotation.ambiguity)
