"""The options of the data manager."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from magnifier_plugin.catalogue.listed import find_name
from magnifier_plugin.catalogue.names import dataset_class
from magnifier_plugin.data.transforms import checked_names


@dataclass(kw_only=True)
class DataOptions:
    """The keyword arguments of AnnotatedDataManager: torchreid's, with its defaults, and ours.

    Attributes:
        root: the folder of all data sets.
        sources: names of the data sets to train on, such as `market1501` (`market1501_masked` means
            the same); `shop=PATH` names your own CSV or folder `shop` (`catalogue.listed`).
        targets: names of the data sets to test on; None for the sources.
        height: height of the network's input, in pixels.
        width: likewise.
        transforms: names from `transforms.TRANSFORMS`.
        norm_mean: mean of R, G, B in 0..1; None for ImageNet's.
        norm_std: standard deviation, likewise.
        use_gpu: pin batches for a GPU if there is one.
        split_id: number of the split, for data sets with several.
        combineall: train on query and gallery images too.
        batch_size_train: images in a training batch, total over all processes.
        batch_size_test: images in a test batch.
        workers: processes per data loader; 0 to read images in the main process.
        num_instances: images per identity in a batch (RandomIdentitySampler).
        num_cams: cameras in a batch (RandomDomainSampler).
        num_datasets: data sets in a batch (RandomDatasetSampler).
        train_sampler: name of a sampler of torchreid.
        cuhk03_labeled: use CUHK03's labelled boxes instead of the detected ones.
        cuhk03_classic_split: use CUHK03's 1,367 / 100 split instead of 767 / 700.
        market1501_500k: add Market-1501's distractors to the gallery.
        masks_dir: the folder of all label maps; None for `masks.paths.default_masks_dir()`.
        max_missing: the highest share of images that may lack a file needed for an input, 0..1.
        label_set: source of the label maps, such as `densepose` or `lip`.
        same_camera: "drop": gallery images of the query's identity and camera are ignored, as in
            torchreid; "keep": they count, except the query's own file.
        inputs: batch keys, from `inputs.INPUTS`, that training samples include; an engine replaces
            them with the keys that its model declares.
        test_inputs: the same for query and gallery.
        input_options: keyword arguments for the functions that make the inputs, by key.
        as_pixels: return images as `pixels.Pixels` (uint8), to be normalised on the network's
            device, instead of normalised floats. torchreid's own engines need floats; this
            package's engines accept both.
        cache_gb: memory limit in GiB of the cache of resized training images and their maps; 0 for
            no cache.
        seed: seed of samplers and augmentation.
        persistent_workers: keep the training workers alive between epochs.
        dataset_options: further keyword arguments for a data set's class, by the data set's name.
        num_replicas: number of processes that share a training batch.
        rank: number of this process, from 0.
    Raises:
        ValueError: a data set or a transform is unknown, no source is given, or cache_gb is
            negative or infinite.
    """

    root: str | Path = ""
    sources: str | Sequence[str] | None = None
    targets: str | Sequence[str] | None = None
    height: int = 256
    width: int = 128
    transforms: str | Sequence[str] | None = "random_flip"
    norm_mean: Sequence[float] | None = None
    norm_std: Sequence[float] | None = None
    use_gpu: bool = True
    split_id: int = 0
    combineall: bool = False
    batch_size_train: int = 32
    batch_size_test: int = 32
    workers: int = 4
    num_instances: int = 4
    num_cams: int = 1
    num_datasets: int = 1
    train_sampler: str = "RandomSampler"
    cuhk03_labeled: bool = False
    cuhk03_classic_split: bool = False
    market1501_500k: bool = False
    masks_dir: str | Path | None = None
    max_missing: float = 0.3
    label_set: str = "densepose"
    same_camera: str = "drop"
    inputs: Sequence[str] = ()
    test_inputs: Sequence[str] = ()
    input_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    as_pixels: bool = False
    cache_gb: float = 0
    seed: int = 1
    persistent_workers: bool = True
    dataset_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    num_replicas: int = 1
    rank: int = 0

    def __post_init__(self) -> None:
        _register(self.sources, self.targets)
        self.sources = _plain_names(self.sources)
        if not self.sources:
            raise ValueError("sources: expected the name of a data set to train on, got none")
        self.targets = _plain_names(self.targets) or self.sources
        self.transforms = checked_names(self.transforms)
        if not 0 <= self.cache_gb < math.inf:
            raise ValueError(f"cache_gb: expected a number of GiB, 0 or more, got {self.cache_gb}")

    def of_datasets(self) -> dict[str, Any]:
        """The keyword arguments that torchreid's data manager passes to every data set's class."""
        names = ("root", "split_id", "cuhk03_labeled", "cuhk03_classic_split", "market1501_500k")
        return {name: getattr(self, name) for name in names}


def _words(names: str | Sequence[str] | None) -> list[str]:
    return [names] if isinstance(names, str) else list(names or ())


def _register(*lists: str | Sequence[str] | None) -> None:
    """Register each `shop=PATH` first, so that the other list may refer to it as `shop`."""
    for word in (word for names in lists for word in _words(names) if "=" in word):
        find_name(word)


def _plain_names(names: str | Sequence[str] | None) -> list[str]:
    plain = [find_name(word) for word in _words(names)]
    for name in plain:
        dataset_class(name)  # refuses an unknown one
    return plain
