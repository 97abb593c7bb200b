"""Occluded and partial data sets, in their authors' folder layouts."""

import pytest
import torchreid
from mask_inputs import script
from own_data import make_images
from test_main import run

from magnifier_plugin.catalogue.layouts import require_dataset
from magnifier_plugin.catalogue.opening import open_dataset, open_lists, own_folder

# Name → its folder, the files in it, and their identity and camera.
TRAIN, QUERY, GALLERY = "train", "query", "gallery"
SETS = {
    "occluded_duke": (
        "Occluded_Duke",
        {
            "bounding_box_train/0001_c2_f0046182.jpg": (TRAIN, 0, 0),
            "bounding_box_train/0001_c5_f0046190.jpg": (TRAIN, 0, 1),
            "query/0005_c2_f0046985.jpg": (QUERY, 5, 0),
            "bounding_box_test/0005_c8_f0046800.jpg": (GALLERY, 5, 2),
        },
    ),
    "occluded_reid": (
        "Occluded_REID",
        {
            "occluded_body_images/001/001_01.tif": (QUERY, 1, 0),
            "occluded_body_images/002/002_05.tif": (QUERY, 2, 0),
            "whole_body_images/001/001_01.tif": (GALLERY, 1, 1),
            "whole_body_images/002/002_02.tif": (GALLERY, 2, 1),
        },
    ),
    "partial_reid": (
        "Partial_REID",
        {
            "partial_body_images/001_001.jpg": (QUERY, 1, 0),
            "whole_body_images/001_003.jpg": (GALLERY, 1, 1),
            "whole_body_images/060_001.jpg": (GALLERY, 60, 1),
        },
    ),
    "partial_ilids": (
        "Partial_iLIDS",
        {
            "partial_body_images/001.jpg": (QUERY, 1, 0),
            "whole_body_images/001.jpg": (GALLERY, 1, 1),
            "whole_body_images/119.jpg": (GALLERY, 119, 1),
        },
    ),
    "p_dukemtmc": (
        "P-DukeMTMC-reID",
        {
            "train/occluded_body_images/0007/0007_c1_f01.jpg": (TRAIN, 0, 0),
            "train/whole_body_images/0007/0007_c2_f02.jpg": (TRAIN, 0, 1),
            "train/whole_body_images/0009/0009_c2_f02.jpg": (TRAIN, 1, 1),
            "test/occluded_body_images/0012/0012_c3_f09.jpg": (QUERY, 12, 0),
            "test/whole_body_images/0012/0012_c4_f07.jpg": (GALLERY, 12, 1),
        },
    ),
}
TEST_ONLY = ("occluded_reid", "partial_reid", "partial_ilids")


@pytest.fixture
def root(tmp_path):
    for folder, images in SETS.values():
        make_images(tmp_path / folder, images)
        (tmp_path / folder / "readme.txt").touch()
        (tmp_path / folder / next(iter(images))).with_name("Thumbs.db").touch()
    # Some copies have a third folder.
    make_images(tmp_path / "Partial_REID", ["occluded_body_images/001_001.jpg"])
    return tmp_path


@pytest.mark.parametrize("name", SETS)
def test_lists(root, name):
    folder, images = SETS[name]
    dataset = open_lists(name, root)
    found = {
        record[0]: (split, *record[1:3])
        for split in (TRAIN, QUERY, GALLERY)
        for record in getattr(dataset, split)
    }
    assert found == {str(root / folder / path): what for path, what in images.items()}
    assert own_folder(dataset) == root / folder


@pytest.mark.parametrize("name", SETS)
def test_a_missing_folder_is_named(root, name):
    folder, images = SETS[name]
    gone = root / folder / next(iter(images)).partition("/")[0]
    gone.rename(root / "gone")
    with pytest.raises(FileNotFoundError, match=f"{name}: looked for {gone}") as error:
        require_dataset(name, root)
    withdrawn = "which its authors withdrew: there is no download" in str(error.value)
    assert withdrawn == (name in ("occluded_duke", "p_dukemtmc"))
    with pytest.raises(FileNotFoundError, match=f"{name}: looked for {gone}"):
        open_dataset(name, root, mode="query")


@pytest.mark.parametrize("name", TEST_ONLY)
def test_test_only_data_sets_cannot_be_trained_on(root, name, tmp_path, capsys):
    arguments = ["--root", root, "data.save_dir", tmp_path / "log"]
    assert run("-s", name, *arguments) == 2
    error = capsys.readouterr().err
    assert f"{name}: has no training images" in error and f"-s market1501 -t {name}" in error
    with pytest.raises(ValueError, match="has no training images"):
        torchreid.data.ImageDataManager(root=str(root), sources=f"{name}_masked", use_gpu=False)


@pytest.mark.parametrize("name", SETS)
def test_torchreids_own_manager_tests_on_them(root, name, market_folder):
    sources = "occluded_duke" if name in TEST_ONLY else name
    manager = torchreid.data.ImageDataManager(
        root=str(root), sources=sources, targets=name, workers=0, use_gpu=False, batch_size_train=2
    )
    query, gallery = manager.fetch_test_loaders(name)
    assert query and gallery and len(next(iter(manager.test_loader[name]["query"]))["pid"])


@pytest.mark.parametrize("name", SETS)
def test_they_are_checked(root, name, capsys):
    status = script("check_dataset").main(["-s", name, "--root", str(root)])
    shown = capsys.readouterr().out
    assert status == 0 and "| query |" in shown and "0 errors" in shown


def test_a_name_without_an_identity(root):
    make_images(root, ["Partial_REID/partial_body_images/_1.jpg"])
    with pytest.raises(ValueError, match="without an identity before the first _.*_1.jpg"):
        open_dataset("partial_reid", root, mode="query")
