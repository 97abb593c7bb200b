"""Masked data sets: any of torchreid's image data sets, whose training images bring label maps.

`masked(Market1501, "market1501")` is a class that torchreid can register and build like its own.
It reads the same files; what it adds is the label map of each training image, one joint transform
for both, clear errors, and a sample's randomness from its key (`seeding.SampleKey`).
"""

import copy
import logging
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from magnifier_plugin.catalogue.layouts import missing_data, require_folder
from magnifier_plugin.data.seeding import SampleKey, mixed_seed, torch_seeded
from magnifier_plugin.data.transforms import View, rebuild
from magnifier_plugin.files import read_image
from magnifier_plugin.masks.label_maps import read_labels
from magnifier_plugin.masks.paths import default_masks_dir, label_path
from magnifier_plugin.regions import UNKNOWN

logger = logging.getLogger(__name__)

# torchreid's tuple for an image: path, identity, camera, number of its data set in a sum.
Record = tuple[str, int, int, int]

_VARIANTS: dict[tuple[type, str], type] = {}


class MaskedDataset:
    """What `masked` puts before a torchreid image data set class.

    In train mode an item is torchreid's dict and `"mask"`, uint8 [H, W], region ids 0..7, 255
    where unknown; a list of k_tfm of them, as torchreid's images, when k_tfm > 1. An image
    without a label map has 255 everywhere. In query and gallery mode an item is torchreid's.
    With combineall the query and gallery images are training images and need label maps too.

    Args:
        root: the folder of all data sets.
        masks_dir: the folder of all label maps; None for `labels.default_masks_dir()`.
        max_missing: the highest share of training images without a label map, 0..1.
        use_masks: False leaves out the label maps and `"mask"`.
        options: the data set's own keyword arguments and those of torchreid's Dataset.
    Raises:
        FileNotFoundError: the data set is not there, or too many label maps are missing.
        ValueError: torchreid would misread the data set, or a list of it is empty.
    """

    plain: type
    label_folder: str

    def __init__(
        self,
        root: str = "",
        *,
        masks_dir: str | Path | None = None,
        max_missing: float = 0.3,
        use_masks: bool = True,
        **options: Any,
    ):
        # Only torchreid's own are known to lie there; another class says it by the hooks below.
        folder = None
        if self.plain.__module__.startswith("torchreid."):
            # The class's: CUHK02's constructor gives its instances a deeper one.
            folder = Path(root).expanduser().absolute() / self.dataset_dir
            require_folder(self.label_folder, folder)
        try:
            super().__init__(root=str(root), **options)
        except IndexError as error:
            raise ValueError(
                f"{self.label_folder}: torchreid takes the first image of its train, query and "
                "gallery lists, and one of them is empty"
            ) from error
        self.use_masks = use_masks
        self.labels: dict[str, Path | None] = {}
        if self.mode != "train":
            return
        self._set_train(in_stable_order(self.train))
        if use_masks:
            place = Path(masks_dir or default_masks_dir())
            self._find_labels(folder or Path(self.dataset_dir), place, max_missing)

    def __getitem__(self, key: int | SampleKey) -> dict[str, Any]:
        """One sample; its augmentation follows from a SampleKey, for an int from the worker."""
        path, pid, camid, dsetid = self.data[key.index if isinstance(key, SampleKey) else key]
        item = {"img": None, "pid": pid, "camid": camid, "impath": path, "dsetid": dsetid}
        image = read_image(path)
        if self.mode != "train":
            if self.transform is not None:
                image = self._transform_image(self.transform, self.k_tfm, image)
            return item | {"img": image}
        labels = self._read_labels(path, (image.height, image.width))
        seeded = torch_seeded(mixed_seed(*key)) if isinstance(key, SampleKey) else nullcontext()
        with seeded:
            views = [self._joint(image, labels) for _ in range(self.k_tfm)]
        item["img"] = _one_or_list([view.image for view in views])
        if self.use_masks:
            item["mask"] = _one_or_list([self._mask(path, view) for view in views])
        return item

    def __add__(self, other: "MaskedDataset") -> "MaskedDataset":
        """The training images of both, numbered on as torchreid does, each with its label map."""
        if not isinstance(other, MaskedDataset) or other.use_masks != self.use_masks:
            raise TypeError(
                f"cannot add {type(other).__name__} to {type(self).__name__}: either all sources "
                "bring label maps or none; torchreid's scripts name masked ones NAME_masked"
            )
        total = copy.copy(self)
        shifted = [
            (
                path,
                pid + self.num_train_pids,
                camid + self.num_train_cams,
                dsetid + self.num_datasets,
            )
            for path, pid, camid, dsetid in other.train
        ]
        total.labels = self.labels | other.labels
        # As in torchreid's own sum, which would apply combineall a second time otherwise.
        total.combineall = False
        total._set_train([*self.train, *shifted])
        return total

    def __reduce_ex__(self, protocol: int) -> tuple:
        """A class that `masked` made is made again in a worker that has not made it yet."""
        if type(self) is masked(self.plain, self.label_folder):
            return _blank, (self.plain, self.label_folder), self.__dict__
        return super().__reduce_ex__(protocol)

    def download_dataset(self, dataset_dir: str, dataset_url: str | None) -> None:
        """Never downloads: torchreid's addresses are dead and hang."""
        if not Path(dataset_dir).exists():
            raise missing_data(self.label_folder, dataset_dir, Path(dataset_dir))

    def check_before_run(self, required_files: str | Sequence[str]) -> None:
        """torchreid's check of the paths a data set needs, saying what to do about it."""
        paths = [required_files] if isinstance(required_files, str) else required_files
        for path in paths:
            if not Path(path).exists():
                raise missing_data(self.label_folder, path, Path(self.dataset_dir))

    def _set_train(self, train: list[Record]) -> None:
        self.train = self.data = train
        self.num_train_pids = self.get_num_pids(train)
        self.num_train_cams = self.get_num_cams(train)
        self.num_datasets = self.get_num_datasets(train)
        self._joint = rebuild(self.transform, donors=[record[0] for record in train])

    def _find_labels(self, dataset_dir: Path, masks_dir: Path, max_missing: float) -> None:
        for path, *_ in self.train:
            file = label_path(path, dataset_dir, self.label_folder, masks_dir)
            self.labels[path] = file if file.exists() else None
        missing = sum(file is None for file in self.labels.values())
        folder = masks_dir / self.label_folder
        logger.info(
            "%s: %d of %d training images have no label map in %s",
            self.label_folder,
            missing,
            len(self.labels),
            folder,
        )
        if missing > max_missing * len(self.labels):
            raise FileNotFoundError(
                f"{self.label_folder}: {missing} of {len(self.labels)} training images have no "
                f"label map in {folder}, at most a share of {max_missing} may lack one "
                "(masks.max_missing); make them with: python scripts/convert_masks.py "
                f"--source densepose-iuv --iuv DIR --images {dataset_dir} --out {folder}"
            )

    def _read_labels(self, path: str, size: tuple[int, int]) -> np.ndarray | None:
        file = self.labels.get(path)
        if file is not None:
            return read_labels(file, size)
        return np.full(size, UNKNOWN, dtype=np.uint8) if self.use_masks else None

    def _mask(self, path: str, view: View) -> torch.Tensor:
        # A padded border is background, but a sample without a label map is unknown throughout.
        return view.labels if self.labels.get(path) else view.labels.fill_(UNKNOWN)


def in_stable_order(train: Sequence[Record]) -> list[Record]:
    """The list sorted by path, its identities numbered as they come.

    torchreid lists folders in the file system's order and numbers identities in a set's order,
    so two machines may train two different lists. The whole Market-1501 keeps torchreid's numbers.
    """
    ordered = sorted(train)
    numbers = {pid: n for n, pid in enumerate(dict.fromkeys(pid for _, pid, *_ in ordered))}
    return [(path, numbers[pid], camid, dsetid) for path, pid, camid, dsetid in ordered]


def masked(cls: type, name: str) -> type:
    """The masked variant of a torchreid image data set class.

    Args:
        cls: the class; one that is masked already is given back.
        name: its registered name in torchreid, which is the name of its folder of label maps.
    Returns:
        `<cls>Masked`, a subclass of MaskedDataset and cls, the same one each time.
    """
    if issubclass(cls, MaskedDataset):
        return cls
    if (cls, name) in _VARIANTS:
        return _VARIANTS[cls, name]
    body = {"plain": cls, "label_folder": name, "__module__": __name__, "__doc__": cls.__doc__}
    variant = type(f"{cls.__name__}Masked", (MaskedDataset, cls), body)
    # Pickle looks a class up by its name in its module.
    globals().setdefault(variant.__name__, variant)
    _VARIANTS[cls, name] = variant
    return variant


def _blank(cls: type, name: str) -> MaskedDataset:
    variant = masked(cls, name)
    return variant.__new__(variant)


def _one_or_list(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values
