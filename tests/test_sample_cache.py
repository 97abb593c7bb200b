"""data.cache_gb: the same bits, bounded memory, which all workers share."""

import pickle
import shutil

import numpy as np
import pytest
import torch
import torchreid
from conftest import make_market
from engines import make_manager
from torchvision.transforms import Compose, Normalize, ToTensor
from torchvision.transforms.v2 import Resize

from magnifier_plugin.data.annotated import AnnotatedDataset
from magnifier_plugin.data.pixels import normalised
from magnifier_plugin.data.sample_cache import GIB, SampleCache
from magnifier_plugin.data.seeding import SampleKey

IMAGE = 32 * 16 * 3
SAMPLE = IMAGE + 32 * 16 + 1  # with its label map, and the byte that marks it as present


def manager(folder, samples, **options):
    """A data manager with memory for `samples` of its 12 samples."""
    return make_manager(
        folder,
        **{
            "cache_gb": samples * SAMPLE / GIB,
            "inputs": ("mask",),
            "as_pixels": True,
            "use_gpu": False,
            "batch_size_train": 4,
            **options,
        },
    )


def epoch(loaded, number):
    loaded.set_epoch(number)
    return list(loaded.train_loader)


def assert_equal(left, right):
    for one, other in zip(left, right, strict=True):
        assert one["impath"] == other["impath"]
        assert torch.equal(one["mask"], other["mask"])
        assert torch.equal(normalised(one["img"]), normalised(other["img"]))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("samples", [12, 5])
def test_the_same_bits(market_folder, samples, workers):
    plain, kept = manager(market_folder, 0), manager(market_folder, samples, workers=workers)
    assert plain.train_loader.dataset.cache is None
    for number in range(3):
        assert_equal(epoch(kept, number), epoch(plain, number))
    slots = kept.train_loader.dataset.cache._slots
    assert slots[:, -1].sum() == samples  # workers fill the memory of this process too


def test_an_image_is_read_once_by_all_workers(tmp_path):
    """Without the files, a second epoch still yields every image that a worker has read."""
    folder = make_market(tmp_path)
    expected = [epoch(manager(folder, 0), number) for number in range(2)]
    kept = manager(folder, 12, workers=2)
    assert_equal(epoch(kept, 0), expected[0])
    seen = {path for batch in expected[0] for path in batch["impath"]}
    dataset = kept.train_loader.dataset
    filled = {dataset.data[n][0] for n in np.flatnonzero(dataset.cache._slots[:, -1])}
    assert filled == seen
    for number in range(1, 12):  # the epochs leave out different images
        epoch(kept, number)
    shutil.rmtree(folder.images / "bounding_box_train")
    shutil.rmtree(folder.masks_dir)
    assert_equal(epoch(kept, 1), expected[1])


def test_an_image_without_a_map(tmp_path):
    folder = make_market(tmp_path)
    next(iter(folder.masks_dir.rglob("*train/*.png"))).unlink()
    plain, kept = (manager(folder, samples, max_missing=0.5) for samples in (0, 12))
    for number in range(2):
        assert_equal(epoch(kept, number), epoch(plain, number))
    masks = torch.cat([batch["mask"] for number in range(4) for batch in epoch(kept, number)])
    assert (masks == 255).all(dim=2).all(dim=1).any()


def test_other_inputs_have_separate_memory(market_folder):
    dataset = manager(market_folder, 12).train_loader.dataset
    key = SampleKey(0, seed=1, epoch=0)
    expected = dataset[key]["mask"]
    dataset.set_inputs(())
    assert dataset.cache.nbytes == 12 * (IMAGE + 1) and "mask" not in dataset[0]
    dataset.set_inputs(("mask",))
    for _ in range(2):
        assert torch.equal(dataset[key]["mask"], expected)


def test_samples_of_several_sources(market_folder, tmp_path):
    other = make_market(tmp_path, seed=3)
    parts = [
        AnnotatedDataset(
            *("market1501", folder.root),
            transform=torchreid.data.transforms.build_transforms(32, 16, [])[0],
            masks_dir=folder.masks_dir,
            verbose=False,
        )
        for folder in (market_folder, other)
    ]
    parts[0].keep_samples(GIB, 0)
    total = parts[0] + parts[1]
    assert total.cache is None
    expected = [total[n]["img"] for n in range(len(total))]
    total.keep_samples(GIB, 0)
    for _ in range(2):
        assert all(torch.equal(total[n]["img"], image) for n, image in enumerate(expected))
    assert total.cache.slots == 24 and total.cache._slots[:, -1].all()
    assert torch.equal(total[-1]["img"], expected[-1])


@pytest.mark.parametrize("bound", [0, 1, SAMPLE - 1, SAMPLE, 3 * SAMPLE + 7, GIB])
def test_never_above_the_bound(bound):
    cache = SampleCache([(32, 16, 3), (32, 16)], 12, bound)
    assert cache.nbytes == cache._slots.nbytes <= bound
    assert cache.slots == min(12, bound // SAMPLE)
    arrays = [np.full((32, 16, 3), 7, np.uint8), np.full((32, 16), 3, np.uint8)]
    for sample in (-1, 0, 11, 12):
        assert cache.read(sample) is None
        cache.write(sample, arrays)
        found = cache.read(sample)
        assert (found is not None) == (0 <= sample < cache.slots)
        if found is not None:
            assert all(map(np.array_equal, found, arrays))
            found[0][:] = 0  # a copy
            assert cache.read(sample)[0].all()


def test_spawned_workers_share_the_bound():
    """They do not share memory, so each gets a part of the bound."""
    cache = SampleCache([(32, 16, 3), (32, 16)], 12, 9 * SAMPLE, workers=3)
    cache.write(0, [np.ones((32, 16, 3), np.uint8), None])
    copy = pickle.loads(pickle.dumps(cache))
    assert (cache.slots, copy.slots) == (9, 3)
    assert copy.read(0) is None and cache.read(0) is not None


@pytest.mark.parametrize("first", [[], [Resize(16)]], ids=["none", "one edge"])
def test_refusals(market_folder, first):
    steps = [*first, ToTensor(), Normalize([0.5] * 3, [0.5] * 3)]
    dataset = AnnotatedDataset(
        "market1501", market_folder.root, transform=Compose(steps), verbose=False
    )
    with pytest.raises(ValueError, match="data.cache_gb: .* begins with Resize to a height and"):
        dataset.keep_samples(GIB, 0)
    with pytest.raises(ValueError, match=r"data.cache_gb: the system refused [\d.]+ GiB of memory"):
        SampleCache([(2**40,)], 2**20, 2**62)


@pytest.mark.parametrize("value", [-1, float("inf"), float("nan")])
def test_an_invalid_bound_in_code(market_folder, value):
    with pytest.raises(ValueError, match="cache_gb: expected a number of GiB, 0 or more, got "):
        make_manager(market_folder, cache_gb=value)
