"""Checks of label maps and lists before training, through both data managers."""

import re
import shutil

import pytest
from conftest import make_market, torchreids_manager

from magnifier_plugin.data.annotated import AnnotatedDataset
from magnifier_plugin.data.datamanager import AnnotatedDataManager
from magnifier_plugin.masks.manifest import Manifest, write_manifest

SMALL = {"height": 32, "width": 16, "batch_size_train": 4, "workers": 0, "use_gpu": False}


def our_manager(folder, **options):
    return AnnotatedDataManager(
        root=folder.root,
        masks_dir=folder.masks_dir,
        sources="market1501",
        inputs=("mask",),
        **SMALL,
        **options,
    )


def torchreids(folder, **options):
    return torchreids_manager(folder, targets="market1501_masked", **options)


MANAGERS = pytest.mark.parametrize("manager", [our_manager, torchreids])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    folder = make_market(tmp_path / "data")
    monkeypatch.setenv("MAGNIFIER_MASKS", str(folder.masks_dir))
    return folder


@MANAGERS
def test_label_maps_of_another_label_set(folder, monkeypatch, manager):
    write_manifest(folder.masks_dir / "market1501", Manifest("parsing", "lip", {}))
    with pytest.raises(ValueError, match=r"label set lip, expected densepose.*MAGNIFIER_LABEL_SET"):
        manager(folder)


def test_another_label_set_is_expected(folder, monkeypatch):
    write_manifest(folder.masks_dir / "market1501", Manifest("mine", "my own", {}))
    assert our_manager(folder, label_set="my own").num_train_pids == 3
    monkeypatch.setenv("MAGNIFIER_LABEL_SET", "my own")
    assert torchreids(folder).num_train_pids == 3


@MANAGERS
def test_no_query_has_a_match(folder, manager):
    for path in (folder.images / "bounding_box_test").glob("*"):
        path.rename(path.with_name("0009" + path.name[4:]))
    with pytest.raises(ValueError, match=r"market1501: .*nothing can be measured"):
        manager(folder)


@MANAGERS
def test_some_queries_have_no_match(folder, manager, caplog):
    for path in (folder.images / "bounding_box_test").glob("0001*"):
        path.rename(path.with_name("0009" + path.name[4:]))
    manager(folder)
    found = [r for r in caplog.records if "identity that is not in the gallery" in r.message]
    assert len(found) == 1


@MANAGERS
def test_a_query_without_a_match_is_named_by_the_numbers_of_torchreids_lists(
    folder, manager, caplog
):
    for path in (folder.images / "bounding_box_test").glob("0001*"):
        path.rename(path.with_name("0009" + path.name[4:]))
    options = {"same_camera": "keep"} if manager is our_manager else {}
    manager(folder, **options)
    found = [r for r in caplog.records if "identity that is not in the gallery" in r.message]
    named = re.findall(r"_c(\d)s1_\d+_01.jpg \(identity 1, camera (\d)\)", found[0].message)
    assert len(named) == 3 and all(int(in_name) == int(c) + 1 for in_name, c in named)


def test_test_images_need_no_label_maps(folder):
    for name in ("query", "bounding_box_test"):
        shutil.rmtree(folder.masks_dir / "market1501" / name)
    manager = torchreids(folder)
    assert "mask" in next(iter(manager.train_loader))
    for loader in manager.test_loader["market1501_masked"].values():
        assert "mask" not in next(iter(loader))


@MANAGERS
def test_no_training_image_has_a_label_map(folder, manager, caplog, monkeypatch):
    """max_missing allows it: M is not trained on this data set, which is logged once."""
    shutil.rmtree(folder.masks_dir)
    monkeypatch.setattr(
        AnnotatedDataset.__init__,
        "__kwdefaults__",
        {**AnnotatedDataset.__init__.__kwdefaults__, "max_missing": 1.0},
    )  # torchreid's manager has no option for it
    options = {"max_missing": 1.0} if manager is our_manager else {}
    built = manager(folder, **options)
    built.train_loader.dataset.set_inputs(("mask",))  # as an engine does
    (found,) = [r for r in caplog.records if "12 of 12 train images have no label map" in r.message]
    assert found.levelname == "WARNING"
    assert "all their pixels count as unknown" in found.message
    assert "python scripts/convert_masks.py --source" in found.message


def test_one_label_map_is_enough(folder, caplog):
    kept = next((folder.masks_dir / "market1501" / "bounding_box_train").iterdir())
    for path in kept.parent.iterdir():
        if path != kept:
            path.unlink()
    with caplog.at_level("INFO"):
        our_manager(folder, max_missing=1.0)
    (found,) = [r for r in caplog.records if "11 of 12 train images" in r.message]
    assert found.levelname == "INFO"
