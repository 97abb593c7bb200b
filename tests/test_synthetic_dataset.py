"""The rendered pedestrians as a torchreid data set: label maps and IUV from the first use on."""

import pickle

import numpy as np
import pytest
import torchreid
from mask_inputs import script

from magnifier_plugin.annotators.densepose import read_iuv, to_regions
from magnifier_plugin.catalogue.names import dataset_class
from magnifier_plugin.data.annotated import AnnotatedDataset
from magnifier_plugin.masks.label_maps import read_labels, write_labels
from magnifier_plugin.masks.manifest import read_manifest
from magnifier_plugin.masks.paths import iuv_path, label_path
from magnifier_plugin.regions import REGIONS
from magnifier_plugin.synthetic.dataset import Synthetic
from magnifier_plugin.synthetic.folder import DENSEPOSE, MARKET, ensure_rendered
from magnifier_plugin.synthetic.options import SyntheticOptions

TINY = SyntheticOptions(identities=4, cameras=2, images=2, height=64, width=32)


@pytest.fixture
def root(tmp_path):
    ensure_rendered(tmp_path, TINY, workers=1)
    return tmp_path


def places(dataset):
    """The path of the label map of each image in all lists."""
    lists = (*dataset.train, *dataset.query, *dataset.gallery)
    folders = dataset.dataset_dir, dataset.label_folder, dataset.masks_dir
    return {record[0]: label_path(record[0], *folders) for record in lists}


@pytest.mark.parametrize("mode", ["train", "query", "gallery"])
def test_every_image_has_its_label_map_and_iuv_in_every_mode(root, mode):
    dataset = Synthetic(root=str(root), mode=mode, verbose=False)
    assert dataset.masks_dir == root / "synthetic" / "mask_labels"
    assert dataset.label_folder == "market1501"
    assert len(places(dataset)) == 16 and dataset.data == getattr(dataset, mode)
    for path, label in places(dataset).items():
        name = path.rpartition("/")[2].removesuffix(".jpg")
        iuv = read_iuv(root / "synthetic" / DENSEPOSE / f"{name}_IUV.png")
        assert np.array_equal(read_iuv(iuv_path(label)), iuv)
        assert np.array_equal(read_labels(label, (64, 32)), to_regions(iuv))


def test_it_is_a_plain_torchreid_data_set(root):
    assert Synthetic.__bases__ == (dataset_class("market1501"),)
    flips = []
    dataset = Synthetic(str(root), transform=flips.append, k_tfm=2, combineall=True, verbose=False)
    assert len(dataset.train) == 16
    assert set(dataset[0]) == {"img", "pid", "camid", "impath", "dsetid"} and len(flips) == 2
    again = pickle.loads(pickle.dumps(Synthetic(str(root), verbose=False)))
    assert type(again) is Synthetic and again.masks_dir == root / "synthetic" / "mask_labels"


def test_torchreids_own_manager_builds_it(root):
    sizes = {"height": 32, "width": 16, "batch_size_train": 4, "workers": 0, "use_gpu": False}
    manager = torchreid.data.ImageDataManager(root=str(root), sources="synthetic", **sizes)
    assert manager.num_train_pids == 2


def test_a_missing_folder_is_rendered(tmp_path):
    dataset = Synthetic(str(tmp_path), options=TINY, mode="query", verbose=False)
    assert all(label.is_file() for label in places(dataset).values())
    with pytest.raises(ValueError, match="rendered with other options"):
        Synthetic(str(tmp_path), options=SyntheticOptions(), verbose=False)


def test_iuv_that_an_earlier_version_did_not_keep_is_added(root):
    dataset = Synthetic(str(root), verbose=False)
    iuvs = [iuv_path(label) for label in places(dataset).values()]
    for path in iuvs:
        path.unlink()
    Synthetic(str(root), verbose=False)
    assert all(path.is_file() for path in iuvs)


class TestOtherLabelMaps:
    """`<masks_dir>/synthetic`, if it exists, is used in place of the data set's own maps."""

    @pytest.fixture
    def masks(self, root, monkeypatch):
        """Another annotator's label maps, in which everybody is a chest."""
        chest = np.full((64, 32), REGIONS.index("chest"), np.uint8)
        dataset = Synthetic(str(root), verbose=False)
        for record in dataset.train:
            write_labels(
                label_path(record[0], dataset.dataset_dir, "synthetic", root / "masks"), chest
            )
        monkeypatch.chdir(root)
        return root / "masks"

    def regions(self, root, masks_dir):
        dataset = AnnotatedDataset("synthetic", root, masks_dir=masks_dir, inputs=("mask",))
        return {int(value) for item in dataset for value in item["mask"].unique()}

    def test_in_training(self, root, masks, monkeypatch):
        chest = {REGIONS.index("chest")}
        assert self.regions(root, masks) == chest
        assert len(self.regions(root, root / "none")) > 3
        assert len(self.regions(root, None)) > 3
        monkeypatch.setenv("MAGNIFIER_MASKS", str(masks))
        assert self.regions(root, None) == chest

    @pytest.mark.parametrize(
        ("options", "place"),
        [
            ([], "synthetic/mask_labels/market1501"),
            (["--masks", "none"], "synthetic/mask_labels/market1501"),
            (["--masks", "masks"], "masks/synthetic"),
        ],
    )
    def test_check_masks_checks_those_that_are_trained_on(
        self, root, masks, capsys, options, place
    ):
        arguments = ["-s", "synthetic", "--root", str(root), "--workers", "1", *options]
        assert script("check_masks").main(arguments) == 0
        printed = capsys.readouterr().out
        assert f"Page: {root / place}/check_masks.html\n" in printed
        assert ("chest 100.0%" in printed) == (place == "masks/synthetic")


def test_a_second_use_writes_nothing(root, capsys):
    Synthetic(str(root), verbose=False)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    Synthetic(str(root), mode="gallery", verbose=False)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    assert read_manifest(root / "synthetic/mask_labels/market1501").label_set == "densepose"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("content", "message"), [(b"", r"\.jpg: .*damaged or truncated"), (None, r"\.jpg: has no IUV")]
)
def test_damage_says_how_to_render_again(root, content, message):
    path = next((root / "synthetic" / DENSEPOSE).iterdir())
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{message}.*remove .*synthetic to render it again"):
        Synthetic(str(root), verbose=False)
    assert (root / "synthetic" / MARKET).is_dir()
