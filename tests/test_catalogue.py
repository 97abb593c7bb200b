"""Data sets that are missing, misnamed or unreadable: early errors, and never a download."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torchreid
from conftest import MarketFolder, make_market
from PIL import Image

from magnifier_plugin.catalogue.layouts import require_dataset
from magnifier_plugin.catalogue.names import dataset_class, plain_name, registered_datasets
from magnifier_plugin.catalogue.opening import open_dataset, own_folder
from magnifier_plugin.data.annotated import AnnotatedDataset
from magnifier_plugin.images import read_image

Market = Callable[..., MarketFolder]


def build(folder: MarketFolder) -> AnnotatedDataset:
    arguments = {"masks_dir": folder.masks_dir, "inputs": ("mask",)}
    return AnnotatedDataset("market1501", folder.root, **arguments)


def test_unreadable_images(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    Image.new("RGB", (64, 64), "red").save(broken)
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(OSError, match=re.escape(f"{broken}: expected an image")):
        read_image(broken)
    with pytest.raises(FileNotFoundError, match="no such image"):
        read_image(tmp_path / "absent.jpg")


def test_names() -> None:
    assert plain_name("market1501_masked") == "market1501"
    with pytest.raises(
        ValueError, match=r"unknown data set 'market'.*cuhk03.*mean 'market1501'"
    ) as e:
        dataset_class("market")
    assert "_masked" not in str(e.value)


@pytest.mark.parametrize("name", sorted(n for n in registered_datasets() if "synthetic" not in n))
def test_nothing_is_downloaded(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("reached for the network")

    monkeypatch.setattr("urllib.request.urlretrieve", refuse)
    monkeypatch.setattr("gdown.download", refuse)
    with pytest.raises(FileNotFoundError, match=f"{plain_name(name)}: looked for {tmp_path}"):
        AnnotatedDataset(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_missing_parts_are_named(market: Market) -> None:
    folder = market()
    require_dataset("market1501", folder.root)
    require_dataset("market1501_masked", folder.root)
    shutil.rmtree(folder.images / "query")
    expected = r"looked for .*/market1501/.*query.*Expected in .*\{bounding_box_train,query,.*root"
    with pytest.raises(FileNotFoundError, match=expected):
        require_dataset("market1501", folder.root)
    with pytest.raises(FileNotFoundError, match="withdrew"):
        require_dataset("dukemtmcreid", folder.root)
    (folder.root / "msmt17" / "MSMT17_V2").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="MSMT17_V1/train"):
        require_dataset("msmt17", folder.root)
    (folder.root / "prid2011").mkdir()
    with pytest.raises(FileNotFoundError, match="prid: looked for .*cam_a"):
        AnnotatedDataset("prid", folder.root)


def test_market_without_the_inner_folder(market: Market) -> None:
    folder = market()
    for part in folder.images.iterdir():
        part.rename(folder.root / "market1501" / part.name)
    folder.images.rmdir()
    assert None not in build(folder).files["labels"].values()


def test_a_folder_name_that_torchreid_takes_for_an_identity(tmp_path: Path) -> None:
    folder = make_market(tmp_path / "run-1_c2")
    with pytest.raises(ValueError, match=r"read them from '-1_c2' in this folder's path"):
        build(folder)


@pytest.mark.parametrize(
    "name",
    ["photo.jpg", "0002_c7s1_000000_01.jpg", "1502_c1s1_0_01.jpg", "2020-01-01_c1.jpg", "-_c1.jpg"],
)
def test_file_names_that_torchreid_cannot_read(market: Market, name: str) -> None:
    folder = market()
    Image.new("RGB", (16, 32)).save(folder.images / "query" / name)
    with pytest.raises(ValueError, match=f"{name}: expected a name such as 0002_c1s1_000451_03"):
        build(folder)


def test_an_empty_subset(market: Market) -> None:
    folder = market(test_pids=())
    with pytest.raises(ValueError, match=r"query: expected \*.jpg images, found none"):
        build(folder)


def test_missing_distractors_do_not_move_the_data_set(market: Market) -> None:
    """All that Market-1501 needs is there; only the folder that was asked for is not."""
    folder = market()
    with pytest.raises(FileNotFoundError, match="images, which does not exist") as caught:
        open_dataset("market1501", folder.root, market1501_500k=True)
    assert "Expected in" not in str(caught.value)


def test_an_empty_list_of_a_users_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Empty(torchreid.data.ImageDataset):
        dataset_dir = "empty"

        def __init__(self, root: str = "", **options):
            super().__init__([], [], [], **options)

    monkeypatch.setitem(registered_datasets(), "empty", Empty)
    with pytest.raises(ValueError, match="empty in .*: torchreid found no images for training"):
        AnnotatedDataset("empty", tmp_path)


@pytest.mark.filterwarnings("error::UserWarning")
def test_open_dataset_is_torchreids_own_and_silent(market: Market, capsys) -> None:
    folder = market()
    for part in folder.images.iterdir():
        part.rename(folder.root / "market1501" / part.name)
    folder.images.rmdir()
    for name in ("market1501", "market1501_masked"):
        dataset = open_dataset(name, folder.root)
        assert type(dataset) is dataset_class("market1501") and len(dataset.train) == 12
        assert own_folder(dataset) == folder.root / "market1501"
    assert capsys.readouterr().out == ""
