"""torchreid's image data manager with label maps, repeatable batches and early, clear errors."""

import logging
from typing import Any

import torch
import torchreid
from torch.utils.data import DataLoader

from magnifier_plugin.catalogue.inspection import Lists, check_lists
from magnifier_plugin.catalogue.layouts import dataset_class
from magnifier_plugin.data.annotated import MaskedDataset, Record, masked
from magnifier_plugin.data.options import DataOptions
from magnifier_plugin.data.samplers import build_sampler
from magnifier_plugin.data.transforms import PAD_CROP, with_pad_crop
from magnifier_plugin.masks.checking import check_manifest, manifest_folder

logger = logging.getLogger(__name__)


class MaskedImageDataManager(torchreid.data.ImageDataManager):
    """A data manager for torchreid's engines and ours, whose training batches bring label maps.

    It has torchreid's attributes (`train_loader`, `test_loader`, `num_train_pids`, …). A training
    batch is torchreid's dict and `"mask"`, uint8 [B, H, W]. The same seed and epoch give the same
    batches, with any number of workers and after resuming. Data sets keep their plain names.

    Args:
        options: the keyword arguments that `options.DataOptions` lists, no others.
    Raises:
        TypeError: there is no such argument.
        FileNotFoundError: a data set is missing (nothing is downloaded), or its label maps are.
        ValueError: an argument or a data set cannot be used, as the message says.
    """

    def __init__(self, **options: Any):
        self.options = given = DataOptions(**options)
        # Past ImageDataManager's own constructor, which has no place for what its data sets and
        # loaders need here, to its parent's, which makes the transforms.
        super(torchreid.data.ImageDataManager, self).__init__(
            sources=given.sources,
            targets=given.targets,
            height=given.height,
            width=given.width,
            transforms=given.transforms,
            norm_mean=given.norm_mean,
            norm_std=given.norm_std,
            use_gpu=given.use_gpu,
        )
        if PAD_CROP in given.transforms:
            self.transform_tr = with_pad_crop(self.transform_tr, given.height, given.width)
        self._build_training()
        self._build_testing()

    def set_epoch(self, epoch: int) -> None:
        """Chooses which epoch's batches the training loaders give next, counted from 0."""
        for loader in (self.train_loader, self.train_loader_t):
            if loader is not None:
                loader.sampler.set_epoch(epoch)

    def _build_training(self) -> None:
        given = self.options
        trainset = sum(self._source(name) for name in self.sources)
        self._num_train_pids = trainset.num_train_pids
        self._num_train_cams = trainset.num_train_cams
        self.train_loader = self._train_loader(trainset, given.train_sampler)
        logger.info(
            "Training on %s: %d identities, %d images, %d cameras, %d batches an epoch",
            ", ".join(self.sources),
            trainset.num_train_pids,
            len(trainset),
            trainset.num_train_cams,
            len(self.train_loader),
        )
        self.train_loader_t = None
        if given.load_train_targets:
            both = sorted(set(self.sources) & set(self.targets))
            if both:
                raise ValueError(f"load_train_targets: {', '.join(both)} is source and target")
            targets = sum(self._dataset(name, use_masks=False) for name in self.targets)
            self.train_loader_t = self._train_loader(targets, given.train_sampler_t)

    def _build_testing(self) -> None:
        self.test_loader: dict[str, dict[str, DataLoader]] = {}
        self.test_dataset: dict[str, dict[str, list[Record]]] = {}
        for name in self.targets:
            sets = {
                mode: self._dataset(
                    name,
                    mode=mode,
                    transform=self.transform_te,
                    k_tfm=1,
                    combineall=self.options.combineall,
                    verbose=mode == "query",
                )
                for mode in ("query", "gallery")
            }
            if not sets["query"]._train_only:
                part = sets["query"]
                combined = self.options.combineall
                lists = check_lists(part.train, part.query, part.gallery, combined)
                warn_of_problems(name, lists)
            self.test_loader[name] = {mode: self._test_loader(part) for mode, part in sets.items()}
            self.test_dataset[name] = {mode: part.data for mode, part in sets.items()}

    def _source(self, name: str) -> MaskedDataset:
        given = self.options
        source = self._dataset(
            name,
            combineall=given.combineall,
            use_masks=given.use_masks,
            **given.source_options.get(name, {}),
        )
        labels = [label for label in source.labels.values() if label]
        if labels:
            folder = manifest_folder(labels) or labels[0].parent
            check_manifest(folder, given.label_set)
        return source

    def _dataset(self, name: str, **options: Any) -> MaskedDataset:
        """A data set by its plain name; its label maps count in train mode only."""
        given = self.options
        arguments = {
            "transform": self.transform_tr,
            "k_tfm": given.k_tfm,
            "mode": "train",
            "masks_dir": given.masks_dir,
            "max_missing": given.max_missing,
            **given.of_datasets(),
            **options,
        }
        return masked(dataset_class(name), name)(**arguments)

    def _train_loader(self, trainset: MaskedDataset, sampler: str) -> DataLoader:
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
            persistent_workers=given.persistent_workers and given.workers > 0,
            # A loader draws a seed for its workers, once or each epoch; not from the training's.
            generator=torch.Generator(),
        )

    def _test_loader(self, dataset: MaskedDataset) -> DataLoader:
        return DataLoader(
            dataset,
            batch_size=self.options.batch_size_test,
            num_workers=self.options.workers,
            pin_memory=self.use_gpu,
        )


def warn_of_problems(name: str, lists: Lists) -> None:
    """The data set doctor's cheap part, before hours are spent.

    Args:
        name: the data set's, for the messages.
        lists: what the doctor found in torchreid's lists.
    Raises:
        ValueError: no query has a match in the gallery.
    """
    told = "; ".join(problem.text for problem in lists.problems)
    queries = next(subset.images for subset in lists.subsets if subset.name == "query")
    if len(lists.absent) + len(lists.same_camera) == queries:
        raise ValueError(f"{name}: {told}")
    for problem in lists.problems:
        logger.warning("%s: %s", name, problem.text)
