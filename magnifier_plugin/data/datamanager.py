"""A torchreid data manager with declared inputs, reproducible batches and early, clear errors."""

import logging
from functools import reduce
from operator import add
from typing import Any, cast

import torch
import torchreid
from torch.utils.data import DataLoader

from magnifier_plugin.catalogue.names import ImageRecord
from magnifier_plugin.data.annotated import AnnotatedDataset
from magnifier_plugin.data.options import DataOptions
from magnifier_plugin.data.sample_cache import GIB
from magnifier_plugin.data.samplers import SeededSampler, build_sampler
from magnifier_plugin.data.transforms import PAD_CROP, with_pad_crop
from magnifier_plugin.wording import many
from magnifier_plugin.workers import leave_signals_to_parent

logger = logging.getLogger(__name__)

# torchreid.data does not export this base class of ImageDataManager and VideoDataManager.
DataManager: Any = torchreid.data.ImageDataManager.__base__


class AnnotatedDataManager(DataManager):
    """A data manager for torchreid's engines and this package's.

    It has the attributes of torchreid's ImageDataManager (`train_loader`, `test_loader`,
    `num_train_pids`, …). A batch is torchreid's dict plus one entry for each declared input, such
    as "mask", uint8 [B, H, W]. The same seed and epoch give the same batches, with any number of
    workers and after resuming. Data sets keep their names without `_masked`.

    Args:
        options: keyword arguments of `options.DataOptions`.
    Raises:
        TypeError: there is no such argument.
        FileNotFoundError: a data set is missing (nothing is downloaded), or too many of the files
            needed for an input are.
        ValueError: an argument or a data set cannot be used; the message says why.
    """

    data_type = "image"
    transform_tr: Any

    def __init__(self, **options: Any) -> None:
        self.options = given = DataOptions(**options)
        super().__init__(
            sources=given.sources,
            targets=given.targets,
            height=given.height,
            width=given.width,
            transforms=given.transforms,
            norm_mean=given.norm_mean,
            norm_std=given.norm_std,
            use_gpu=given.use_gpu,
        )
        if PAD_CROP in (given.transforms or ()):
            self.transform_tr = with_pad_crop(self.transform_tr, given.height, given.width)
        self._build_training()
        self._build_testing()

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Choose the epoch, and its first batch, that the training loader yields next.

        Args:
            epoch, first_batch: numbers, counted from 0.
        """
        cast(SeededSampler, self.train_loader.sampler).set_epoch(epoch, first_batch)

    def _build_training(self) -> None:
        given = self.options
        trainset = reduce(add, map(self._source, self.sources))
        trainset.keep_samples(int(given.cache_gb * GIB), given.workers)
        self._num_train_pids = trainset.num_train_pids
        self._num_train_cams = trainset.num_train_cams
        self.train_loader = self._train_loader(trainset, given.train_sampler)
        self.train_loader_t = None  # torchreid's attribute; targets are not trained on
        logger.info(
            "Training data %s: %s, %s, %s, %s per epoch",
            ", ".join(self.sources),
            many(trainset.num_train_pids, "identity"),
            many(len(trainset), "image"),
            many(trainset.num_train_cams, "camera"),
            many(len(self.train_loader), "batch"),
        )

    def _build_testing(self) -> None:
        given = self.options
        self.test_loader: dict[str, dict[str, DataLoader]] = {}
        self.test_dataset: dict[str, dict[str, list[ImageRecord]]] = {}
        for name in self.targets:
            query, gallery = (
                self._dataset(
                    name,
                    mode=mode,
                    transform=self.transform_te,
                    inputs=given.test_inputs,
                    verbose=mode == "query",
                )
                for mode in ("query", "gallery")
            )
            sets = {"query": query, "gallery": gallery}
            self.test_loader[name] = {mode: self._test_loader(part) for mode, part in sets.items()}
            self.test_dataset[name] = {mode: part.data for mode, part in sets.items()}

    def _source(self, name: str) -> AnnotatedDataset:
        return self._dataset(
            name, mode="train", transform=self.transform_tr, inputs=self.options.inputs
        )

    def _dataset(self, name: str, **arguments: Any) -> AnnotatedDataset:
        given = self.options
        return AnnotatedDataset(
            name,
            combineall=given.combineall,
            masks_dir=given.masks_dir,
            max_missing=given.max_missing,
            label_set=given.label_set,
            same_camera=given.same_camera,
            input_options=given.input_options,
            as_pixels=given.as_pixels,
            **given.of_datasets(),
            **given.dataset_options.get(name, {}),
            **arguments,
        )

    def _train_loader(self, trainset: AnnotatedDataset, sampler: str) -> DataLoader:
        given = self.options
        return DataLoader(
            trainset,
            batch_size=given.batch_size_train // given.num_replicas,
            sampler=build_sampler(
                trainset.train,
                sampler,
                seed=given.seed,
                batch_size=given.batch_size_train,
                num_instances=given.num_instances,
                num_cams=given.num_cams,
                num_datasets=given.num_datasets,
                num_replicas=given.num_replicas,
                rank=given.rank,
            ),
            num_workers=given.workers,
            pin_memory=self.use_gpu,
            drop_last=True,
            worker_init_fn=leave_signals_to_parent,
            persistent_workers=given.persistent_workers and given.workers > 0,
            # The loader draws seeds for its workers, which must not come from the global generator.
            generator=torch.Generator(),
        )

    def _test_loader(self, dataset: AnnotatedDataset) -> DataLoader:
        return DataLoader(
            dataset,
            batch_size=self.options.batch_size_test,
            num_workers=self.options.workers,
            worker_init_fn=leave_signals_to_parent,
            pin_memory=self.use_gpu,
        )
