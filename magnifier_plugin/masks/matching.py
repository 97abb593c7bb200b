"""Matching annotations to images, and finding the data set's own folder.

An image is identified by its path inside its data set: CUHK03's labelled and detected images have
the same names. DensePose's tools drop the folders, so annotations are matched by name if that is
unique; if it is not, the conversion stops and lists them, rather than guess.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from magnifier_plugin.annotators.densepose import PEOPLE_SUFFIX
from magnifier_plugin.annotators.densepose import SUFFIX as IUV_SUFFIX
from magnifier_plugin.annotators.source import UnreadAnnotation
from magnifier_plugin.catalogue.layouts import OPTIONAL_FOLDER
from magnifier_plugin.catalogue.names import registered_datasets
from magnifier_plugin.files import absolute_path

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".tif", ".tiff", ".webp"})
_ANNOTATION_ENDINGS = (IUV_SUFFIX, PEOPLE_SUFFIX)
_LISTED = 10


class AnnotationMatches(NamedTuple):
    """Which annotation is of which image."""

    pairs: list[tuple[UnreadAnnotation, Path]]
    """Annotation and image, in the images' order."""
    missing: list[Path]
    """Images without an annotation."""
    unmatched: list[str]
    """Names of annotations without an image."""


def dataset_folder(images_dir: str | os.PathLike[str], dataset: str) -> Path:
    """The data set's own folder (torchreid's `dataset_dir`), from a folder at or inside it.

    It is the deepest folder on the way to images_dir that has the name torchreid gives to this
    data set's folder (`market1501`, `dukemtmc-reid`, …); else the one above
    `Market-1501-v15.09.15`; else, as for a data set of one's own, images_dir itself.

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


def list_images(
    folder: str | os.PathLike[str], skip: Sequence[str | os.PathLike[str]] = ()
) -> list[Path]:
    """All image files at any depth below a folder, sorted.

    Args:
        folder: the folder.
        skip: folders inside it that hold other files, such as the annotations.
    Returns:
        Absolute paths; hidden files and DensePose's own PNGs are left out.
    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: there is no image in it.
    """
    folder = absolute_path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder, expected the data set's images there")
    skipped = {absolute_path(path) for path in skip}
    images = []
    for where, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [f for f in folders if f[0] != "." and Path(where, f) not in skipped]
        images += [Path(where, name) for name in names if _is_image(name)]
    if not images:
        raise ValueError(
            f"{folder}: no image in it, expected files such as 0002_c1s1_000451_03.jpg"
        )
    return sorted(images)


def match(annotations: Iterable[UnreadAnnotation], images: Sequence[Path]) -> AnnotationMatches:
    """Matches annotations to images by their names up to the first dot.

    If several images have an annotation's name, the one is meant that also has the most folder
    names in common with it, counted from the end of the path.

    Args:
        annotations: only their `name` is used.
        images: paths of images.
    Raises:
        ValueError: a name fits several images equally well, two annotations fit one image, no
            annotation fits any image, or a name has `..` within.
    """
    by_name = defaultdict(list)
    for image in images:
        by_name[_up_to_dot(image)].append(image)
    found: dict[Path, UnreadAnnotation] = {}
    unmatched, ambiguous = [], []
    for annotation in annotations:
        name = annotation.name
        candidates = _closest(_folders(name), by_name.get(_up_to_dot(name), []))
        if not candidates:
            unmatched.append(name)
        elif len(candidates) > 1:
            ambiguous.append(f"{name} fits " + " and ".join(map(str, candidates)))
        elif candidates[0] in found:
            ambiguous.append(f"{found[candidates[0]].name} and {name} both fit {candidates[0]}")
        else:
            found[candidates[0]] = annotation
    if ambiguous:
        raise _ambiguous_names(ambiguous)
    if not found:
        raise ValueError(
            f"no annotation has the name of an image: annotations such as {unmatched[:3]}, "
            f"images such as {[image.name for image in images[:3]]}"
        )
    pairs = [(found[image], image) for image in images if image in found]
    return AnnotationMatches(pairs, [image for image in images if image not in found], unmatched)


def _ambiguous_names(cases: list[str]) -> ValueError:
    more = [f"… and {len(cases) - _LISTED} more"] if len(cases) > _LISTED else []
    return ValueError(
        "the names do not show which annotation is of which image:\n  "
        + "\n  ".join([*cases[:_LISTED], *more])
        + "\nannotate and convert each folder of images by itself (--images FOLDER), or keep "
        "the images' folders among the annotations"
    )


def _is_image(name: str) -> bool:
    return (
        not name.startswith(".")
        and not name.endswith(_ANNOTATION_ENDINGS)
        and PurePath(name).suffix.lower() in IMAGE_SUFFIXES
    )


def _up_to_dot(name: str | PurePath) -> str:
    """A file's name up to its first dot: DensePose's tools keep no more of it."""
    return PurePath(name).name.partition(".")[0]


def _folders(name: str) -> tuple[str, ...]:
    """The folders in an annotation's name; no file is ever opened by such a name.

    An annotator that was called with a relative path writes names that begin with `..`, which is
    dropped. No tool writes a `..` after that, so it is refused.
    """
    parts = PurePath(name).parent.parts
    while parts and parts[0] == "..":
        parts = parts[1:]
    if ".." in parts:
        raise ValueError(f"{name}: refused, '..' within a path names no image")
    return parts


def _closest(folders: tuple[str, ...], images: list[Path]) -> list[Path]:
    """Of images with one name, those with most folders in common, counted from the end."""
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
