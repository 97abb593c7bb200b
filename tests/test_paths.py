"""The folder of data sets may be relative, hold `..`, begin with `~`, or be a symbolic link."""

from pathlib import Path

import pytest
from conftest import make_market
from mask_inputs import script

from magnifier_plugin.annotators.densepose import write_iuv
from magnifier_plugin.catalogue.layouts import require_dataset
from magnifier_plugin.catalogue.names import dataset_class
from magnifier_plugin.files import absolute_path
from magnifier_plugin.masks.label_maps import read_labels
from magnifier_plugin.masks.matching import dataset_folder
from magnifier_plugin.masks.paths import label_path
from magnifier_plugin.synthetic.folder import ensure_rendered
from magnifier_plugin.synthetic.options import SyntheticOptions

# Relative to `work`, where the tests run, and with `~` as the home folder.
ROOTS = ("../data", "a/../../data", "~", "~/../data", "link")


@pytest.fixture(params=ROOTS)
def root(request, tmp_path, monkeypatch):
    """One data set in `data`, and a root that refers to this folder."""
    make_market(tmp_path / "data")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "link").symlink_to(tmp_path / "data", target_is_directory=True)
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "data"))
    return request.param


def test_paths_are_absolute_and_links_kept(root, tmp_path):
    expected = tmp_path / "work" / "link" if root == "link" else tmp_path / "data"
    assert absolute_path(root) == absolute_path(Path(root)) == expected


def test_torchreids_images_have_their_label_maps(root, tmp_path):
    require_dataset("market1501", root)
    market = dataset_class("market1501")(root=root, verbose=False)
    for path, *_ in market.train:
        label = label_path(path, f"{root}/market1501", "market1501", f"{root}/masks")
        assert label.is_absolute() and read_labels(label).shape == (32, 16)


def test_data_sets_own_folder(root):
    images = f"{root}/market1501/Market-1501-v15.09.15/query"
    assert dataset_folder(images, "market1501") == absolute_path(root) / "market1501"


def test_scripts(root, tmp_path, capsys):
    source = ("-s", "market1501", "--root", root)
    assert script("check_dataset").main([*source, "--quick"]) == 0
    page = ("--out", f"{root}/page.html")
    assert script("check_masks").main([*source, "--masks", f"{root}/masks", *page]) == 0
    assert (tmp_path / "data" / "page.html").is_file()
    labels = sorted((tmp_path / "data" / "masks").rglob("bounding_box_train/*.png"))
    for label in labels:
        iuv = read_labels(label)[..., None].repeat(3, axis=2)
        write_iuv(tmp_path / "data" / "iuv" / f"{label.stem}_IUV.png", iuv)
    command = ["--source", "densepose-iuv", "--iuv", f"{root}/iuv"]
    images = f"{root}/market1501/Market-1501-v15.09.15/bounding_box_train"
    command += ["--images", images, "--out", f"{root}/other/market1501"]
    assert script("convert_masks").main(command) == 0
    converted = sorted((tmp_path / "data" / "other").rglob("*.png"))
    assert [path.name for path in converted] == [path.name for path in labels]


def test_rendered_pedestrians(root, tmp_path):
    tiny = SyntheticOptions(identities=4, cameras=2, images=1, height=64, width=32)
    folder = ensure_rendered(root, tiny, workers=1)
    assert folder == absolute_path(root) / "synthetic"
    assert (tmp_path / "data" / "synthetic" / "parameters.json").is_file()
