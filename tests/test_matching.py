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


def test_names_that_differ_after_a_dot():
    images = [Path(f"/d/1_c1_12.30.{second}.jpg") for second in (40, 41, 42)]
    names = ["1_c1_12.30.42.npy", "x/1_c1_12.30.40.jpg.png", "1_c1_12.30.41", "1_c1_12.30.43.png"]
    matches = match(map(Named, names), images)
    assert [item.name for item, _ in matches.pairs] == [names[1], names[2], names[0]]
    assert [image for _, image in matches.pairs] == images
    assert matches.unmatched == [names[3]]
    # DensePose's tools drop what follows the first dot; others add to the name.
    with pytest.raises(ValueError, match="1_c1_12 matches .*40.jpg and .*41.jpg and .*42.jpg\n"):
        match([Named("1_c1_12")], images)
    with pytest.raises(ValueError, match=r"(?s)42.jpg and more\n.*-s NAME=CSV --images FOLDER"):
        match([Named("1_c1_12")], [*images, Path("/d/1_c1_12.30.43.jpg")])
    assert match([Named("2.rendered.png")], [Path("/d/2.jpg")]).pairs


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
    with pytest.raises(ValueError, match=r"the source has no annotations: .* lower --min-score"):
        match([], [Path("/d/1.png")])


@pytest.mark.parametrize(
    "name",
    [
        *("../../detected/1", "scripts/../d/detected/1.png", "x/../../detected/./1.png"),
        *(r"detected\1.png", r"C:\d\detected\1.png", r"d/detected\1.png", r"..\d\x\..\detected\1"),
    ],
)
def test_relative_paths_and_those_of_windows(name):
    images = [Path("/d/detected/1.png"), Path("/d/labeled/1.png")]
    ((_, image),) = match([Named(name)], images).pairs
    assert image == images[0]


def test_an_image_may_have_a_backslash_in_its_name():
    images = [Path(r"/d/a\1.png"), Path("/d/1.png")]
    matches = match([Named("/iuv/1"), Named(r"/iuv/a\1")], images)
    assert [item.name for item, _ in matches.pairs] == [r"/iuv/a\1", "/iuv/1"]


class TestImagesThatAreNotConverted:
    """Images of the data set that are not in the list, or not below --images."""

    @pytest.fixture
    def shop(self, tmp_path):
        """Two people, each with a photo 0001.jpg; `found` contains annotations."""
        names = ("1/0001", "1/0002", "2/0001", "2/0003", "deep/train/0/a", "deep/test/0/a")
        for name in (*names, "found/2/0004", "found/3/0001"):
            save_photo(tmp_path / "shop" / f"{name}.jpg")
        return tmp_path / "shop"

    def match(self, shop, names, listed):
        images = [shop / f"{name}.jpg" for name in listed]
        found = match(map(Named, names), images, shop, [shop / "found"])
        pairs = {item.name: str(image.relative_to(shop)) for item, image in found.pairs}
        return pairs, [image.stem for image in found.missing], found.unmatched

    def test_their_annotations_go_to_no_other_image(self, shop):
        found = self.match(shop, ["dp/2/0001", "dp/1/0002"], ["1/0001", "1/0002"])
        assert found == ({"dp/1/0002": "1/0002.jpg"}, ["0001"], [])

    def test_their_annotations_make_no_other_ambiguous(self, shop):
        found = self.match(shop, ["dp/1/0001", "dp/2/0001"], ["1/0001", "1/0002"])
        assert found == ({"dp/1/0001": "1/0001.jpg"}, ["0002"], [])

    def test_at_any_depth(self, shop):
        """MSMT17 numbers the people of train and test alike."""
        for start in (f"{shop}/deep", "dp"):
            names = [f"{start}/test/0/a.jpg", f"{start}/train/0/a.jpg"]
            for order in (names, names[::-1]):
                found = self.match(shop, order, ["deep/train/0/a"])
                assert found == ({names[1]: "deep/train/0/a.jpg"}, [], [])

    def test_without_folders_the_converted_image_counts(self, shop):
        found = self.match(shop, ["dp/0001", "dp/0002"], ["1/0001", "1/0002"])
        assert found == ({"dp/0001": "1/0001.jpg", "dp/0002": "1/0002.jpg"}, [], [])

    def test_only_annotations_of_unknown_images_are_reported(self, shop):
        names = ["dp/1/0001", "0002", "dp/2/0003", "dp/2/0005", "found/2/0004"]
        found = self.match(shop, names, ["1/0001"])
        assert found == ({"dp/1/0001": "1/0001.jpg"}, [], ["dp/2/0005", "found/2/0004"])

    def test_annotations_are_no_images(self, shop):
        """A parser's PNG has its image's name."""
        found = self.match(shop, [f"{shop}/found/3/0001.jpg"], ["1/0001"])
        assert found == ({f"{shop}/found/3/0001.jpg": "1/0001.jpg"}, [], [])

    def test_none_of_a_converted_image(self, shop):
        with pytest.raises(ValueError, match=r"belong to images that are not converted.*dp/2/0001"):
            self.match(shop, ["dp/2/0001"], ["1/0001"])

    @pytest.mark.parametrize("folder", ["x" * 300, "a\0b"])
    def test_names_that_no_folder_can_have(self, shop, folder):
        found = self.match(shop, [f"{folder}/0001"], ["1/0001"])
        assert found == ({f"{folder}/0001": "1/0001.jpg"}, [], [])


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
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(FileNotFoundError, match="photo.jpg: expected a folder .*, found a file"):
        list_images(tmp_path / "photo.jpg")
    with pytest.raises(FileNotFoundError, match="expected a folder of images, found no such"):
        list_images(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no images found"):
        list_images(tmp_path / "empty")
