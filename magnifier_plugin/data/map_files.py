"""Which label maps and IUVs the images of one data set have."""

import logging
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from magnifier_plugin.annotators.densepose import read_iuv
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


def _read_sized_iuv(path: Path, size: tuple[int, int]) -> np.ndarray:
    iuv = read_iuv(path)
    check_size(path, iuv.shape[:2], size)
    return iuv


class MapKind(NamedTuple):
    """One kind of map that an image can have."""

    noun: str
    """As messages call it."""
    path: Callable[[Path], Path]
    """The path of an image's label map → that of this map."""
    read: Callable[[Path, tuple[int, int]], np.ndarray]
    """Path, and height and width of the image → the map."""
    flag: str
    """What scripts/convert_masks.py needs besides, to write it."""


MAPS = {
    "labels": MapKind("label map", lambda label: label, read_labels, ""),
    "iuv": MapKind("IUV", iuv_path, _read_sized_iuv, " --keep-iuv"),
}


class Annotations(NamedTuple):
    """Where the maps of one data set's images are."""

    name: str
    """The data set's name in torchreid."""
    folder: str
    """The name of its folder in masks_dir; other than the name for the rendered data set."""
    dataset_dir: Path
    """The data set's own folder."""
    masks_dir: Path
    """The folder of all label maps."""
    max_missing: float
    """The highest share of images that may lack a map, 0..1."""
    label_set: str
    """What the label maps were made with."""

    def find(self, kind: str, images: Sequence[str], part: str) -> Files:
        """The maps of these images, None for an image that has none.

        Args:
            kind: of `MAPS`.
            images: paths.
            part: "train", "query" or "gallery", for messages.
        Raises:
            FileNotFoundError: more than max_missing of them have none.
            ValueError: the label maps are of another label set.
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
        found = f"{missing} of {many(len(files), f'{part} image')} {have} no {noun} in {folder}"
        command = (
            "python scripts/convert_masks.py --source densepose-iuv --iuv DIR "
            f"{self._images_flag()} --out {shlex.quote(str(folder))}{flag}"
        )
        if missing > self.max_missing * len(files):
            raise FileNotFoundError(
                f"{self.name}: {found}; at most a share of {self.max_missing} may lack one "
                f"(masks.max_missing). Make them with: {command}"
            )
        if missing == len(files):
            logger.warning(
                "%s: %s; what is learnt from %ss is not trained on this data set. Make them "
                "with: %s",
                *(self.name, found, noun, command),
            )
        elif missing:
            logger.info("%s: %s", self.name, found)
        if kind == "labels":
            check_label_set(files.values(), self.label_set)
        return files

    def _images_flag(self) -> str:
        """What names the images in the converter's command line."""
        source = registered_datasets().get(self.name)
        if isinstance(source, OwnSource):
            return f"-s {shlex.quote(f'{source.name}={source.path}')}"
        return f"--images {shlex.quote(str(self.dataset_dir))}"


def annotations_of(
    plain: Any, name: str, masks_dir: str | Path | None, max_missing: float, label_set: str
) -> Annotations:
    """Where the maps of a data set's images are.

    The rendered data set has maps of its own; those in `<masks_dir>/synthetic` replace them.

    Args:
        plain: torchreid's data set.
        name: its name in torchreid.
        masks_dir: the folder of all label maps; None for `default_masks_dir()`.
        max_missing, label_set: as in `Annotations`.
    """
    own = getattr(plain, "masks_dir", None)
    if own and not (masks_dir and Path(masks_dir, name).is_dir()):
        folder, masks = plain.label_folder, Path(own)
    else:
        folder, masks = name, Path(masks_dir or default_masks_dir())
    return Annotations(name, folder, own_folder(plain), masks, max_missing, label_set)
