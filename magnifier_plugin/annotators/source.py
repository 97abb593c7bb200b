"""The common interface to the output of every annotator.

A source is a collection of unread annotations, one for each annotated image. An unread annotation
is small (a path, or arrays that are in memory already), can be pickled, and is read in a worker
process. To add an annotator, add a file that implements these two protocols.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from magnifier_plugin.files import absolute_path
from magnifier_plugin.folders import walk


class Annotation(NamedTuple):
    """One image's annotation."""

    labels: np.ndarray
    """uint8 [H, W], region ids 0..7, 255 unknown."""
    iuv: np.ndarray | None = None
    """uint8 [H, W, 3] in the order I, U, V, from DensePose's sources; else None."""
    ambiguity: str = ""
    """Why the choice among several people in the image is ambiguous; "" if it is not."""

    @property
    def has_person(self) -> bool:
        """Whether some pixel belongs to a person; annotators also write files without one."""
        return bool((self.labels if self.iuv is None else self.iuv[..., 0]).any())


class UnreadAnnotation(Protocol):
    """The annotation of one image, which has not been read yet."""

    @property
    def name(self) -> str:
        """The image's name in the annotator's output, with or without folders and suffix."""

    def read(self, size: tuple[int, int]) -> Annotation | None:
        """Reads it for an image of this height and width.

        Returns:
            The annotation; None if the annotator found no person in the image.
        Raises:
            ValueError: the annotation is damaged, has another size, or holds unknown ids.
        """


class Source(Protocol):
    """One annotator's output for a set of images."""

    @property
    def name(self) -> str:
        """The source's kind, as in `scripts/convert_masks.py --source`."""

    @property
    def label_set(self) -> str:
        """The name of the table from the annotator's ids to the 8 regions."""

    @property
    def definition(self) -> Mapping[str, Any]:
        """That table, as plain JSON types."""

    @property
    def folders(self) -> tuple[Path, ...]:
        """Folders of files that could be mistaken for images of the data set, and contain none.

        Empty if its files have other names than images: they may be next to the images then.
        """

    @property
    def files(self) -> Sequence[Path]:
        """The files that it reads, which a conversion must not replace."""

    @property
    def has_iuv(self) -> bool:
        """Whether its annotations include an IUV."""

    def __iter__(self) -> Iterator[UnreadAnnotation]: ...


def check_size(path: object, found: tuple[int, int], expected: tuple[int, int]) -> None:
    """Raises ValueError unless an annotation has its image's height and width."""
    if tuple(found) != tuple(expected):
        raise ValueError(
            f"{path}: {found[0]} × {found[1]} (height × width), but the image is "
            f"{expected[0]} × {expected[1]}; annotate the data set's own images, not resized ones"
        )


def annotation_files(folder: str | os.PathLike[str], *suffixes: str) -> list[Path]:
    """An annotator's files at any depth below a folder, sorted; see `folders.walk` for links.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: no file in it ends in one of the suffixes.
    """
    folder, kinds = absolute_path(folder), " or ".join(f"*{suffix}" for suffix in suffixes)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder, expected one that contains {kinds}")
    # Hidden files are unfinished ones of another process, or macOS's copies of metadata.
    found = sorted(
        Path(where, name)
        for where, _, names in walk(folder)
        for name in names
        if name.endswith(suffixes) and name[0] != "."
    )
    if not found:
        raise ValueError(f"{folder}: contains no {kinds}; did the annotator write elsewhere?")
    return found
