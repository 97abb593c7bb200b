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

    Raises:
        ValueError: a data set or a transform is unknown, no source is given, or cache_gb is
            negative or infinite.
    """

    root: str | Path = ""
    """The folder of all data sets."""
    sources: str | Sequence[str] | None = None
    """Names of the data sets to train on, such as `market1501` (`market1501_masked` means the
    same); `shop=PATH` names your own CSV or folder `shop` (`catalogue.listed`)."""
    targets: str | Sequence[str] | None = None
    """Names of the data sets to test on; None for the sources."""
    height: int = 256
    """Height of the network's input, in pixels."""
    width: int = 128
    """Width of the network's input, in pixels."""
    transforms: str | Sequence[str] | None = "random_flip"
    """Names from `transforms.TRANSFORMS`."""
    norm_mean: Sequence[float] | None = None
    """Mean of R, G, B in 0..1; None for ImageNet's."""
    norm_std: Sequence[float] | None = None
    """Standard deviation of R, G, B, for values in 0..1; None for ImageNet's."""
    use_gpu: bool = True
    """Pin batches for a GPU if there is one."""
    split_id: int = 0
    """Number of the split, for data sets with several."""
    combineall: bool = False
    """Train on query and gallery images too."""
    batch_size_train: int = 32
    """Images in a training batch, total over all processes."""
    batch_size_test: int = 32
    """Images in a test batch."""
    workers: int = 4
    """Processes per data loader; 0 to read images in the main process."""
    num_instances: int = 4
    """Images per identity in a batch (RandomIdentitySampler)."""
    num_cams: int = 1
    """Cameras in a batch (RandomDomainSampler); 0 for all."""
    num_datasets: int = 1
    """Data sets in a batch (RandomDatasetSampler); 0 for all."""
    train_sampler: str = "RandomSampler"
    """Name of a sampler of torchreid."""
    cuhk03_labeled: bool = False
    """Use CUHK03's labelled boxes instead of the detected ones."""
    cuhk03_classic_split: bool = False
    """Use CUHK03's 1,367 / 100 split instead of 767 / 700."""
    market1501_500k: bool = False
    """Add Market-1501's distractors to the gallery."""
    masks_dir: str | Path | None = None
    """The folder of all label maps; None for `masks.paths.default_masks_dir()`."""
    max_missing: float = 0.3
    """The highest share of images that may lack a file needed for an input, 0..1."""
    label_set: str = "densepose"
    """Source of the label maps, such as `densepose` or `lip`."""
    same_camera: str = "drop"
    """"drop": gallery images of the query's identity and camera are ignored, as in torchreid;
    "keep": they count, except the query's own file."""
    inputs: Sequence[str] = ()
    """Batch keys, from `inputs.INPUTS`, that training samples include; an engine replaces them with
    the keys that its model declares."""
    test_inputs: Sequence[str] = ()
    """Batch keys that query and gallery samples include; an engine replaces them likewise."""
    input_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Keyword arguments for the functions that make the inputs, by key."""
    as_pixels: bool = False
    """Return images as `pixels.Pixels` (uint8), to be normalised on the network's device, instead
    of normalised floats. torchreid's own engines need floats; this package's engines accept
    both."""
    cache_gb: float = 0
    """Memory limit in GiB of the cache of resized training images and their maps; 0 for no
    cache."""
    seed: int = 1
    """Seed of samplers and augmentation."""
    persistent_workers: bool = True
    """Keep the training workers alive between epochs."""
    dataset_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Further keyword arguments for a data set's class, by the data set's name."""
    num_replicas: int = 1
    """Number of processes that share a training batch."""
    rank: int = 0
    """Number of this process, from 0."""

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
