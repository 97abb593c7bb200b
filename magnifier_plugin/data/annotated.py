"""Annotated data sets: any of torchreid's image data sets, with the inputs that a model declares.

`AnnotatedDataset` wraps a torchreid data set. It reads the same files and adds a joint transform
for an image and its maps, the declared inputs (`inputs.py`), and augmentation that is determined by
a sample's key (`seeding.SampleKey`).
"""

import copy
import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset
from torchvision import transforms as v1

from magnifier_plugin.catalogue.image_list import ConditionFile
from magnifier_plugin.catalogue.listed import find_name
from magnifier_plugin.catalogue.names import ImageRecord
from magnifier_plugin.catalogue.opening import open_dataset, own_folder
from magnifier_plugin.data.checks import default_label_set, report_problems
from magnifier_plugin.data.inputs import BatchInput, Sample, find_inputs
from magnifier_plugin.data.joint import Prepared
from magnifier_plugin.data.lists import in_stable_order, tested_lists
from magnifier_plugin.data.map_files import MAPS, Files, annotations_of
from magnifier_plugin.data.sample_cache import GIB, SampleCache
from magnifier_plugin.data.seeding import SampleKey, mixed_seed, torch_seeded
from magnifier_plugin.data.transforms import rebuild
from magnifier_plugin.images import read_image

logger = logging.getLogger(__name__)


class AnnotatedDataset(Dataset):
    """A torchreid image data set whose samples include the inputs that a model declares.

    It has the attributes that torchreid's data managers and engines read. An item is torchreid's
    dict plus one entry for each input, such as `"mask"`. With combineall the query and gallery
    images are training images too.

    Args:
        name: the data set's registered name in torchreid.
        root: the folder of all data sets.
        transform: torchreid's, or another Compose that `transforms.rebuild` supports.
        mode: "train", "query" or "gallery".
        masks_dir: the folder of all label maps; None for `default_masks_dir()`. The rendered data
            set has its own label maps, unless `<masks_dir>/synthetic` exists.
        max_missing: the highest share of images that may lack a file needed for an input, 0..1.
        label_set: source of the label maps; None for `checks.default_label_set()`.
        same_camera: "drop" or "keep", as in `options.DataOptions`.
        inputs: batch keys from `inputs.INPUTS`; `set_inputs` changes them.
        input_options: keyword arguments for the functions that make them, by key.
        as_pixels: return images as `pixels.Pixels`, to be normalised on the network's device,
            instead of normalised float32 [3, H, W]. torchreid's engines need the latter.
        options: the data set's own keyword arguments and those of torchreid's Dataset.
    Raises:
        FileNotFoundError: the data set is missing, or too many files for an input are.
        ValueError: torchreid would misread the data set, one of its lists is empty, no query has a
            match, the label maps belong to another label set, k_tfm is not 1, or an input is
            unknown.
    """

    cache: SampleCache | None = None
    _max_bytes, _workers, _mirrored = 0, 1, False

    def __init__(
        self,
        name: str,
        root: str | Path = "",
        *,
        transform: v1.Compose | None = None,
        mode: str = "train",
        masks_dir: str | Path | None = None,
        max_missing: float = 0.3,
        label_set: str | None = None,
        same_camera: str = "drop",
        inputs: Sequence[str] = (),
        input_options: Mapping[str, Mapping[str, Any]] | None = None,
        as_pixels: bool = False,
        **options: Any,
    ) -> None:
        if options.pop("k_tfm", 1) != 1:
            raise ValueError("k_tfm: expected 1; several views per image are not supported")
        self.name = find_name(name)
        plain = open_dataset(self.name, root, mode=mode, **options)
        self.transform, self.mode, self.combineall = transform, mode, plain.combineall
        self.query, self.gallery = tested = tested_lists(plain, same_camera)
        self._train_only, self.as_pixels = plain._train_only, as_pixels
        self.input_options = dict(input_options or {})
        self.dataset_dir = own_folder(plain)
        self.conditions_file: Path | None = getattr(plain, "conditions_file", None)
        self.keypoints_file: Path | None = getattr(plain, "keypoints_file", None)
        self.own_conditions: ConditionFile | None = getattr(plain, "own_conditions", None)
        self.test_pids: Mapping[str, int] = getattr(plain, "test_pids", {})
        annotations = annotations_of(
            plain, self.name, masks_dir, max_missing, label_set or default_label_set()
        )
        self._set_train(in_stable_order(plain.train))
        if mode == "query" and not plain._train_only:
            report_problems(self.name, plain, self.train, *tested)
        self.data: list[ImageRecord] = getattr(self, mode)
        # One entry per data set that was added up: where its maps are, and its images.
        self.parts = [(annotations, [record[0] for record in self.data])]
        self.files: dict[str, Files] = {}
        self.inputs: dict[str, BatchInput] = {}
        self.set_inputs(inputs)

    def set_inputs(self, keys: Sequence[str], *, mirrored: bool = False) -> None:
        """Choose the inputs that samples include.

        Args:
            keys: batch keys from `inputs.INPUTS`.
            mirrored: also include the inputs of the mirror image, as a dict in "mirrored".
        Raises:
            FileNotFoundError: too many of the files needed for them are missing.
            ValueError: a key is unknown, or the label maps belong to another label set.
        """
        self._mirrored = mirrored and bool(keys)
        if tuple(keys) == tuple(self.inputs):
            return
        inputs = find_inputs(keys)
        kinds = dict.fromkeys(kind for row in inputs.values() for kind in row.maps)
        self.files = {kind: self.files.get(kind) or self._find(kind) for kind in kinds}
        self.inputs = inputs
        self._open_cache()

    def keep_samples(self, max_bytes: int, workers: int) -> None:
        """Cache resized images and their maps in memory, see `sample_cache`.

        Args:
            max_bytes: the most memory to use; 0 for no cache.
            workers: number of processes that read samples; 0 counts as 1.
        Raises:
            ValueError: the transform does not begin with a Resize to a height and width, or there
                is too little memory.
        """
        self._max_bytes, self._workers = max_bytes, max(1, workers)
        self._open_cache()

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: int | SampleKey) -> dict[str, Any]:
        """One sample, augmented as a SampleKey determines; for an int, with torch's generator."""
        index = key.image if isinstance(key, SampleKey) else key
        path, pid, camid, dsetid = record = self.data[index]
        prepared = self._prepare(index)
        seeded = torch_seeded(mixed_seed(*key)) if isinstance(key, SampleKey) else nullcontext()
        with seeded:
            view = self._joint.augment(prepared)
        image = view.result if self.as_pixels else view.image
        item = {"img": image, "pid": pid, "camid": camid, "impath": path, "dsetid": dsetid}
        if self.inputs:
            sample = Sample(record, view, self._joint.normalise)
            item |= self._make_inputs(sample)
            if self._mirrored:
                item["mirrored"] = self._make_inputs(sample.mirrored())
        return item

    def __add__(  # type: ignore[override]  # torch concatenates, torchreid sums
        self, other: "AnnotatedDataset"
    ) -> "AnnotatedDataset":
        """The training images of both data sets; the second's ids are shifted, as in torchreid.

        Raises:
            TypeError: the other data set is not annotated, or has other inputs.
        """
        if not isinstance(other, AnnotatedDataset) or tuple(other.inputs) != tuple(self.inputs):
            raise TypeError(
                f"cannot add {type(other).__name__} to {type(self).__name__}: all sources must "
                "have the same inputs; torchreid's scripts name annotated ones NAME_masked"
            )
        total = copy.copy(self)
        shifted = [
            (path, pid + self.num_train_pids, camid + self.num_train_cams, ds + self.num_datasets)
            for path, pid, camid, ds in other.train
        ]
        total.parts = [*self.parts, *other.parts]
        total.files = {kind: self.files[kind] | other.files[kind] for kind in self.files}
        # As in torchreid's own sum; otherwise combineall would be applied a second time.
        total.combineall, total.cache = False, None
        total._set_train([*self.train, *shifted])
        total.data = total.train
        return total

    def __radd__(self, other: Any) -> "AnnotatedDataset":
        """torchreid adds up its sources with `sum`, which starts from 0."""
        return self if other == 0 else self.__add__(other)

    def _set_train(self, train: list[ImageRecord]) -> None:
        self.train = train
        pids, camids, dsetids = (len({record[i] for record in train}) for i in (1, 2, 3))
        self.num_train_pids, self.num_train_cams, self.num_datasets = pids, camids, dsetids
        photos, exact = [record[0] for record in train], self.mode != "train"
        self._joint = rebuild(self.transform, patch_sources=photos, exact=exact)

    def _find(self, kind: str) -> Files:
        files: Files = {}
        for annotations, images in self.parts:
            files |= annotations.find(kind, images, self.mode)
        return files

    def _open_cache(self) -> None:
        self.cache = None
        if not self._max_bytes:
            return
        if self._joint.resize is None:
            raise ValueError(
                "data.cache_gb: expected a transform that begins with Resize to a height and "
                "width, since all cached images have one size; 0 turns the cache off"
            )
        height, width = self._joint.resize.size
        shapes = {"image": (height, width, 3), "labels": (height, width), "iuv": (3, height, width)}
        kept = [shapes[kind] for kind in ("image", *self.files)]
        self.cache = SampleCache(kept, len(self), self._max_bytes, self._workers)
        logger.info(
            "%s: %d of %d images are cached in memory once they are read, %.2f GiB",
            *(self.name, self.cache.slots, len(self), self.cache.nbytes / GIB),
        )

    def _prepare(self, index: int) -> Prepared:
        """An image and its maps before augmentation, from the cache if it has them."""
        path, kinds = self.data[index][0], ("image", *self.files)
        if self.cache and (arrays := self.cache.read(index)) is not None:
            found = dict(zip(kinds, arrays, strict=True))
            absent = [kind for kind, files in self.files.items() if files[path] is None]
            return Prepared.of_arrays(**{k: a for k, a in found.items() if k not in absent})
        image = read_image(path)
        prepared = self._joint.prepare(image, **self._read_maps(path, (image.height, image.width)))
        if self.cache:
            made = prepared.arrays()
            self.cache.write(index, [made.get(kind) for kind in kinds])
        return prepared

    def _read_maps(self, path: str, size: tuple[int, int]) -> dict[str, np.ndarray]:
        """Those maps of an image that the inputs need and that exist."""
        found = ((kind, files[path]) for kind, files in self.files.items())
        return {kind: MAPS[kind].read(file, size) for kind, file in found if file is not None}

    def _make_inputs(self, sample: Sample) -> dict[str, Any]:
        return {
            key: row.make(sample, **self.input_options.get(key, {}))
            for key, row in self.inputs.items()
        }
