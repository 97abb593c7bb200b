"""The data manager: repeatable batches, torchreid's attributes, early errors."""

import dataclasses
import inspect
import logging
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchreid
from conftest import MarketFolder, make_market
from PIL import Image
from torch import nn

from magnifier_plugin.catalogue.names import dataset_class, registered_datasets
from magnifier_plugin.data.datamanager import AnnotatedDataManager
from magnifier_plugin.data.options import DataOptions
from magnifier_plugin.masks.label_maps import read_labels
from magnifier_plugin.regions import NUM_REGIONS

Market = Callable[..., MarketFolder]


PLACES = r"found 2 cameras with at least \d+ images, 1 data sets with at least 12 images"


def build(folder: MarketFolder, **options) -> AnnotatedDataManager:
    arguments = {
        "root": str(folder.root),
        "sources": "market1501",
        "masks_dir": folder.masks_dir,
        "height": 32,
        "width": 16,
        "batch_size_train": 4,
        "workers": 0,
        "inputs": ("mask",),
        "num_instances": 2,
        "train_sampler": "RandomIdentitySampler",
        "transforms": ["random_flip", "pad_crop", "random_patch", "random_erase"],
    }
    return AnnotatedDataManager(**{**arguments, **options})


def batches(manager: AnnotatedDataManager, epoch: int) -> list[dict]:
    manager.set_epoch(epoch)
    return list(manager.train_loader)


def assert_equal(left: list[dict], right: list[dict]) -> None:
    assert len(left) == len(right) > 0
    for one, other in zip(left, right, strict=True):
        assert one["impath"] == other["impath"]
        for name in ("img", "mask", "pid", "camid", "dsetid"):
            assert torch.equal(one[name], other[name]), name


def same(left: list[dict], right: list[dict]) -> bool:
    return all(
        torch.equal(one["img"], other["img"]) for one, other in zip(left, right, strict=False)
    )


def test_batches_depend_on_seed_and_epoch_only(market_folder: MarketFolder) -> None:
    alone, workers = build(market_folder), build(market_folder, workers=2)
    first = [batches(alone, epoch) for epoch in range(2)]
    assert_equal(batches(workers, 0), first[0])
    torch.rand(7)  # another state of the global generator
    assert_equal(batches(workers, 1), first[1])
    # A run that resumes at epoch 1.
    assert_equal(batches(build(market_folder), 1), first[1])
    assert not same(first[0], first[1])
    assert not same(first[0], batches(build(market_folder, seed=2), 0))


def test_a_loop_that_sets_no_epoch_gets_new_batches(market_folder: MarketFolder) -> None:
    manager = build(market_folder)
    first, second = list(manager.train_loader), list(manager.train_loader)
    assert_equal(second, batches(build(market_folder), 1))
    assert_equal(first, batches(manager, 0))
    assert_equal(second, list(manager.train_loader))


def test_batch_is_torchreids_with_masks(market_folder: MarketFolder) -> None:
    manager = build(market_folder, transforms=None)
    batch = batches(manager, 0)[0]
    assert set(batch) == {"img", "mask", "pid", "camid", "impath", "dsetid"}
    assert batch["img"].shape == (4, 3, 32, 16) and batch["img"].dtype == torch.float32
    assert batch["mask"].shape == (4, 32, 16) and batch["mask"].dtype == torch.uint8
    assert sorted(Counter(batch["pid"].tolist()).values()) == [2, 2]


def test_pad_crop(market_folder: MarketFolder) -> None:
    manager = build(market_folder, transforms="pad_crop")
    assert [type(step).__name__ for step in manager.transform_tr.transforms][1] == "RandomCrop"


def test_attributes_are_torchreids(market_folder: MarketFolder) -> None:
    plain = {"root": str(market_folder.root), "height": 32, "width": 16, "workers": 0}
    theirs = torchreid.data.ImageDataManager(sources="market1501", batch_size_train=4, **plain)
    ours = build(market_folder, sources=["market1501_masked"])
    assert vars(theirs).keys() <= vars(ours).keys()
    assert ours.data_type == theirs.data_type
    for name in ("sources", "targets", "num_train_pids", "num_train_cams", "use_gpu", "height"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.test_dataset == theirs.test_dataset
    for mode in (0, 1):
        ours_test = ours.fetch_test_loaders("market1501")[mode]
        assert ours_test == theirs.fetch_test_loaders("market1501")[mode]
    query = next(iter(ours.test_loader["market1501"]["query"]))
    expected = next(iter(theirs.test_loader["market1501"]["query"]))
    torch.testing.assert_close(query["img"], expected["img"], atol=1e-6, rtol=0)
    assert query.keys() == expected.keys()


def test_trains_in_torchreids_engine(market_folder: MarketFolder, tmp_path: Path) -> None:
    manager = build(market_folder)
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    engine = torchreid.engine.ImageSoftmaxEngine(
        manager, model, optimizer, scheduler=scheduler, use_gpu=False
    )
    engine.run(save_dir=str(tmp_path), max_epoch=1, print_freq=1, test_only=False, ranks=[1])


def test_two_sources(market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Second(dataset_class("market1501")):
        dataset_dir = "second"

    monkeypatch.setitem(registered_datasets(), "second", Second)
    folder, other = market(), make_market(tmp_path / "other", seed=5)
    (other.root / "market1501").rename(folder.root / "second")
    (other.masks_dir / "market1501").rename(folder.masks_dir / "second")
    names = ["market1501", "second"]
    manager = build(folder, sources=names, targets="market1501", transforms=None)
    assert manager.num_train_pids == 6 and len(manager.train_loader.dataset) == 24
    seen = set()
    for batch in batches(manager, 0):
        for path, mask, dsetid in zip(batch["impath"], batch["mask"], batch["dsetid"], strict=True):
            image = Path(path)
            file = folder.masks_dir / names[dsetid] / image.parent.name / f"{image.stem}.png"
            assert torch.equal(mask, torch.from_numpy(read_labels(file)))
            seen.add(int(dsetid))
    assert seen == {0, 1}


def test_without_masks(market: Market) -> None:
    folder = market()
    shutil.rmtree(folder.masks_dir)
    with pytest.raises(FileNotFoundError, match=r"python scripts/convert_masks.py"):
        build(folder)
    batch = batches(build(folder, inputs=()), 0)[0]
    assert "mask" not in batch and batch["img"].shape == (4, 3, 32, 16)


def test_dataset_options_reach_the_class(market_folder: MarketFolder, monkeypatch) -> None:
    flavours = []

    class Own(dataset_class("market1501")):
        def __init__(self, flavour: str, **options):
            super().__init__(**options)
            flavours.append((self.mode, flavour))

    monkeypatch.setitem(registered_datasets(), "own", Own)
    options = {"own": {"flavour": "sweet"}}
    build(market_folder, sources="own", targets="own", inputs=(), dataset_options=options)
    assert flavours == [("train", "sweet"), ("query", "sweet"), ("gallery", "sweet")]


def test_test_inputs_and_their_options(market_folder: MarketFolder) -> None:
    options = {"mask": {}}
    manager = build(market_folder, test_inputs=("mask",), input_options=options)
    for loader in manager.test_loader["market1501"].values():
        assert next(iter(loader))["mask"].shape[1:] == (32, 16)


def test_in_torchreids_own_manager(
    market_folder: MarketFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAGNIFIER_MASKS", str(market_folder.masks_dir))
    manager = torchreid.data.ImageDataManager(
        root=str(market_folder.root),
        sources=["market1501_masked", "market1501_masked"],
        targets="market1501",
        transforms=["random_flip", "random_crop"],
        height=32,
        width=16,
        batch_size_train=12,
        workers=0,
    )
    masks = [batch["mask"] for batch in manager.train_loader]
    assert [mask.shape for mask in masks] == [(12, 32, 16)] * 2
    assert all((mask < NUM_REGIONS).all() for mask in masks)


# --- refusals ---------------------------------------------------------------------------------


def test_defaults_are_torchreids() -> None:
    theirs = inspect.signature(torchreid.data.ImageDataManager).parameters
    ours = {option.name: option.default for option in dataclasses.fields(DataOptions)}
    named = {"split_id": 0, "root": ""}  # torchreid's command line has 0 and reid-data
    for name in theirs.keys() & ours.keys() - named.keys():
        assert ours[name] == theirs[name].default, name


@pytest.mark.parametrize("keep", [True, False])
def test_one_worker_may_live_on(market_folder: MarketFolder, keep: bool) -> None:
    manager = build(market_folder, workers=1, persistent_workers=keep)
    assert manager.train_loader.persistent_workers is keep
    assert not build(market_folder, workers=0).train_loader.persistent_workers


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"same_camera": "some"}, "same_camera: expected drop or keep, got 'some'"),
        ({"sources": "market"}, r"unknown data set 'market', expected one of .*market1501"),
        ({"targets": ["dukemtmc"]}, r"unknown data set 'dukemtmc'"),
        ({"sources": None}, "sources: expected the name of a data set"),
        ({"transforms": ["pad_crops"]}, "unknown 'pad_crops', expected some of random_flip"),
        ({"train_sampler": "Identity"}, "unknown 'Identity', expected one of RandomIdentity"),
        ({"batch_size_train": 8}, "4 identities, but the training set has 3; .* to at most 6 "),
        ({"batch_size_train": 5}, "expected batches of whole identities"),
        ({"batch_size_train": 2}, "3 identities found, 1 per batch; a triplet needs two"),
        ({"batch_size_train": 64, "train_sampler": "RandomSampler"}, "12 training images do not"),
        ({"num_cams": 3, "train_sampler": "RandomDomainSampler"}, PLACES),
        ({"num_replicas": 3}, "whole identities.* for each of 3 processes"),
    ],
)
def test_refused_options(market_folder: MarketFolder, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(market_folder, **options)


def test_misspelt_arguments(market_folder: MarketFolder) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'mask_dir'"):
        build(market_folder, mask_dir="elsewhere")


def test_one_identity(market: Market) -> None:
    with pytest.raises(ValueError, match="1 identities found"):
        build(market(pids=(4,)))


def test_missing_target(market_folder: MarketFolder) -> None:
    with pytest.raises(FileNotFoundError, match="dukemtmcreid: looked for"):
        build(market_folder, targets="dukemtmcreid")


def test_queries_without_a_match(market: Market, caplog: pytest.LogCaptureFixture) -> None:
    folder = market()
    lonely = folder.images / "query" / "0009_c1s1_000000_01.jpg"
    Image.new("RGB", (16, 32)).save(lonely)
    with caplog.at_level(logging.WARNING):
        build(folder)
    assert "1 image of an identity that is not in the gallery" in caplog.text
    assert f"{lonely} (identity 9, camera 0)" in caplog.text
    for image in (folder.images / "bounding_box_test").glob("*_c2*"):
        image.unlink()
    for image in (folder.images / "query").glob("*_c2*"):
        image.unlink()
    with pytest.raises(ValueError, match="no image has a match.*the metrics need two"):
        build(folder)
