"""Loading of training samples: torchreid's image alone, and this package's with its inputs.

Rendered pedestrians, random_flip, random_crop and random_erase on both sides, one process and one
thread, so the numbers are for each core. The quickest of several passes counts.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchreid

from benchmarks.measuring import machine
from magnifier_plugin.catalogue.names import dataset_class
from magnifier_plugin.data.annotated import AnnotatedDataset
from magnifier_plugin.data.seeding import SampleKey
from magnifier_plugin.synthetic.options import SyntheticOptions

# Height and width: of the demo, of DSA-reID, of MagnifierNet.
SIZES = ((96, 48), (256, 128), (384, 192))
TRANSFORMS = ["random_flip", "random_crop", "random_erase"]
INPUTS = {"image": (), "image, mask": ("mask",), "image, textures": ("textures",)}


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root:
        options = SyntheticOptions(identities=32, cameras=4, images=2, height=256, width=128)
        AnnotatedDataset("synthetic", root, options=options)
        names = ["torchreid: image", *INPUTS]
        print(f"| images/s on one core | {' | '.join(names)} |")
        print("|---|" + "---:|" * len(names))
        for height, width in SIZES:
            rates = measure(Path(root), height, width, args.images, args.passes)
            cells = [f"{rate:.0f} ({rate / rates[0]:.2f} ×)" for rate in rates]
            print(f"| {height} × {width} | {' | '.join(cells)} |")
    print(f"\n{machine('cpu')}")


def _load(dataset: AnnotatedDataset, image: int) -> Any:
    return dataset[SampleKey(image, seed=1, epoch=0)]


def measure(root: Path, height: int, width: int, images: int, passes: int) -> list[float]:
    """Images/s of torchreid's data set and of ours with each set of inputs."""
    transform, _ = torchreid.data.transforms.build_transforms(height, width, TRANSFORMS)
    common = {"transform": transform, "verbose": False}
    theirs = dataset_class("synthetic")(root=str(root), **common)
    loaders: list[Callable[[int], Any]] = [theirs.__getitem__]
    for inputs in INPUTS.values():
        ours = AnnotatedDataset("synthetic", root, inputs=inputs, **common)
        loaders.append(partial(_load, ours))
    best = [0.0] * len(loaders)
    for _ in range(passes):  # taking turns, so that a busy moment falls on all alike
        for n, load in enumerate(loaders):
            start = time.perf_counter()
            for i in range(images):
                load(i)
            best[n] = max(best[n], images / (time.perf_counter() - start))
    return best
