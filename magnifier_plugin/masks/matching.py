"""Matching annotations to images, and finding the data set's own folder.

An image is identified by its path inside its data set: CUHK03's labelled and detected images have
the same names. DensePose's tools drop the folders, so annotations are matched by name if the name
is unique, then by the folders that are left. Images that are not converted count too. If that does
not decide, the conversion stops and lists the ambiguous names instead of guessing.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from magnifier_plugin.annotators.source import UnreadAnnotation
from magnifier_plugin.catalogue.images import IMAGE_SUFFIXES, images_in
from magnifier_plugin.catalogue.layouts import OPTIONAL_FOLDER
from magnifier_plugin.catalogue.names import registered_datasets
from magnifier_plugin.files import absolute_path

_LISTED = 10  # number of ambiguous names that an error lists


class AnnotationMatches(NamedTuple):
    """Annotations matched to images."""

    pairs: list[tuple[UnreadAnnotation, Path]]
    """Annotation and image, in the order of the images."""
    missing: list[Path]
    """Images without an annotation."""
    unmatched: list[str]
    """Names of annotations without an image, as far as is known; those of images of the data set
    that are not converted are left out."""


def dataset_folder(images_dir: str | os.PathLike[str], dataset: str) -> Path:
    """The data set's own folder (torchreid's `dataset_dir`), given this folder or one inside it.

    It is the deepest folder on the path to images_dir that has the name torchreid gives to this
    data set's folder (`market1501`, `dukemtmc-reid`, …); else the one above
    `Market-1501-v15.09.15`; else, as for the user's own data sets, images_dir itself.

    Args:
        images_dir: a folder of images.
        dataset: the data set's name in torchreid, such as `market1501`.
    """
    folder = absolute_path(images_dir)
    own = getattr(registered_datasets().get(dataset), "dataset_dir", dataset)
    for candidate in (folder, *folder.parents):
        if candidate.parts[-len(PurePath(own).parts) :] == PurePath(own).parts:
            return candidate
    for candidate in (folder, *folder.parents):
        if candidate.name == OPTIONAL_FOLDER:
            return candidate.parent
    return folder


def match(
    annotations: Iterable[UnreadAnnotation],
    images: Sequence[Path],
    dataset_dir: Path | None = None,
    skip: Sequence[Path] = (),
) -> AnnotationMatches:
    """Matches annotations to images by their names without suffix, or else up to the first dot.

    If several images have an annotation's name, the match is the image that shares the most folder
    names with it, counted from the end of the path. If that is an image of the data set that is not
    converted, the annotation is left out; of equally close images, the converted one counts.

    Args:
        annotations: only their `name` is used.
        images: paths of the images to convert.
        dataset_dir: the data set's own folder, in which other images are looked for; None: in none.
        skip: folders in it that contain no images of the data set, such as those of annotations.
    Raises:
        ValueError: a name matches several images equally well, two annotations match one image,
            there are no annotations, or none matches any image.
    """
    others = _OtherImages(images, dataset_dir, skip)
    by_name = defaultdict(list)
    for image in images:
        by_name[_up_to_dot(image)].append(image)
    found: dict[Path, UnreadAnnotation] = {}
    unmatched, ambiguous, left_out = [], [], []
    for annotation in annotations:
        name = annotation.name
        if _up_to_dot(name) not in by_name:
            name = name.replace("\\", "/")  # of a path that was written on Windows
        candidates = _closest(_folders(name), _named(name, by_name.get(_up_to_dot(name), [])))
        if others.have(name, candidates):
            left_out.append(name)
        elif not candidates:
            unmatched.append(name)
        elif len(candidates) > 1:
            more = " and more" if len(candidates) > 3 else ""
            ambiguous.append(f"{name} matches {' and '.join(map(str, candidates[:3]))}{more}")
        elif candidates[0] in found:
            ambiguous.append(f"{found[candidates[0]].name} and {name} both match {candidates[0]}")
        else:
            found[candidates[0]] = annotation
    if ambiguous:
        raise _ambiguous_names(ambiguous)
    if not found:
        raise _no_match(unmatched, left_out, images)
    pairs = [(found[image], image) for image in images if image in found]
    return AnnotationMatches(pairs, [image for image in images if image not in found], unmatched)


class _OtherImages:
    """The images of a data set that are not converted.

    They are looked for only in the folders of converted images, and where the folders in an
    annotation's name point to. The data set's folder is not searched: it contains all images of a
    CSV, so it can be a home directory or a whole disk.
    """

    def __init__(self, images: Sequence[Path], dataset_dir: Path | None, skip: Sequence[Path]):
        self.dataset_dir, self.skip = dataset_dir, [absolute_path(folder) for folder in skip]
        homes = dict.fromkeys(image.parent for image in images)
        self.home = next(iter(homes), None)
        self.neighbours = {name for home in homes for name in self._names(home)}
        self.closer: dict[tuple[tuple[str, ...], Path], set[str]] = {}

    def have(self, name: str, candidates: Sequence[Path]) -> bool:
        """Whether an annotation belongs to one of them, rather than to a converted image.

        Args:
            name: the annotation's name.
            candidates: the converted images of that name that are closest to it.
        """
        home = candidates[0].parent if candidates else self.home
        if home is None:
            return False
        folders, stem = _folders(name), _up_to_dot(name)
        if not candidates and stem in self.neighbours:
            return True
        if (folders, home) not in self.closer:
            self.closer[folders, home] = self._names_closer(folders, home)
        return stem in self.closer[folders, home]

    def _names_closer(self, folders: tuple[str, ...], home: Path) -> set[str]:
        """Names of images in folders that share more with an annotation's than home does."""
        lengths = range(_common_at_end(folders, home.parts) + 1, len(folders) + 1)
        places = {top.joinpath(*folders[-n:]) for top in (home, *home.parents) for n in lengths}
        return {name for place in places for name in self._names(place)}

    def _names(self, folder: Path) -> set[str]:
        is_inside = self.dataset_dir is not None and folder.is_relative_to(self.dataset_dir)
        if not is_inside or any(folder.is_relative_to(skipped) for skipped in self.skip):
            return set()
        return {_up_to_dot(image) for image in images_in(folder)}


def _no_match(unmatched: list[str], left_out: list[str], images: Sequence[Path]) -> ValueError:
    if not unmatched and not left_out:
        return ValueError(
            "the source has no annotations: it is empty, or no detection has a score of at least "
            "--min-score; expected at least one, check the annotator's output or lower --min-score"
        )
    reason, names = "no annotation has the name of an image", unmatched
    if not unmatched:
        reason, names = "all annotations belong to images that are not converted", left_out
    return ValueError(
        f"{reason}: annotations such as {names[:3]}, images such as "
        f"{[image.name for image in images[:3]]}"
    )


def _ambiguous_names(cases: list[str]) -> ValueError:
    more = [f"… and {len(cases) - _LISTED} more"] if len(cases) > _LISTED else []
    return ValueError(
        "the names do not show which annotation belongs to which image:\n  "
        + "\n  ".join([*cases[:_LISTED], *more])
        + "\nannotate and convert each folder of images separately (--images FOLDER; for a list of "
        "your own -s NAME=CSV --images FOLDER), arrange the annotations in the same folders as the "
        "images, or give the images unique names"
    )


def _up_to_dot(name: str | PurePath) -> str:
    """A file's name up to its first dot; DensePose's tools drop the rest."""
    return PurePath(name).name.partition(".")[0]


def _named(name: str, images: list[Path]) -> list[Path]:
    """Of images that agree with an annotation up to the first dot, those that have its name.

    If none has it, those where only one of the two names has further dots: the tool dropped the
    rest of the image's name, or added to it.
    """
    stem = PurePath(name).name
    while PurePath(stem).suffix.lower() in IMAGE_SUFFIXES | {".npy"}:
        stem = PurePath(stem).stem
    same = [image for image in images if image.stem == stem]
    return same or [image for image in images if "." not in stem or "." not in image.stem]


def _folders(name: str) -> tuple[str, ...]:
    """The folders in an annotation's name; no file is ever opened by such a name.

    An annotator that was called with a relative path writes names with `..`, which is resolved or,
    at the beginning of a name, dropped.
    """
    parts = PurePath(os.path.normpath(name)).parent.parts
    return tuple(part for part in parts if part != "..")


def _closest(folders: tuple[str, ...], images: list[Path]) -> list[Path]:
    """Of images with the same name, those that share the most folders, counted from the end."""
    if len(images) < 2:
        return images
    shared = [_common_at_end(folders, image.parent.parts) for image in images]
    return [image for image, n in zip(images, shared, strict=True) if n == max(shared)]


def _common_at_end(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    length = 0
    for a, b in zip(reversed(one), reversed(other), strict=False):
        if a != b:
            break
        length += 1
    return length
