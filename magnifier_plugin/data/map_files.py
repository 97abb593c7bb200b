"""The files of label maps and IUV of a data set's images."""

import logging
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from magnifier_plugin.annotators.densepose import label_set_name, read_iuv
from magnifier_plugin.annotators.keypoints import KeypointSource
from magnifier_plugin.annotators.npy import NpyFolder
from magnifier_plugin.annotators.source import check_size
from magnifier_plugin.catalogue.listed import OwnSource
from magnifier_plugin.catalogue.names import registered_datasets
from magnifier_plugin.catalogue.opening import own_folder
from magnifier_plugin.data.checks import check_label_set
from magnifier_plugin.masks.label_maps import read_labels
from magnifier_plugin.masks.paths import default_masks_dir, iuv_path, label_path
from magnifier_plugin.wording import many

logger = logging.getLogger(__name__)

Files = dict[str, Path | None]

_FROM_IUV = "--source densepose-iuv --iuv DIR"  # a source of label maps and IUV, for the converter


def _read_sized_iuv(path: Path, size: tuple[int, int]) -> np.ndarray:
    iuv = read_iuv(path)
    check_size(path, iuv.shape[:2], size)
    return iuv


class MapKind(NamedTuple):
    """One kind of map that an image can have."""

    noun: str
    """Its name in messages."""
    path: Callable[[Path], Path]
    """Path of an image's label map → path of this map."""
    read: Callable[[Path, tuple[int, int]], np.ndarray]
    """Path of the map, (height, width) of the image → the map."""
    flag: str
    """Additional flag with which scripts/convert_masks.py writes it."""
    if_absent: str
    """How an image without it is used, for messages."""


MAPS = {
    "labels": MapKind(
        "label map", lambda label: label, read_labels, "", "all their pixels count as unknown"
    ),
    "iuv": MapKind("IUV", iuv_path, _read_sized_iuv, " --keep-iuv", "their textures are blank"),
}


class Annotations(NamedTuple):
    """Where the maps of one data set's images are."""

    name: str
    """The data set's name in torchreid."""
    folder: str
    """The name of its folder in masks_dir; differs from `name` for the rendered data set."""
    dataset_dir: Path
    """The data set's own folder."""
    masks_dir: Path
    """The folder of all label maps."""
    max_missing: float
    """The highest share of images that may lack a map, 0..1."""
    label_set: str
    """The source of the label maps, such as "densepose"."""

    def find(self, kind: str, images: Sequence[str], mode: str) -> Files:
        """Image → path of its map; None for an image without one.

        Args:
            kind: a kind from `MAPS`.
            images: paths.
            mode: "train", "query" or "gallery", for messages.
        Raises:
            FileNotFoundError: a share of more than max_missing of the images has no map.
            ValueError: the label maps belong to another label set.
        """
        noun, flag = MAPS[kind].noun, MAPS[kind].flag
        files: Files = {}
        for image in images:
            label = label_path(image, self.dataset_dir, self.folder, self.masks_dir)
            file = MAPS[kind].path(label)
            files[image] = file if file.exists() else None
        missing = sum(file is None for file in files.values())
        folder = self.masks_dir / self.folder
        have = "has" if missing == 1 else "have"
        found = f"{missing} of {many(len(files), f'{mode} image')} {have} no {noun} in {folder}"
        source = _source_flags(self.label_set)
        if kind == "iuv" and not source.startswith(_FROM_IUV):  # next to label maps of another set
            source, flag = _FROM_IUV, " --iuv-only"
        command = (
            f"python scripts/convert_masks.py {source} "
            f"{self._images_flag()} --out {shlex.quote(str(folder))}{flag}"
        )
        if missing > self.max_missing * len(files):
            raise FileNotFoundError(
                f"{self.name}: {found}; at most {self.max_missing:.0%} of them may lack one "
                f"(masks.max_missing {self.max_missing}). Make them with: {command}"
            )
        if missing == len(files):
            logger.warning(
                "%s: %s; %s. Make them with: %s",
                *(self.name, found, MAPS[kind].if_absent, command),
            )
        elif missing:
            logger.info("%s: %s", self.name, found)
        if kind == "labels":
            check_label_set(files.values(), self.label_set)
        return files

    def _images_flag(self) -> str:
        """The flag that names the images on the converter's command line."""
        source = registered_datasets().get(self.name)
        if isinstance(source, OwnSource):
            return f"-s {shlex.quote(f'{source.name}={source.path}')}"
        return f"--images {shlex.quote(str(self.dataset_dir))}"


def _source_flags(label_set: str) -> str:
    """The converter's flags for a source whose label maps have this label set."""
    if label_set.startswith(label_set_name()):
        hands = "" if label_set == label_set_name() else " --hands background"
        return _FROM_IUV + hands
    for source in (NpyFolder, KeypointSource):
        if label_set == source.label_set:
            return f"--source {source.name} --{source.name} PATH"
    return f"--source parsing --parsing DIR --label-set {shlex.quote(label_set)}"


def annotations_of(
    plain: Any, name: str, masks_dir: str | Path | None, max_missing: float, label_set: str
) -> Annotations:
    """Find out where the maps of a data set's images are.

    The rendered data set has its own maps, unless `<masks_dir>/synthetic` exists.

    Args:
        plain: torchreid's data set.
        name: its name in torchreid.
        masks_dir: the folder of all label maps; None for `default_masks_dir()`.
        max_missing, label_set: as in `Annotations`.
    """
    own = getattr(plain, "masks_dir", None)
    folder, masks = name, Path(masks_dir or default_masks_dir())
    if own and not (masks / name).is_dir():
        folder, masks = plain.label_folder, Path(own)
    return Annotations(name, folder, own_folder(plain), masks, max_missing, label_set)
