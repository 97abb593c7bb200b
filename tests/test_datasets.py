"""Masked data sets: torchreid's items with label maps, sums, and errors that say what to do."""

import logging
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchreid
from conftest import MarketFolder, make_market
from PIL import Image
from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader

from magnifier_plugin.catalogue.names import dataset_class
from magnifier_plugin.data import annotated as datasets
from magnifier_plugin.data.annotated import MaskedDataset, in_stable_order, masked
from magnifier_plugin.data.seeding import SampleKey
from magnifier_plugin.data.transforms import with_pad_crop
from magnifier_plugin.masks.label_maps import read_labels, write_labels
from magnifier_plugin.masks.paths import label_path
from magnifier_plugin.regions import UNKNOWN

Market = Callable[..., MarketFolder]
Market1501 = dataset_class("market1501")
MarketMasked = masked(Market1501, "market1501")


def transform(*names: str, height: int = 32, width: int = 16):
    return torchreid.data.transforms.build_transforms(height, width, list(names))[0]


def build(folder: MarketFolder, **options) -> MaskedDataset:
    arguments = {"transform": transform(), "masks_dir": folder.masks_dir, "verbose": False}
    return MarketMasked(root=str(folder.root), **{**arguments, **options})


def label_file(folder: MarketFolder, image: str | Path) -> Path:
    return label_path(image, folder.root / "market1501", "market1501", folder.masks_dir)


def test_training_item_is_torchreids_and_a_mask(market_folder: MarketFolder) -> None:
    ours = build(market_folder)
    theirs = {
        item["impath"]: item
        for item in Market1501(root=str(market_folder.root), transform=transform(), verbose=False)
    }
    assert len(ours) == len(theirs) == 12
    for item in ours:
        expected, mask = theirs[item["impath"]], item.pop("mask")
        torch.testing.assert_close(item.pop("img"), expected.pop("img"), atol=1e-6, rtol=0)
        assert item == expected
        labels = read_labels(label_file(market_folder, item["impath"]))
        assert mask.dtype == torch.uint8 and np.array_equal(mask.numpy(), labels)


@pytest.mark.parametrize("mode", ["query", "gallery"])
def test_test_item_is_torchreids(market_folder: MarketFolder, mode: str) -> None:
    ours = build(market_folder, mode=mode, masks_dir="/nowhere")
    theirs = Market1501(
        root=str(market_folder.root), transform=transform(), mode=mode, verbose=False
    )
    for item, expected in zip(ours, theirs, strict=True):
        assert torch.equal(item.pop("img"), expected.pop("img"))
        assert item == expected


def test_several_views(market_folder: MarketFolder) -> None:
    dataset = build(market_folder, k_tfm=3, transform=transform("random_crop"))
    item = dataset[SampleKey(index=0, seed=3, epoch=0)]
    assert len(item["img"]) == len(item["mask"]) == 3
    assert len({view.numpy().tobytes() for view in item["img"]}) > 1


def test_a_key_fixes_the_sample(market_folder: MarketFolder) -> None:
    names = ("random_flip", "random_crop", "random_patch", "color_jitter", "random_erase")
    dataset = build(market_folder, transform=transform(*names))
    key = SampleKey(index=4, seed=1, epoch=2)
    first, again = dataset[key], dataset[key]
    assert torch.equal(first["img"], again["img"]) and torch.equal(first["mask"], again["mask"])
    for other in (key._replace(seed=2), key._replace(epoch=3), key._replace(nth=1)):
        assert dataset[other]["impath"] == first["impath"]
        assert not torch.equal(dataset[other]["img"], first["img"])


def test_sum_of_three_carries_masks_and_views(tmp_path: Path) -> None:
    folders = [make_market(tmp_path / str(n), seed=n, images=n + 1) for n in range(3)]
    parts = [build(folder, k_tfm=2) for folder in folders]
    total = sum(parts)
    plain = sum(
        Market1501(root=str(folder.root), transform=transform(), verbose=False)
        for folder in folders
    )
    assert isinstance(total, MaskedDataset) and total.k_tfm == 2
    assert sorted(total.train) == sorted(plain.train)
    for name in ("num_train_pids", "num_train_cams", "num_datasets"):
        assert getattr(total, name) == getattr(plain, name)
    assert len(total) == 6 + 12 + 18 and len(parts[0]) == 6
    for item in total:
        labels = read_labels(label_file(folders[item["dsetid"]], item["impath"]))
        assert all(np.array_equal(mask.numpy(), labels) for mask in item["mask"])


def test_sum_with_a_plain_data_set_is_refused(market_folder: MarketFolder) -> None:
    plain = Market1501(root=str(market_folder.root), transform=transform(), verbose=False)
    with pytest.raises(TypeError, match="cannot add Market1501 to Market1501Masked"):
        build(market_folder) + plain


def test_combineall_takes_masks_of_query_and_gallery(market_folder: MarketFolder) -> None:
    dataset = build(market_folder, combineall=True)
    assert len(dataset) == 12 + 8 + 8 and dataset.num_train_pids == 5
    for item in dataset:
        labels = read_labels(label_file(market_folder, item["impath"]))
        assert np.array_equal(item["mask"].numpy(), labels)


def test_missing_label_maps_are_unknown_and_counted(
    market: Market, caplog: pytest.LogCaptureFixture
) -> None:
    folder = market()
    image = sorted((folder.images / "bounding_box_train").iterdir())[3]
    label_file(folder, image).unlink()
    padded = with_pad_crop(transform("random_crop"), 32, 16)
    with caplog.at_level(logging.INFO):
        dataset = build(folder, transform=padded)
    assert "market1501: 1 of 12 training images have no label map in" in caplog.text
    unknown = {item["impath"] for item in dataset if (item["mask"] == UNKNOWN).all()}
    assert unknown == {str(image)}


def test_too_many_missing_label_maps(market: Market) -> None:
    folder = market()
    shutil.rmtree(folder.masks_dir)
    command = (
        "12 of 12 training images have no label map in "
        f"{folder.masks_dir}/market1501, at most a share of 0.3 may lack one (masks.max_missing); "
        "make them with: python scripts/convert_masks.py --source densepose-iuv --iuv DIR "
        f"--images {folder.root}/market1501 --out {folder.masks_dir}/market1501"
    )
    with pytest.raises(FileNotFoundError, match=re.escape(command)):
        build(folder)
    assert (build(folder, max_missing=1.0)[0]["mask"] == UNKNOWN).all()
    assert "mask" not in build(folder, use_masks=False)[0]


def as_from_a_worker(dataset: MaskedDataset, index: int) -> None:
    """Reads a sample; its error comes as the loader raises it, made again from one string."""
    try:
        dataset[index]
    except Exception:
        ExceptionWrapper(where="in a worker").reraise()


def test_bad_label_maps_are_named(market: Market) -> None:
    folder = market()
    dataset = build(folder)
    file = dataset.labels[dataset.data[0][0]]
    write_labels(file, np.zeros((16, 16), np.uint8))
    with pytest.raises(ValueError, match=re.escape(str(file))):
        as_from_a_worker(dataset, 0)
    Image.fromarray(np.full((32, 16), 24, np.uint8)).save(file)
    with pytest.raises(ValueError, match=re.escape(f"{file}: label 24, expected 0..7")):
        as_from_a_worker(dataset, 0)


@pytest.mark.parametrize("mode", ["train", "query"])
def test_a_damaged_image_is_named(market: Market, mode: str) -> None:
    dataset = build(market(), mode=mode)
    path = Path(dataset.data[0][0])
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(OSError, match=re.escape(f"{path}: expected an image, but")):
        as_from_a_worker(dataset, 0)


@pytest.mark.slow
def test_a_damaged_image_is_named_through_a_worker(market: Market) -> None:
    dataset = build(market())
    path = Path(dataset.data[0][0])
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(OSError, match=re.escape(f"{path}: expected an image, but")):
        list(DataLoader(dataset, batch_size=12, num_workers=1))


def test_classes_and_data_sets_can_be_pickled(market_folder: MarketFolder) -> None:
    assert masked(Market1501, "market1501") is MarketMasked
    assert masked(MarketMasked, "market1501") is MarketMasked
    assert pickle.loads(pickle.dumps(MarketMasked)) is MarketMasked
    dataset = build(market_folder)
    again = pickle.loads(pickle.dumps(dataset))
    assert type(again) is MarketMasked and torch.equal(again[0]["img"], dataset[0]["img"])


def test_a_class_of_ones_own_survives_a_new_process(
    market_folder: MarketFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Own(Market1501):
        pass

    monkeypatch.setattr(__import__(__name__), "Own", Own, raising=False)
    Own.__qualname__, Own.__module__ = "Own", __name__
    variant = masked(Own, "own")
    dataset = variant(
        root=str(market_folder.root), transform=transform(), use_masks=False, verbose=False
    )
    data = pickle.dumps(dataset)
    monkeypatch.setattr(datasets, "_VARIANTS", {})
    monkeypatch.delattr(datasets, "OwnMasked")
    assert len(pickle.loads(data)) == 12


@pytest.mark.slow
def test_forkserver_workers(market_folder: MarketFolder) -> None:
    dataset = build(market_folder)
    loaded = list(
        DataLoader(dataset, batch_size=12, num_workers=1, multiprocessing_context="forkserver")
    )
    expected = torch.stack([item["mask"] for item in dataset])
    assert torch.equal(loaded[0]["mask"], expected)


def test_order_and_numbers_do_not_depend_on_the_folders_order(
    market_folder: MarketFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = [("b", 0, 1, 0), ("c", 5, 0, 0), ("a", 5, 0, 0)]
    expected = [("a", 0, 0, 0), ("b", 1, 1, 0), ("c", 0, 0, 0)]
    assert in_stable_order(listed) == in_stable_order(listed[::-1]) == expected
    one = build(market_folder).train

    def reversed_glob(pattern: str) -> list[str]:
        found = Path(pattern).parent.glob(Path(pattern).name)
        return sorted(map(str, found), reverse=True)

    monkeypatch.setattr("glob.glob", reversed_glob)
    assert build(market_folder).train == one == sorted(one)
