"""Lists of users' own images: how a CSV and a folder are read, and every mistake in them."""

import os
import re
import unicodedata
from pathlib import Path

import pytest
from own_data import make_images, split_names, write_lines

from magnifier_plugin.catalogue.csv_list import read_image_csv, write_image_csv
from magnifier_plugin.catalogue.folder_list import read_folder, read_identities
from magnifier_plugin.catalogue.image_list import ImageList, ListedImage, plain_id
from magnifier_plugin.catalogue.numbering import common_folder, drop_cameras, number_images
from magnifier_plugin.catalogue.splitting import split_identities

HEADER = "path,pid,camid,split"
AWKWARD = """it's <b>"Jürgen", Köln.png"""


def errors(images: ImageList) -> list[str]:
    return [problem.text for problem in images.problems if problem.is_error]


def listed(folder: Path, *lines: str) -> ImageList:
    return read_image_csv(write_lines(folder / "list.csv", *lines))


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return make_images(tmp_path, [f"{letter}.png" for letter in "abcdef"])


class TestCsv:
    def test_rows_are_read(self, shop):
        make_images(shop / "in side", [AWKWARD])
        quoted = '"in side/it\'s <b>""Jürgen"", Köln.png"'
        found = listed(
            shop,
            "path, Pid ,camid,split,weather",
            "a.png,anna,door, Train ,sun",
            f"{quoted},0007,03,query,",
            "",
            f"{shop}/b.png,7,4,gallery,rain",
        )
        assert found.problems == [] and found.notes == []
        assert found.conditions == ("weather",)
        assert found.images == [
            ListedImage(shop / "a.png", "anna", "door", "train", ("sun",)),
            ListedImage(shop / "in side" / AWKWARD, "7", "3", "query", ("",)),
            ListedImage(shop / "b.png", "7", "4", "gallery", ("rain",)),
        ]

    @pytest.mark.parametrize("delimiter", [";", "\t"])
    def test_what_spreadsheets_write(self, shop, delimiter):
        text = f"\ufeff{HEADER}\na.png,1,1,train\n".replace(",", delimiter).replace("\n", "\r\n")
        (shop / "list.csv").write_bytes(text.encode())
        assert [image.pid for image in read_image_csv(shop / "list.csv").images] == ["1"]

    def test_without_cameras(self, shop):
        found = listed(shop, "path,pid,split", "a.png,1,train", "b.png,1,train")
        assert found.notes == ["no cameras, each image counts as its own camera"]
        assert [record[2] for record in number_images(found).train] == [0, 1]

    @pytest.mark.parametrize("name", ["camera", "Cam_ID"])
    def test_a_condition_that_looks_like_cameras(self, shop, name):
        problem, *others = listed(shop, f"path,pid,{name},split", "a.png,1,1,train").problems
        assert not problem.is_error
        assert problem.text == (
            f"column {name} is read as a condition; if it is the camera, name it camid"
        )
        assert others == listed(shop, f"{HEADER},{name}", "a.png,1,1,train,1").problems

    def test_umlauts_in_another_unicode_form(self, shop):
        decomposed = make_images(shop, [unicodedata.normalize("NFD", "jürgen.png")])
        found = listed(shop, HEADER, f"{unicodedata.normalize('NFC', 'jürgen.png')},1,1,train")
        assert found.problems == [] and found.images[0].path.parent == decomposed

    def test_backslashes_of_windows(self, shop):
        make_images(shop, ["anna/1.png", r"anna\2.png", "anna/2.png"])
        found = listed(shop, HEADER, r"anna\1.png,1,1,train", r"anna\2.png,1,1,train")
        paths = [image.path for image in found.images]
        assert paths == [shop / "anna" / "1.png", shop / r"anna\2.png"]

    @pytest.mark.parametrize(
        ("lines", "expected"),
        [
            (["path,pid", "a.png,1"], "without split: expected path,pid,camid,split .*--split 0.5"),
            (["file;name", "a.png;1"], "without path, pid, split: .*found file,name"),
            (["path,pid,split,pid", "a.png,1,train,1"], "an empty or repeated name"),
            ([""], "found nothing"),
            ([HEADER], "no lines after the header"),
            (
                [HEADER, "a.png,1,1"],
                "1 line with a number of cells other than .* 4: line 2 .3 cells",
            ),
            ([HEADER, ",1,1,train"], "1 line without a path: line 2"),
            ([HEADER, "a.png,,1,train"], "1 line without a pid: line 2: a.png"),
            ([HEADER, "a.png,1,1,val"], "with a split other than train, .*: line 2: a.png 'val'"),
            ([HEADER, f"{'x' * 500},1,1,train"], "image that does not exist: line 2: x{300}$"),
            ([HEADER, "~nobody/x,1,1,train"], "image that does not exist: line 2: ~nobody/x"),
            ([HEADER, "x.png,1,1,train"], "image that does not exist: line 2: x.png"),
            (
                [HEADER, "a.png,1,1,train", "./a.png,1,1,train"],
                "1 line repeating an image: line 3: ./a.png",
            ),
            (
                [HEADER, "a.png,1,1,train", "b.png,1,,train"],
                "1 image without a camera although others have one.*b.png",
            ),
            ([HEADER, "a.png,1,1,query"], "^gallery: no images$"),
            ([HEADER, "a.png,1,1,gallery"], "^query: no images$"),
            (
                [HEADER, "a.png,x,1,train", "b.png,x,1,query", "c.png,x,2,gallery"],
                "1 identity in train and in query or gallery: x",
            ),
            ([HEADER, "a.png,-1,1,gallery"], "^no images$"),
        ],
    )
    def test_each_mistake(self, shop, lines, expected):
        (text,) = errors(listed(shop, *lines))
        assert re.search(expected, text)

    def test_all_mistakes_at_once(self, shop):
        lines = ["a.png,1,1,train", "a.png,1,1,train", "x.png,1,1,train", "b.png,1,1,query"]
        texts = errors(listed(shop, HEADER, *lines))
        assert [text.partition(":")[0] for text in texts] == [
            "1 line repeating an image",
            "1 line with an image that does not exist",
            "gallery",
            "1 identity in train and in query or gallery",
        ]

    def test_a_query_may_be_in_the_gallery(self, shop):
        rows = ["a.png,1,1,query", "a.png,1,1,gallery", "b.png,1,2,gallery"]
        assert errors(listed(shop, HEADER, *rows)) == []
        again = [*rows, "a.png,1,1,gallery", "a.png,1,1,query"]
        text = "2 lines repeating an image: line 5: a.png, line 6: a.png"
        assert errors(listed(shop, HEADER, *again)) == [text]
        rows[1] = "a.png,1,2,gallery"  # it would be its own match
        assert "1 line repeating an image: line 3: a.png" in errors(listed(shop, HEADER, *rows))

    def test_images_that_would_share_a_label_map(self, shop):
        make_images(shop, ["a.jpg"])
        (problem,) = listed(shop, HEADER, "a.png,1,1,train", "a.jpg,1,2,train").problems
        assert not problem.is_error and problem.text.endswith(f"{shop}/a.jpg = {shop}/a.png")

    def test_no_file_and_no_text(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no such file"):
            read_image_csv(tmp_path / "list.csv")
        (tmp_path / "list.csv").write_bytes(b'path,pid,split\n"' + b"a" * 200_000)
        with pytest.raises(ValueError, match=r"list.csv: expected CSV .*field larger"):
            read_image_csv(tmp_path / "list.csv")

    def test_what_is_written_is_read(self, shop):
        bad_name = os.fsdecode(b"\xff.png")
        make_images(shop, [AWKWARD, bad_name, " spaces .png", "with\nline.png"])
        images = [
            ListedImage(path, "1", "a", "train", ("x,y",)) for path in sorted(shop.glob("*.png"))
        ]
        file = shop.parent / "elsewhere" / "list.csv"
        write_image_csv(file, ImageList(shop, images, ("why",)))
        found = read_image_csv(file)
        assert (found.images, found.conditions, found.problems) == (images, ("why",), [])
        assert "camid" in file.read_text(errors="surrogateescape").partition("\n")[0]


class TestFolder:
    def test_identities_and_cameras(self, tmp_path):
        found = read_folder(make_images(tmp_path, split_names()))
        assert found.problems == [] and len(found.images) == 24
        assert {(i.pid, i.camid) for i in found.of_split("query")} == {
            (pid, camera) for pid in ("carla", "dieter") for camera in "12"
        }

    @pytest.mark.parametrize(
        ("name", "camera"),
        [
            ("x_c3.png", "3"),
            ("c3s1_000.png", "3"),
            ("0002_c12s1_000451_03.png", "12"),
            ("0001_c2_f0046182.png", "2"),
            ("photo-Cam4.png", "4"),
            ("abc3.png", ""),
            ("c4f2.png", ""),
            ("0001.png", ""),
        ],
    )
    def test_a_camera_in_a_name(self, tmp_path, name, camera):
        found = read_folder(make_images(tmp_path, [f"train/anna/{name}"]))
        assert [image.camid for image in found.images] == [camera]

    def test_market_names(self, tmp_path):
        names = [
            "bounding_box_train/0002_c1s1_000451_03.jpg",
            "query/0003_c1s1_000451_03.png",
            "bounding_box_test/0003_c2s1_000451_03.jpeg",
            "bounding_box_test/0000_c2s1_000452_03.jpg",
            "bounding_box_test/-1_c2s1_000451_03.jpg",
        ]
        for top in (tmp_path / "plain", tmp_path / "archive" / "Market-1501-v15.09.15"):
            make_images(top, names)
        for folder in ("plain", "archive"):
            found = read_folder(tmp_path / folder)
            assert found.problems == []
            assert found.notes == ["1 image of identity -1 (junk) left out, as in torchreid"]
            lists = number_images(found)
            assert [record[1:3] for record in lists.train] == [(0, 0)]
            assert [record[1:3] for record in lists.query] == [(3, 0)]
            assert sorted(record[1:3] for record in lists.gallery) == [(0, 1), (3, 1)]

    def test_other_folders_are_named(self, tmp_path):
        """A much-used baseline makes train_all, of which train and val are parts."""
        others = ["val/anna/b_c1.png", "train_all/anna/a_c1.png", ".cache/a_c1.png"]
        (tmp_path / "notes").mkdir()
        found = read_folder(make_images(tmp_path, ["train/anna/a_c1.png", *others]))
        assert found.notes == ["2 other folders with images not read: train_all, val"]
        assert found.problems == [] and len(found.images) == 1

    def test_mistakes(self, tmp_path):
        make_images(tmp_path, ["train/anna/a.png", "train/b.png", "gallery/carla/c.png"])
        (tmp_path / "query").mkdir()
        (tmp_path / "bounding_box_train").mkdir()
        texts = errors(read_folder(tmp_path))
        assert texts[0].startswith("1 image neither in a folder named by identity nor named like")
        assert texts[1] == "train: both train and bounding_box_train exist"
        assert texts[2] == f"{tmp_path}/bounding_box_train: no images found"
        assert texts[3:] == [f"{tmp_path}/query: no images found", "query: no images"]

    def test_another_layout_is_described(self, tmp_path):
        make_images(tmp_path / "photos", [f"{letter}/1.png" for letter in "abcdef"])
        (text,) = errors(read_folder(tmp_path / "photos"))
        assert "found 6 images in folders a, b, c, d, e, …. If each folder is an identity" in text
        assert "--split 0.5 --write-csv FILE" in text
        (tmp_path / "empty").mkdir()
        assert errors(read_folder(tmp_path / "empty")) == ["no images found"]
        with pytest.raises(FileNotFoundError, match="no such folder"):
            read_folder(tmp_path / "nowhere")


class TestNumbers:
    def images(self, *rows: str) -> ImageList:
        split = [row.split() for row in rows]
        return ImageList(Path("/s"), [ListedImage(Path("/s", p), *rest) for p, *rest in split])

    def test_words_are_numbered_in_order(self):
        lists = number_images(
            self.images(
                "a zoe door train",
                "b 10 roof train",
                "c 9 door train",
                "d x yard query",
                "e x 2 gallery",
                "f 12 door gallery",
            )
        )
        assert [record[1:] for record in lists.train] == [(2, 0, 0), (1, 1, 0), (0, 0, 0)]
        assert [record[1:] for record in lists.query] == [(1, 3, 0)]
        assert [record[1:] for record in lists.gallery] == [(1, 2, 0), (0, 0, 0)]
        assert lists.test_pids == {"12": 0, "x": 1}

    def test_test_identities_keep_their_numbers(self):
        lists = number_images(self.images("a 7 1 query", "b 7 2 gallery", "c 1501 2 gallery"))
        assert lists.test_pids == {"7": 7, "1501": 1501}
        huge = number_images(self.images(f"a {10**12} 1 query", "b 7 2 gallery"))
        assert huge.test_pids == {"7": 0, str(10**12): 1}

    def test_ids(self):
        assert [plain_id(text) for text in ("0007", "-1", "7a", "٣")] == ["7", "-1", "7a", "٣"]

    def test_dropped_cameras(self):
        query, gallery = drop_cameras([("a", 1, 0, 0)], [("a", 1, 0, 0), ("b", 1, 0, 0)])
        assert query == [("a", 1, 0, 0)] and gallery == [("a", 1, 0, 0), ("b", 1, 1, 0)]

    def test_the_folder_that_contains_all(self):
        paths = [Path("/x/a/b/1.png"), Path("/x/a/2.png"), Path("/x/a/c/d/3.png")]
        assert common_folder(paths) == Path("/x/a")
        assert common_folder([*paths, Path("/y/4.png")]) == Path("/")
        assert common_folder(paths[:1]) == Path("/x/a/b")


class TestSplit:
    def photos(self, folder: Path) -> ImageList:
        names = [
            f"{pid}/c{camera}_{shot}.png"
            for pid in ("p1", "p2", "p3", "p4", "p5", "p6")
            for camera in (1, 2)
            for shot in (1, 2, 3)
        ]
        return read_identities(make_images(folder, names))

    def test_half_of_the_identities_and_a_query_of_each_camera(self, tmp_path):
        found = split_identities(self.photos(tmp_path), 0.5, seed=1)
        assert found.problems == []
        train, query, gallery = (
            {(i.pid, i.camid): 0 for i in found.of_split(s)} for s in ("train", "query", "gallery")
        )
        assert len({pid for pid, _ in train}) == 3 and not set(train) & set(gallery)
        assert set(query) == set(gallery) and len(found.of_split("query")) == 6
        assert len(found.of_split("gallery")) == 12 and len(found.of_split("train")) == 18

    def test_the_seed_decides(self, tmp_path):
        photos = self.photos(tmp_path)
        first, again, other = (split_identities(photos, 0.5, seed).images for seed in (1, 1, 2))
        assert first == again != other

    @pytest.mark.parametrize(
        ("names", "queries"),
        [
            (["c1_1", "c2_1"], 1),  # no camera has two images
            (["c1_1", "c1_2", "c2_1"], 1),
            (["c1_1", "c1_2"], 0),  # no other camera, so no query would have a match
            (["1", "2", "3"], 1),  # without cameras
            (["1"], 0),
        ],
    )
    def test_every_query_has_a_match(self, tmp_path, names, queries):
        images = read_identities(make_images(tmp_path, [f"p/{name}.png" for name in names]))
        split = split_identities(images, 0, seed=3)
        assert len(split.of_split("query")) == queries
        assert ("1 test identity without a query" in str(split.notes)) == (queries == 0)
        lists = number_images(split)
        for _, pid, camid, _ in lists.query:
            assert any(r[1] == pid and r[2] != camid for r in lists.gallery)

    @pytest.mark.parametrize(("share", "trained"), [(0, 0), (0.01, 1), (0.99, 5), (1, 6)])
    def test_shares(self, tmp_path, share, trained):
        found = split_identities(self.photos(tmp_path), share, seed=1)
        assert len({image.pid for image in found.of_split("train")}) == trained

    def test_a_folder_with_a_split(self, tmp_path):
        with pytest.raises(ValueError, match="already has a split, in gallery, query, train"):
            read_identities(make_images(tmp_path, split_names()))

    def test_market1501s_folders(self, tmp_path):
        names = [f"Market-1501-v15.09.15/{part}/0001_c1s1_1.png" for part in ("query", "train")]
        with pytest.raises(ValueError, match="already has a split, in query, train"):
            read_identities(make_images(tmp_path, names))

    def test_one_folder_with_market_names(self, tmp_path):
        names = [f"{pid:04d}_c{camera}s1_000451_0{camera}.png" for pid in (3, 4) for camera in "12"]
        found = split_identities(read_identities(make_images(tmp_path, names)), 0.5, seed=1)
        assert found.problems == [] and len(found.of_split("train")) == 2
        assert {image.pid for image in found.images} == {"3", "4"}

    def test_images_outside_the_folders_are_named(self, tmp_path):
        found = read_identities(make_images(tmp_path, ["a/1.png", "stray.png"]))
        assert f"{tmp_path}/stray.png" in errors(found)[0]
