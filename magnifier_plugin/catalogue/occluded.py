"""Data sets of occluded and partial pedestrians by name, in their authors' folder layouts."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from magnifier_plugin.catalogue.folder_list import read_folder
from magnifier_plugin.catalogue.image_list import (
    GALLERY,
    QUERY,
    TRAIN,
    Findings,
    ImageList,
    ListedImage,
    checked_list,
    plain_id,
)
from magnifier_plugin.catalogue.images import list_images
from magnifier_plugin.catalogue.layouts import require_folder
from magnifier_plugin.catalogue.listed import ListedDataset
from magnifier_plugin.files import absolute_path


class _Part(NamedTuple):
    """The images of one folder."""

    split: str
    folder: str
    camid: str
    """The folder's camera: these data sets distinguish two views only by their folders."""


OCCLUDED, WHOLE = "0", "1"  # cameras
_OCCLUDED_REID = (
    _Part(QUERY, "occluded_body_images", OCCLUDED),
    _Part(GALLERY, "whole_body_images", WHOLE),
)
_PARTIAL = (
    _Part(QUERY, "partial_body_images", OCCLUDED),
    _Part(GALLERY, "whole_body_images", WHOLE),
)
_P_DUKEMTMC = (
    _Part(TRAIN, "train/occluded_body_images", OCCLUDED),
    _Part(TRAIN, "train/whole_body_images", WHOLE),
    _Part(QUERY, "test/occluded_body_images", OCCLUDED),
    _Part(GALLERY, "test/whole_body_images", WHOLE),
)


def _before_underscore(path: Path) -> str:
    return path.stem.partition("_")[0]


def _stem(path: Path) -> str:
    return path.stem


@dataclass(frozen=True)
class OccludedSet:
    """One of these data sets; calling it opens it, as calling one of torchreid's classes does."""

    name: str
    dataset_dir: str
    """Its folder within the folder of all data sets."""
    parts: tuple[_Part, ...] = ()
    """Its subfolders; empty: Market-1501's, with cameras in the files' names."""
    pid_of: Callable[[Path], str] = _before_underscore
    """Path of an image → its identity."""

    def __call__(self, root: str = "", *, mode: str = "train", **options: Any) -> ListedDataset:
        """Opens the data set.

        Raises:
            FileNotFoundError: a folder is missing.
            ValueError: the lists have errors, or a test-only data set is opened for training.
        """
        folder = absolute_path(root) / self.dataset_dir
        require_folder(self.name, folder)
        if mode == TRAIN and self.is_for_testing_only:
            raise ValueError(
                f"{self.name}: has no training images, so it cannot be trained on (-s); use it for "
                f"testing, as papers that report on it do: -s market1501 -t {self.name}"
            )
        images = self._read_parts(folder) if self.parts else read_folder(folder)
        return ListedDataset(self.name, images, folder, mode=mode, **options)

    @property
    def is_for_testing_only(self) -> bool:
        """Whether it has no training images."""
        return bool(self.parts) and all(part.split != TRAIN for part in self.parts)

    def _read_parts(self, folder: Path) -> ImageList:
        images, findings = [], Findings()
        for part in self.parts:
            for path in list_images(folder / part.folder):
                if pid := self.pid_of(path):
                    images.append(ListedImage(path, plain_id(pid), part.camid, part.split))
                else:
                    findings.add("without an identity before the first _ in its name", path)
        return checked_list(folder, images, findings.problems("image"))


OCCLUDED_SETS = (
    OccludedSet("occluded_duke", "Occluded_Duke"),
    OccludedSet("occluded_reid", "Occluded_REID", _OCCLUDED_REID),
    OccludedSet("partial_reid", "Partial_REID", _PARTIAL),
    OccludedSet("partial_ilids", "Partial_iLIDS", _PARTIAL, _stem),
    OccludedSet("p_dukemtmc", "P-DukeMTMC-reID", _P_DUKEMTMC),
)
