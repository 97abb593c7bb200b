"""Loading of training batches: images alone in torchreid, with the other inputs in this package.

Measured is the CPU time from the files of rendered pedestrians to a collated batch for the network,
with random_flip, random_crop and random_erase on both sides. torchreid's images are normalised
floats. This package's images are uint8; their normalisation on the CPU is included, except in the
column "to a GPU", since a GPU normalises them itself. "cached" is the speed of later epochs with
data.cache_gb. There is one process with one thread, so the numbers are per core, and other programs
hardly disturb them. All columns load the same batch in turn; the fastest of several passes counts
for each batch.
"""

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import torch
import torchreid
from torch.utils.data import default_collate

from benchmarks.measuring import machine
from magnifier_plugin.catalogue.names import dataset_class
from magnifier_plugin.data.annotated import AnnotatedDataset
from magnifier_plugin.data.sample_cache import GIB
from magnifier_plugin.data.seeding import SampleKey
from magnifier_plugin.engine.precision import Precision
from magnifier_plugin.synthetic.options import SyntheticOptions

# Height and width of the images in the demo, in DSA-reID and in MagnifierNet.
SIZES = ((96, 48), (256, 128), (384, 192))
TRANSFORMS = ["random_flip", "random_crop", "random_erase"]
INPUTS = {"image": (), "image, mask": ("mask",), "image, textures": ("textures",)}
BATCH = 16
CPU = Precision(torch.device("cpu"), amp="auto", channels_last="auto")

Load = Callable[[list[int]], Any]


def run(args: argparse.Namespace) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root:
        options = SyntheticOptions(identities=32, cameras=4, images=2, height=256, width=128)
        AnnotatedDataset("synthetic", root, options=options)
        header = ""
        for height, width in SIZES:
            loaders = make_loaders(Path(root), height, width)
            if not header:
                header = f"| images/s on one core | {' | '.join(loaders)} |"
                print(f"{header}\n|---|{'---:|' * len(loaders)}")
            rates = measure(list(loaders.values()), args.images, args.passes)
            cells = [f"{rate:.0f} ({rate / rates[0]:.2f} ×)" for rate in rates]
            print(f"| {height} × {width} | {' | '.join(cells)} |", flush=True)
    print(f"\n{machine('cpu')}")


def make_loaders(root: Path, height: int, width: int) -> dict[str, Load]:
    """The columns of the table: title → function that loads the batch of some images."""
    with redirect_stdout(StringIO()):  # torchreid prints each step
        transform, _ = torchreid.data.transforms.build_transforms(height, width, TRANSFORMS)
    common = {"transform": transform, "verbose": False}
    theirs = dataset_class("synthetic")(root=str(root), **common)
    loaders: dict[str, Load] = {"torchreid: image": partial(_load, theirs.__getitem__)}

    def ours(inputs: tuple[str, ...]) -> AnnotatedDataset:
        return AnnotatedDataset("synthetic", root, inputs=inputs, as_pixels=True, **common)

    for name, inputs in INPUTS.items():
        loaders[name] = partial(_load_normalised, partial(_augmented, ours(inputs)))
    masked = partial(_augmented, ours(("mask",)))
    loaders["image, mask, to a GPU"] = partial(_load, masked)
    kept = ours(("mask",))
    kept.keep_samples(GIB, workers=0)
    loaders["image, mask, cached"] = partial(_load_normalised, partial(_augmented, kept))
    return loaders


def _augmented(dataset: AnnotatedDataset, image: int) -> Any:
    return dataset[SampleKey(image, seed=1, epoch=0)]


def _load(sample: Callable[[int], Any], images: list[int]) -> Any:
    return default_collate([sample(image) for image in images])


def _load_normalised(sample: Callable[[int], Any], images: list[int]) -> Any:
    batch = _load(sample, images)
    return {**batch, "img": CPU.images(batch["img"])}


def measure(loaders: list[Load], images: int, passes: int) -> list[float]:
    """Images/s of each loader: of the fastest pass, for each batch.

    An extra first pass, which is not timed, fills the cache.

    Args:
        loaders: functions that load the batch of some images.
        images: number of images in a pass, in batches of BATCH.
        passes: number of timed passes.
    """
    batches = [list(range(i, min(i + BATCH, images))) for i in range(0, images, BATCH)]
    best = [[math.inf] * len(batches) for _ in loaders]
    for number in range(passes + 1):
        for place, batch in enumerate(batches):
            for seconds, load in zip(best, loaders, strict=True):
                start = time.process_time()
                load(batch)
                if number:
                    seconds[place] = min(seconds[place], time.process_time() - start)
    return [images / sum(seconds) for seconds in best]
