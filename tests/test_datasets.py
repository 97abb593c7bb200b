"""Annotated data sets: torchreid's items with declared inputs, sums, and clear errors."""

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
from torchvision.transforms.v2 import functional as F

from magnifier_plugin.annotators.densepose import read_iuv, write_iuv
from magnifier_plugin.catalogue.names import dataset_class
from magnifier_plugin.data.annotated import AnnotatedDataset
from magnifier_plugin.data.dsap import FILL, crop_parts, warp
from magnifier_plugin.data.inputs import INPUTS, BatchInput, declare_inputs
from magnifier_plugin.data.lists import in_stable_order
from magnifier_plugin.data.maps import IUV
from magnifier_plugin.data.pixels import image_tensor
from magnifier_plugin.data.seeding import SampleKey
from magnifier_plugin.data.transforms import with_pad_crop
from magnifier_plugin.masks.label_maps import read_labels, write_labels
from magnifier_plugin.masks.paths import iuv_path, label_path
from magnifier_plugin.regions import UNKNOWN

Market = Callable[..., MarketFolder]
Market1501 = dataset_class("market1501")


def transform(*names: str, height: int = 32, width: int = 16):
    return torchreid.data.transforms.build_transforms(height, width, list(names))[0]


def build(folder: MarketFolder, **options) -> AnnotatedDataset:
    arguments = {
        "transform": transform(),
        "masks_dir": folder.masks_dir,
        "inputs": ("mask",),
        "verbose": False,
    }
    return AnnotatedDataset("market1501", str(folder.root), **{**arguments, **options})


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
    ours = build(market_folder, mode=mode, masks_dir="/nowhere", inputs=())
    theirs = Market1501(
        root=str(market_folder.root), transform=transform(), mode=mode, verbose=False
    )
    for item, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(item.pop("img"), expected.pop("img"), atol=1e-6, rtol=0)
        assert item == expected


def test_several_views_are_refused(market_folder: MarketFolder) -> None:
    assert len(build(market_folder, k_tfm=1)) == 12  # torchreid's managers pass it
    with pytest.raises(ValueError, match="k_tfm: expected 1"):
        build(market_folder, k_tfm=2)


def test_a_key_fixes_the_sample(market_folder: MarketFolder) -> None:
    names = ("random_flip", "random_crop", "random_patch", "color_jitter", "random_erase")
    dataset = build(market_folder, transform=transform(*names))
    key = SampleKey(image=4, seed=1, epoch=2)
    first, again = dataset[key], dataset[key]
    assert torch.equal(first["img"], again["img"]) and torch.equal(first["mask"], again["mask"])
    for other in (key._replace(seed=2), key._replace(epoch=3), key._replace(nth=1)):
        assert dataset[other]["impath"] == first["impath"]
        assert not torch.equal(dataset[other]["img"], first["img"])


def test_sum_of_three_carries_masks(tmp_path: Path) -> None:
    folders = [make_market(tmp_path / str(n), seed=n, images=n + 1) for n in range(3)]
    parts = [build(folder) for folder in folders]
    total = sum(parts)
    plain = sum(
        Market1501(root=str(folder.root), transform=transform(), verbose=False)
        for folder in folders
    )
    assert isinstance(total, AnnotatedDataset)
    assert sorted(total.train) == sorted(plain.train)
    for name in ("num_train_pids", "num_train_cams", "num_datasets"):
        assert getattr(total, name) == getattr(plain, name)
    assert len(total) == 6 + 12 + 18 and len(parts[0]) == 6
    for item in total:
        labels = read_labels(label_file(folders[item["dsetid"]], item["impath"]))
        assert np.array_equal(item["mask"].numpy(), labels)
    total.set_inputs(())
    assert "mask" not in total[0]
    total.set_inputs(("mask",))
    assert len(total.files["labels"]) == len(total)


def test_sum_with_a_plain_data_set_is_refused(market_folder: MarketFolder) -> None:
    plain = Market1501(root=str(market_folder.root), transform=transform(), verbose=False)
    with pytest.raises(TypeError, match="cannot add Market1501 to AnnotatedDataset"):
        build(market_folder) + plain
    with pytest.raises(TypeError, match="must have the same inputs"):
        build(market_folder) + build(market_folder, inputs=())


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
    assert "market1501: 1 of 12 train images has no label map in" in caplog.text
    unknown = {item["impath"] for item in dataset if (item["mask"] == UNKNOWN).all()}
    assert unknown == {str(image)}


def test_without_a_transform_a_missing_label_map_has_the_photos_size(market: Market) -> None:
    folder = market()
    shutil.rmtree(folder.masks_dir)
    item = build(folder, transform=None, max_missing=1.0)[0]
    assert item["img"].size == (16, 32)
    assert item["mask"].shape == (32, 16) and (item["mask"] == UNKNOWN).all()


def test_nothing_is_logged_if_no_label_map_is_missing(
    market: Market, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        build(market())
    assert "have no" not in caplog.text and "0 of 12" not in caplog.text


def test_too_many_missing_label_maps(market: Market) -> None:
    folder = market()
    shutil.rmtree(folder.masks_dir)
    command = (
        "12 of 12 train images have no label map in "
        f"{folder.masks_dir}/market1501; at most 30% of them may lack one (masks.max_missing 0.3). "
        "Make them with: python scripts/convert_masks.py --source densepose-iuv --iuv DIR "
        f"--images {folder.root}/market1501 --out {folder.masks_dir}/market1501"
    )
    with pytest.raises(FileNotFoundError, match=re.escape(command)):
        build(folder)
    assert (build(folder, max_missing=1.0)[0]["mask"] == UNKNOWN).all()
    assert "mask" not in build(folder, inputs=())[0]


@pytest.mark.parametrize(
    ("label_set", "inputs", "flags"),
    [
        ("densepose-no-hands", ("mask",), "densepose-iuv --iuv DIR --hands background --images"),
        ("keypoints", ("mask",), "keypoints --keypoints PATH --images"),
        ("magnifiernet-authors", ("mask",), "npy --npy PATH --images"),
        ("lip", ("mask",), "parsing --parsing DIR --label-set lip --images"),
        ("densepose", ("textures",), "densepose-iuv --iuv DIR --images .* --keep-iuv"),
        ("lip", ("textures",), "densepose-iuv --iuv DIR --images .* --iuv-only"),
    ],
)
def test_the_command_for_missing_maps_makes_what_the_run_expects(market, label_set, inputs, flags):
    folder = market()
    shutil.rmtree(folder.masks_dir)
    with pytest.raises(FileNotFoundError, match=rf"convert_masks\.py --source {flags}"):
        build(folder, label_set=label_set, inputs=inputs)


def test_the_command_for_torchreids_own_class_writes_iuv():
    for keys, end in ((("mask",), "--out DIR$"), (("textures",), "--out DIR --keep-iuv$")):
        with pytest.raises(ValueError, match=end):
            declare_inputs(object(), keys)


def as_from_a_worker(dataset: AnnotatedDataset, index: int) -> None:
    """Reads a sample; an error is raised as by a loader, which rebuilds it from one string."""
    try:
        dataset[index]
    except Exception:
        ExceptionWrapper(where="in a worker").reraise()


def test_bad_label_maps_are_named(market: Market) -> None:
    folder = market()
    dataset = build(folder)
    file = dataset.files["labels"][dataset.data[0][0]]
    write_labels(file, np.zeros((16, 16), np.uint8))
    with pytest.raises(ValueError, match=re.escape(str(file))):
        as_from_a_worker(dataset, 0)
    Image.fromarray(np.full((32, 16), 24, np.uint8)).save(file)
    with pytest.raises(ValueError, match=re.escape(f"{file}: label 24, expected 0..7")):
        as_from_a_worker(dataset, 0)


@pytest.mark.parametrize("mode", ["train", "query"])
def test_a_damaged_image_is_named(market: Market, mode: str) -> None:
    dataset = build(market(), mode=mode, inputs=())
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


def test_data_sets_can_be_pickled(market_folder: MarketFolder) -> None:
    dataset = build(market_folder)
    again = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(again[0]["img"], dataset[0]["img"])
    assert torch.equal(again[0]["mask"], dataset[0]["mask"])


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


# --- textures and other inputs -----------------------------------------------------------------


def random_iuv(seed: int) -> np.ndarray:
    """uint8 [32, 16, 3]: a person of parts 1..24 in the middle."""
    rng = np.random.default_rng(seed)
    iuv = rng.integers(0, 256, (32, 16, 3), dtype=np.uint8)
    iuv[..., 0] = rng.integers(1, 25, (32, 16))
    iuv[:4] = iuv[-4:] = 0
    return iuv


@pytest.fixture
def iuv_folder(market: Market) -> MarketFolder:
    folder = market()
    for number, image in enumerate(sorted(folder.images.rglob("*.jpg"))):
        write_iuv(iuv_path(label_file(folder, image)), random_iuv(number))
    return folder


def normalised(textures: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (MEAN, STD))
    return (textures.float() / 255 - mean) / std


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize(("kind", "make"), [("dsap", warp), ("csa", crop_parts)])
def test_textures_are_those_of_the_augmented_photo(
    iuv_folder: MarketFolder, kind: str, make: Callable
) -> None:
    """Textures are made after the geometric steps; random erasing changes only the image."""
    options = {"textures": {"kind": kind, "size": 16}}
    arguments = {"inputs": ("mask", "textures"), "input_options": options}
    dataset = build(iuv_folder, transform=transform("random_flip", "random_erase"), **arguments)
    flipped = set()
    for index in range(12):
        item = dataset[SampleKey(index, seed=1, epoch=0)]
        photo = image_tensor(Image.open(item["impath"]).convert("RGB"))
        iuv = torch.from_numpy(read_iuv(iuv_path(label_file(iuv_folder, item["impath"]))))
        iuv = iuv.permute(2, 0, 1)
        labels = torch.from_numpy(read_labels(label_file(iuv_folder, item["impath"])))
        mirror = not torch.equal(item["mask"], labels)
        flipped.add(mirror)
        if mirror:
            photo, iuv = photo.flip(-1), F.horizontal_flip(IUV(iuv)).as_subclass(torch.Tensor)
            assert torch.equal(item["mask"], labels.flip(-1))
        expected = normalised(make(photo.contiguous(), iuv.contiguous(), 16)[0])
        torch.testing.assert_close(item["textures"], expected, atol=1e-6, rtol=0)
    assert flipped == {True, False}


def test_without_an_iuv_all_cells_have_the_fill(iuv_folder: MarketFolder, caplog) -> None:
    image = sorted((iuv_folder.images / "bounding_box_train").iterdir())[0]
    iuv_path(label_file(iuv_folder, image)).unlink()
    with caplog.at_level(logging.INFO):
        dataset = build(iuv_folder, inputs=("textures",))
    assert "market1501: 1 of 12 train images has no IUV in" in caplog.text
    textures = dataset[0]["textures"]
    assert textures.shape == (24, 3, 32, 32) and "mask" not in dataset[0]
    fill = normalised(torch.tensor(FILL).view(1, 3, 1, 1))
    torch.testing.assert_close(textures, fill.expand_as(textures), atol=1e-6, rtol=0)
    assert not torch.equal(dataset[1]["textures"], textures)


def test_too_many_missing_iuvs_name_the_command(market: Market) -> None:
    with pytest.raises(FileNotFoundError, match=r"12 of 12 train images have no IUV.*--keep-iuv"):
        build(market(), inputs=("textures",))


def test_an_iuv_of_another_size_is_named(iuv_folder: MarketFolder) -> None:
    dataset = build(iuv_folder, inputs=("textures",))
    file = dataset.files["iuv"][dataset.data[0][0]]
    write_iuv(file, random_iuv(0)[:16])
    with pytest.raises(ValueError, match=re.escape(f"{file}: 16 × 16 (height × width), but the")):
        dataset[0]


def test_test_sets_bring_the_mirrored_inputs(iuv_folder: MarketFolder) -> None:
    dataset = build(iuv_folder, mode="query", inputs=())
    assert "mirrored" not in dataset[0]
    dataset.set_inputs(("textures", "mask"), mirrored=True)
    item = dataset[0]
    iuv = torch.from_numpy(read_iuv(dataset.files["iuv"][item["impath"]])).permute(2, 0, 1)
    iuv = F.horizontal_flip(IUV(iuv)).as_subclass(torch.Tensor)
    photo = image_tensor(Image.open(item["impath"]).convert("RGB")).flip(-1)
    expected = normalised(warp(photo.contiguous(), iuv.contiguous())[0])
    torch.testing.assert_close(item["mirrored"]["textures"], expected, atol=1e-6, rtol=0)
    assert torch.equal(item["mirrored"]["mask"], item["mask"].flip(-1))
    dataset.set_inputs(("textures", "mask"))
    assert "mirrored" not in dataset[0]


@pytest.mark.parametrize("has_iuv", [True, False])
def test_textures_need_a_transform_that_normalises(iuv_folder: MarketFolder, has_iuv: bool) -> None:
    if not has_iuv:
        shutil.rmtree(iuv_folder.masks_dir)
    dataset = build(iuv_folder, transform=None, inputs=("textures",), max_missing=1.0)
    with pytest.raises(ValueError, match="transform: expected a step ToTensor followed by Norm"):
        dataset[0]


def test_an_unknown_kind_of_textures(iuv_folder: MarketFolder) -> None:
    dataset = build(iuv_folder, inputs=("textures",), input_options={"textures": {"kind": "uv"}})
    with pytest.raises(ValueError, match=r"dsa\.textures: expected one of dsap, csa, got 'uv'"):
        dataset[0]


def test_a_row_of_a_third_party(market_folder: MarketFolder, monkeypatch) -> None:
    monkeypatch.setitem(INPUTS, "camera", BatchInput(lambda s: torch.tensor(s.record[2])))
    dataset = build(market_folder, inputs=("camera",))
    assert [int(item["camera"]) for item in dataset] == [item["camid"] for item in dataset]
    with pytest.raises(ValueError, match=r"'depth': expected one of mask, textures, camera"):
        dataset.set_inputs(("depth",))
