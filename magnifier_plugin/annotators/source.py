"""What every annotator's output is turned into, whatever wrote it.

A source is a collection of items, one for each image it annotated. An item is light (a path, or
arrays that already lie in memory), can be pickled, and reads itself in a worker process. To add
an annotator is to write these two, in a file of its own.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from magnifier_plugin.files import absolute_path


class Annotation(NamedTuple):
    """One image's annotation."""

    labels: np.ndarray
    """uint8 [H, W], region ids 0..7, 255 unknown."""
    iuv: np.ndarray | None = None
    """uint8 [H, W, 3] in the order I, U, V, from DensePose's sources; else None."""
    ambiguity: str = ""
    """Why the choice among several people in the picture is uncertain; "" if it is not."""


class Item(Protocol):
    """The annotation of one image, not yet read."""

    @property
    def name(self) -> str:
        """How the annotator calls the image: a file name, with or without folders or suffix."""

    def read(self, size: tuple[int, int]) -> Annotation:
        """Reads it for an image of this height and width.

        Raises:
            ValueError: the annotation is damaged, of another size, or holds unknown ids.
        """


class Source(Protocol):
    """What one annotator wrote for a set of images.

    name: the source's kind, as `scripts/convert_masks.py --source` calls it.
    label_set: the name of the table from the annotator's ids to the 8 regions.
    definition: all that decides which region a pixel becomes, as plain JSON types.
    folders: where its files lie, should that be among the data set's images.
    has_iuv: its annotations carry an IUV.
    """

    name: str
    label_set: str
    definition: dict[str, Any]
    folders: tuple[Path, ...]
    has_iuv: bool

    def __iter__(self) -> Iterator[Item]: ...


def check_size(path: object, found: tuple[int, int], expected: tuple[int, int]) -> None:
    """Raises ValueError unless an annotation has its image's height and width."""
    if tuple(found) != tuple(expected):
        raise ValueError(
            f"{path}: {found[0]} × {found[1]} (height × width), but the image is "
            f"{expected[0]} × {expected[1]}; annotate the data set's own images, not resized ones"
        )


def annotation_files(folder: str | os.PathLike[str], suffix: str) -> list[Path]:
    """The files of an annotator at any depth below a folder.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds no file that ends in suffix.
    """
    folder = absolute_path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder, expected one of *{suffix}")
    # Hidden files are another process's unfinished ones, or macOS's copies of metadata.
    paths = sorted(path for path in folder.rglob(f"*{suffix}") if path.name[0] != ".")
    if not paths:
        raise ValueError(f"{folder}: no *{suffix} in it; did the annotator write elsewhere?")
    return paths
