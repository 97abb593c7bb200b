"""Identities and cameras, which may be words → the numbers in torchreid's lists."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from magnifier_plugin.catalogue.image_list import (
    GALLERY,
    QUERY,
    TRAIN,
    ImageList,
    ListedImage,
    id_order,
)
from magnifier_plugin.catalogue.names import ImageRecord

SAME_CAMERA = ("drop", "keep")  # what to do with gallery images of the query's camera
_LARGEST = 2**31  # identities are below it, so that they fit into 32-bit integers


class NumberedLists(NamedTuple):
    """torchreid's three lists."""

    train: list[ImageRecord]
    """Identities numbered 0, 1, …"""
    query: list[ImageRecord]
    """Identities numbered as in the gallery."""
    gallery: list[ImageRecord]
    test_pids: dict[str, int]
    """Identity in query or gallery → its number."""


def number_images(images: ImageList) -> NumberedLists:
    """Turns a list of images into torchreid's three lists.

    Training identities become 0, 1, …; those of query and gallery share one numbering, and keep
    their own numbers if all are numbers. Cameras share one numbering over all splits, which begins
    with those of the training images; without cameras each image file is its own camera.
    """
    splits = [images.of_split(split) for split in (TRAIN, QUERY, GALLERY)]
    train, *test = splits
    cameras = _number_words(
        sorted({_camera(image) for image in part}, key=id_order)
        for part in (train, [*test[0], *test[1]])
    )
    train_pids = _number_words([sorted({image.pid for image in train}, key=id_order)])
    test_pids = _test_numbers({image.pid for part in test for image in part})
    numbered = [
        [(str(image.path), pids[image.pid], cameras[_camera(image)], 0) for image in part]
        for part, pids in zip(splits, (train_pids, test_pids, test_pids), strict=True)
    ]
    return NumberedLists(numbered[0], numbered[1], numbered[2], test_pids)


def drop_cameras(
    query: Sequence[ImageRecord], gallery: Sequence[ImageRecord]
) -> tuple[list[ImageRecord], list[ImageRecord]]:
    """Replaces the cameras so that each image file is its own camera.

    Then gallery images of a query's camera are kept (`test.same_camera keep`). The query's own
    file, if it is also in the gallery, is still left out.
    """
    cameras = _number_words([dict.fromkeys(record[0] for record in [*query, *gallery])])
    parts = [[(r[0], r[1], cameras[r[0]], r[3]) for r in part] for part in (query, gallery)]
    return parts[0], parts[1]


def common_folder(paths: Iterable[Path]) -> Path:
    """The deepest folder that contains all files."""
    folders = {path.parent for path in paths}
    first = next(iter(folders))
    return next(
        above
        for above in (first, *first.parents)
        if all(folder.is_relative_to(above) for folder in folders)
    )


def _camera(image: ListedImage) -> str:
    return image.camid or str(image.path)


def _number_words(groups: Iterable[Iterable[str]]) -> dict[str, int]:
    """Numbers distinct words 0, 1, … in the order of the groups."""
    words = dict.fromkeys(word for group in groups for word in group)
    return {word: number for number, word in enumerate(words)}


def _test_numbers(pids: set[str]) -> dict[str, int]:
    ordered = sorted(pids, key=id_order)
    words = [pid for pid in ordered if id_order(pid)[0] or abs(int(pid)) >= _LARGEST]
    return _number_words([ordered]) if words else {pid: int(pid) for pid in ordered}
