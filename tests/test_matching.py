"""Which folder is the data set's own, and which annotation belongs to which image."""

from pathlib import Path

import pytest
from mask_inputs import Named, save_photo

from magnifier_plugin.catalogue.images import list_images
from magnifier_plugin.masks.matching import dataset_folder, match


@pytest.mark.parametrize(
    ("images", "dataset", "folder"),
    [
        ("/d/market1501", "market1501", "/d/market1501"),
        ("/d/market1501/Market-1501-v15.09.15/query", "market1501", "/d/market1501"),
        ("/d/Market-1501-v15.09.15/query", "market1501", "/d"),
        ("/d/dukemtmc-reid/DukeMTMC-reID", "dukemtmcreid", "/d/dukemtmc-reid"),
        ("/home/market1501/d/market1501/query", "market1501", "/home/market1501/d/market1501"),
        ("/d/prid2011/prid_2011", "prid", "/d/prid2011"),
        ("/d/my_people/train", "shop", "/d/my_people/train"),
    ],
)
def test_data_sets_own_folder_is_found(images, dataset, folder):
    assert dataset_folder(images, dataset) == Path(folder)


def test_annotations_match_images_by_name_then_by_folders():
    images = [Path(p) for p in ("/d/detected/1_001.png", "/d/labeled/1_001.png", "/d/2.v1.png")]
    items = [Named("/iuv/labeled/1_001"), Named("x/detected/1_001.png"), Named("2"), Named("3")]
    matches = match(items, images)
    assert {image: item.name for item, image in matches.pairs} == {
        images[0]: "x/detected/1_001.png",
        images[1]: "/iuv/labeled/1_001",
        images[2]: "2",
    }
    assert (matches.missing, matches.unmatched) == ([], ["3"])


def test_names_that_match_several_images_stop_the_conversion():
    images = [Path("/d/detected/1_001.png"), Path("/d/labeled/1_001.png")]
    with pytest.raises(ValueError, match=r"(?s)1_001 matches .*detected.* and .*labeled.*--images"):
        match([Named("/iuv/1_001")], images)
    with pytest.raises(ValueError, match=r"a/1 and b/1 both match /d/1\.png"):
        match([Named("a/1"), Named("b/1")], [Path("/d/1.png")])
    with pytest.raises(
        ValueError, match=r"no annotation has the name of an image.*\['7'\].*1\.png"
    ):
        match([Named("7")], [Path("/d/1.png")])
    with pytest.raises(ValueError, match=r"refused.*'\.\.'"):
        match([Named("a/../../etc/1")], [Path("/d/1.png")])
    assert len(match([Named("../../relative/1")], [Path("/d/1.png")]).pairs) == 1


def test_only_images_are_listed(tmp_path):
    for name in (
        "a.jpg",
        "b/c.PNG",
        "b/._c.PNG",
        ".hidden/d.jpg",
        "a_IUV.png",
        "a_INDS.png",
        "x/e.jpg",
    ):
        save_photo(tmp_path / name)
    (tmp_path / "notes.txt").write_text("")
    assert list_images(tmp_path, skip=[tmp_path / "x"]) == [
        tmp_path / "a.jpg",
        tmp_path / "b/c.PNG",
    ]
    with pytest.raises(FileNotFoundError, match="no such folder"):
        list_images(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no images found"):
        list_images(tmp_path / "empty")
