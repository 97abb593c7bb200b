"""Users' own data sets in torchreid and in the scripts: registered, masked, trained, tested."""

import io
import json
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchreid
from conftest import MarketFolder
from mask_inputs import make_iuv, script
from own_data import make_images, registry, restored_registry, split_names, write_lines
from test_main import run, typed

import magnifier_plugin
from magnifier_plugin.annotators.densepose import write_iuv
from magnifier_plugin.catalogue.inspection import check_lists
from magnifier_plugin.catalogue.listed import find_name
from magnifier_plugin.catalogue.names import registered_datasets
from magnifier_plugin.catalogue.numbering import drop_cameras
from magnifier_plugin.catalogue.opening import open_dataset, own_folder
from magnifier_plugin.data.annotated import AnnotatedDataset
from magnifier_plugin.data.datamanager import AnnotatedDataManager
from magnifier_plugin.data.options import DataOptions
from magnifier_plugin.masks.label_maps import read_labels, write_labels
from magnifier_plugin.masks.paths import label_path
from magnifier_plugin.visualize.rankings import _figure_names, ranking_sheet, save_rankings

__all__ = ["registry"]  # a fixture
pytestmark = pytest.mark.usefixtures("registry")
convert = script("convert_masks").main
check_masks = script("check_masks").main
check_dataset = script("check_dataset").main

AWKWARD = """it's <{camera}> "ü" c{camera}_{shot}.png"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    """`{train,query,gallery}/<pid>/*` with words as identities and awkward names."""
    return make_images(tmp_path_factory.mktemp("own") / "shop", split_names(name=AWKWARD))


@pytest.fixture
def masks(shop, tmp_path) -> Path:
    """Label maps of all images of the shop."""
    for image in shop.rglob("*.png"):
        labels = np.random.default_rng(1).integers(0, 8, (32, 16), np.uint8)
        write_labels(label_path(image, shop, "shop", tmp_path / "masks"), labels)
    return tmp_path / "masks"


@pytest.fixture(scope="module")
def listing(shop) -> Path:
    """A CSV of the same images next to their folder, with conditions."""
    rows = []
    for number, image in enumerate(sorted(shop.rglob("*.png"))):
        split, pid, name = image.relative_to(shop).parts
        place = f"shop/{split}/{pid}/{name}".replace('"', '""')
        twin = {"carla": "dieter"}.get(pid, "")
        rows.append(f'"{place}",{pid},{name[6]},{split},{"sun" if number % 2 else "rain"},{twin}')
    return write_lines(shop.parent / "list.csv", "path,pid,camid,split,weather,twin", *rows)


class TestRegistered:
    def test_torchreids_own_manager_takes_it(self, shop, masks, monkeypatch):
        monkeypatch.setenv("MAGNIFIER_MASKS", str(masks))
        magnifier_plugin.register_dataset("shop", shop)
        magnifier_plugin.register_dataset("shop", shop)
        manager = torchreid.data.ImageDataManager(
            root="/nowhere",
            sources="shop_masked",
            targets="shop",
            height=32,
            width=16,
            batch_size_train=4,
            workers=0,
            use_gpu=False,
        )
        assert (manager.num_train_pids, manager.num_train_cams) == (2, 2)
        batch = next(iter(manager.train_loader))
        assert batch["mask"].shape == (4, 32, 16) and set(batch["pid"].tolist()) <= {0, 1}
        query, gallery = manager.fetch_test_loaders("shop")
        assert {record[1:3] for record in query} == {record[1:3] for record in gallery}

    def test_a_class_sums_with_others(self, shop, market_folder):
        manager = AnnotatedDataManager(
            root=market_folder.root,
            sources=[f"shop={shop}", "market1501"],
            targets=["market1501", "shop"],
            height=32,
            width=16,
            batch_size_train=4,
            workers=0,
            use_gpu=False,
        )
        assert manager.num_train_pids == 2 + 3
        assert manager.sources == ["shop", "market1501"] and set(manager.test_loader) == {
            *manager.targets
        }

    @pytest.mark.parametrize("words", ["shop=PATH shop", "shop shop=PATH"])
    def test_a_name_is_its_path_in_both_lists(self, shop, words):
        sources, targets = words.replace("PATH", str(shop)).split()
        options = DataOptions(sources=sources, targets=[targets])
        assert options.sources == options.targets == ["shop"]

    def test_an_unknown_name_says_what_to_type(self):
        with pytest.raises(ValueError, match=", or shop=PATH for your own images$"):
            DataOptions(sources="shop")

    @pytest.mark.parametrize(
        ("word", "message"),
        [
            ("sh op={shop}", "expected a name of letters, digits, _ and -.*got 'sh op'"),
            ("shop_masked={shop}", "does not end in _masked"),
            ("={shop}", "got ''"),
            ("market1501={shop}", "the name market1501 is taken by a data set that torchreid"),
            ("synthetic={shop}", "is taken"),
        ],
    )
    def test_invalid_names(self, shop, word, message):
        with pytest.raises(ValueError, match=message):
            find_name(word.format(shop=shop))
        assert "shop" not in registered_datasets()

    def test_two_paths_for_a_name(self, shop, listing):
        find_name(f"shop={shop}")
        with pytest.raises(ValueError, match=f"taken by {shop}; choose another name"):
            find_name(f"shop={listing}")

    def test_nothing_there(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="shop: expected a CSV or a folder at .*gone"):
            magnifier_plugin.register_dataset("shop", tmp_path / "gone")
        with pytest.raises(ValueError, match=r"give it a name: my_images=list.csv"):
            open_dataset("list.csv", "")
        with pytest.raises(ValueError, match=r"give it a name: my_images=\./list.csv"):
            open_dataset("./list.csv", tmp_path)

    def test_mistakes_stop_it_with_all_of_them(self, tmp_path):
        file = write_lines(tmp_path / "list.csv", "path,pid,split", "x.png,1,train", "y.png,,val")
        with pytest.raises(ValueError) as caught:
            open_dataset(f"shop={file}", tmp_path)
        text = str(caught.value)
        assert f"shop: {file}: 3 errors" in text and f"check_dataset.py -s shop={file}" in text
        for part in ("line 2: x.png", "line 3: y.png", "without a pid", "'val'"):
            assert part in text

    def test_a_missing_list_for_its_use(self, shop, tmp_path):
        rows = [f"{image},{image.parent.name},train" for image in shop.glob("train/*/*1.png")]
        quoted = [f'"{row}'.replace('"ü"', '""ü""').replace(".png,", '.png",') for row in rows]
        file = write_lines(tmp_path / "train.csv", "path,pid,split", *quoted)
        assert len(open_dataset(f"shop={file}", "").train) == 4
        with pytest.raises(ValueError, match=r"no images in split query.*tested on \(-t\)"):
            open_dataset("shop", "", mode="query")

    def test_combineall_continues_the_numbering_of_identities(self, shop):
        find_name(f"shop={shop}")
        dataset = open_dataset("shop", "", combineall=True)
        assert len(dataset.data) == 24 and dataset.num_train_pids == 4

    def test_combineall_leaves_distractors_out(self, tmp_path):
        names = ["bounding_box_train/0002_c1s1_0.png", "query/0003_c1s1_1.png"]
        names += ["bounding_box_test/0003_c2s1_2.png", "bounding_box_test/0000_c2s1_3.png"]
        dataset = open_dataset(f"mine={make_images(tmp_path, names)}", "", combineall=True)
        assert [record[1] for record in dataset.data] == [0, 1, 1]

    @pytest.mark.parametrize("queries_first", [True, False])
    def test_conditions_of_an_image_in_both_test_lists_are_the_querys(
        self, tmp_path, queries_first
    ):
        make_images(tmp_path, ["a.png", "b.png"])
        rows = ["a.png,x,1,query,sun", "a.png,x,1,gallery,", "b.png,x,2,gallery,rain"]
        rows = rows if queries_first else rows[::-1]
        file = write_lines(tmp_path / "list.csv", "path,pid,camid,split,weather", *rows)
        conditions = open_dataset(f"shop={file}", "", mode="query").own_conditions
        assert conditions.rows == {tmp_path / "a.png": ("sun",), tmp_path / "b.png": ("rain",)}

    def test_decisions_are_logged_once(self, tmp_path, caplog):
        names = split_names(name="{camera}{shot}.png")
        with caplog.at_level(logging.INFO):
            for mode in ("train", "query", "gallery"):
                AnnotatedDataset(f"plain={make_images(tmp_path, names)}", mode=mode)
        assert caplog.text.count("plain: no cameras, each image counts as its own camera") == 1

    def test_equal_file_names_are_no_overlap(self, tmp_path, caplog):
        """`0001_c1` in each identity's folder is the number of an image, not an identity."""
        names = [name.replace("img", "0001") for name in split_names()]
        dataset = open_dataset(f"mine={make_images(tmp_path, names)}", "")
        assert check_lists(dataset.train, dataset.query, dataset.gallery).problems
        AnnotatedDataset("mine", mode="query")
        assert "in both training and test" not in caplog.text
        assert check_dataset(["-s", f"mine={tmp_path}"]) == 0


class TestWordsInMessages:
    """Messages name identities and cameras as in the list, not by torchreid's numbers."""

    @pytest.fixture
    def words(self, tmp_path) -> Path:
        """emil has one image, felix no match, greta a match only in the query's own camera."""
        rows = ["anna,door,train", "anna,hall,train", "emil,door,train", "carla,door,query"]
        rows += ["carla,hall,gallery", "felix,door,query", "greta,hall,query", "greta,hall,gallery"]
        make_images(tmp_path, [f"{number}.png" for number in range(len(rows))])
        lines = [f"{number}.png,{row}" for number, row in enumerate(rows)]
        return write_lines(tmp_path / "words.csv", "path,pid,camid,split", *lines)

    EXPECTED = (
        "1 identity with only one image, no pair to learn from: {folder}/2.png (identity emil, "
        "camera door)",
        "left out of all metrics: {folder}/5.png (identity felix, camera door)",
        "left out of all metrics: {folder}/6.png (identity greta, camera hall)",
    )

    def test_when_a_data_set_is_opened(self, words, caplog):
        AnnotatedDataset(f"words={words}", mode="query")
        for text in self.EXPECTED:
            assert text.format(folder=words.parent) in caplog.text

    @pytest.mark.parametrize("same_camera", ["drop", "keep"])
    def test_by_the_script(self, words, capsys, same_camera):
        check_dataset(["-s", f"words={words}", "--same-camera", same_camera])
        shown = capsys.readouterr().out
        for text in self.EXPECTED[: 3 if same_camera == "drop" else 2]:
            assert text.format(folder=words.parent) in shown
        (query,) = [line for line in shown.splitlines() if line.startswith("| query")]
        assert query.split("|")[1:5] == [" query ", " 3 ", " 3 ", " 2 "]  # images, ids, cameras

    def test_without_cameras_no_camera_is_named(self, tmp_path, caplog):
        make_images(tmp_path, ["a.png", "b.png", "c.png"])
        rows = ["a.png,x,query", "b.png,x,gallery", "c.png,y,query"]
        file = write_lines(tmp_path / "plain.csv", "path,pid,split", *rows)
        AnnotatedDataset(f"plain={file}", mode="query")
        assert "c.png (identity y)" in caplog.text


class TestSameCamera:
    """All images are from one camera: nothing can be measured unless they are kept."""

    @pytest.fixture
    def one_camera(self, tmp_path) -> Path:
        return make_images(tmp_path / "one", split_names(name="{camera}{shot}_c1.png"))

    def manager(self, folder: Path, **options):
        size = {"height": 32, "width": 16, "batch_size_train": 4, "workers": 0, "use_gpu": False}
        return AnnotatedDataManager(sources=f"one={folder}", **size, **options)

    def test_drop_says_why_nothing_is_left(self, one_camera):
        with pytest.raises(ValueError, match="all images are of one camera.*same_camera keep"):
            self.manager(one_camera)
        assert check_dataset(["-s", f"one={one_camera}", "--quick"]) == 1
        assert check_dataset(["-s", f"one={one_camera}", "--quick", "--same-camera", "keep"]) == 0

    def test_keep_counts_all_but_the_query_itself(self, one_camera):
        manager = self.manager(one_camera, same_camera="keep")
        query, gallery = manager.fetch_test_loaders("one")
        cameras = [record[2] for record in (*query, *gallery)]
        assert len(set(cameras)) == len(cameras) == 16

    def test_another_word(self, one_camera):
        with pytest.raises(ValueError, match="same_camera: expected drop or keep, got 'all'"):
            self.manager(one_camera, same_camera="all")

    def test_in_results_re_ranked_results_and_conditions(self, one_camera, market_folder, tmp_path):
        rows = [
            f"{image},{image.parent.name},1,{image.parts[-3]},{image.name[0]}"
            for image in sorted(one_camera.rglob("*.png"))
        ]
        file = write_lines(tmp_path / "one.csv", "path,pid,camid,split,side", *rows)
        words = ["test.evaluate", "True", "test.rerank", "True", "test.same_camera", "keep"]
        assert run("-s", f"one={file}", *typed(market_folder, tmp_path / "log", *words)) == 0
        result = json.loads((tmp_path / "log" / "results.json").read_text())["results"]["one"]
        assert result["mAP"] > 0 and result["reranked"]["mAP"] > 0
        assert {row["queries"] for row in result["conditions"]["side"].values()} == {4}


class TestNamesThatAreNotUnicode:
    """Names are printed with escapes where the output's encoding is strict."""

    @pytest.fixture
    def printed(self, tmp_path, monkeypatch):
        """Returns the output of a script's main for a data set whose image is damaged."""
        try:
            make_images(tmp_path / "shop" / "train" / "anna", ["a.png", "\udcff.png"])
        except (OSError, UnicodeError):
            pytest.skip("the file system takes no such names")
        monkeypatch.chdir(tmp_path)

        def run(main, *arguments):
            output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict")
            monkeypatch.setattr(sys, "stdout", output)
            assert main([*arguments, "-s", f"shop={tmp_path}/shop"]) == 1
            output.flush()
            return output.buffer.getvalue().decode()

        return run

    NAME = r"train/anna/\udcff.png: "

    def test_by_check_dataset(self, printed, tmp_path):
        (tmp_path / "shop/train/anna/\udcff.png").write_bytes(b"damaged")
        assert f"error   {tmp_path}/shop/{self.NAME}" in printed(check_dataset)

    def test_by_convert_masks_and_check_masks(self, printed, tmp_path):
        for name in ("a", "\udcff"):
            write_iuv(tmp_path / "iuv" / f"{name}_IUV.png", make_iuv())
        damaged = tmp_path / "iuv" / "\udcff_IUV.png"
        content = damaged.read_bytes()
        damaged.write_bytes(b"damaged")
        arguments = (convert, "--source", "densepose-iuv", "--iuv", "iuv")
        assert f"\n{self.NAME}" in printed(*arguments)
        damaged.write_bytes(content)
        (tmp_path / "mask_labels/shop/train/anna/\udcff.png").write_bytes(b"damaged")
        assert f"\n{tmp_path}/shop/{self.NAME}" in printed(check_masks)


class TestScripts:
    def test_trained_and_tested_with_masks(self, shop, masks, market_folder, tmp_path, capsys):
        words = typed(market_folder, tmp_path / "log")
        words[words.index("masks.dir") + 1] = masks
        assert run("-s", f"shop={shop}", *words, "test.rerank", "True") == 0
        results = json.loads((tmp_path / "log" / "results.json").read_text())["results"]
        assert list(results) == ["shop"] and 0 < results["shop"]["reranked"]["mAP"] <= 1

    def test_in_a_configuration_and_mixed_with_torchreids(
        self, shop, masks, market_folder, tmp_path, capsys
    ):
        config = write_lines(
            tmp_path / "c.yaml",
            "data:",
            f"  sources: [market1501, 'shop={shop}']",
            "  targets: [shop]",
            "sampler: {train_sampler: RandomIdentitySampler}",
        )
        (masks / "market1501").symlink_to(market_folder.masks_dir / "market1501")
        words = typed(market_folder, tmp_path / "log", "masks.dir", masks, "test.evaluate", "True")
        assert run(*words, config=config) == 0
        assert "Training data market1501, shop: 5 identities" in capsys.readouterr().out

    def test_conditions_of_a_csv_are_reported(self, listing, market_folder, tmp_path, capsys):
        words = typed(market_folder, tmp_path / "log", "test.evaluate", "True")
        assert run("-s", "market1501", "-t", f"list={listing}", *words) == 0
        result = json.loads((tmp_path / "log" / "results.json").read_text())["results"]["list"]
        assert {n: sorted(rows) for n, rows in result["conditions"].items()} == {
            "weather": ["rain", "sun"],
            "twin": ["with", "without"],
        }
        assert result["first_hit_is_twin"]["queries"] == 4
        # There are only two people: a query with a twin can only miss by hitting the twin.
        with_twin = result["conditions"]["twin"]["with"]
        assert result["first_hit_is_twin"]["share"] == pytest.approx(1 - with_twin["rank-1"])

    def test_twins_of_a_file_are_words_too(self, listing, market_folder, tmp_path, capsys):
        """In `test.conditions` as in the list's own column; numbers would never match a hit."""
        words = typed(market_folder, tmp_path / "log", "test.evaluate", "True")
        images = sorted(listing.parent.glob("shop/query/*/*.png"))
        quoted = [str(image).replace('"', '""') for image in images]
        twins = [{"carla": "dieter"}.get(image.parent.name, "") for image in images]
        rows = [f'"{image}",{twin}' for image, twin in zip(quoted, twins, strict=True)]
        file = write_lines(tmp_path / "twins.csv", "path,twin", *rows)
        words += ["test.conditions", file]
        assert run("-s", "market1501", "-t", f"list={listing}", *words) == 0
        result = json.loads((tmp_path / "log" / "results.json").read_text())["results"]["list"]
        with_twin = result["conditions"]["twin"]["with"]
        share = result["first_hit_is_twin"]["share"]
        assert share == pytest.approx(1 - with_twin["rank-1"])
        assert f"twin: {share:.1%} of 4 queries with a twin" in capsys.readouterr().out

    def test_a_twin_absent_from_the_gallery_is_named(self, tmp_path, capsys):
        make_images(tmp_path, ["a.png", "b.png"])
        rows = ["a.png,carla,1,query,dieetr", "b.png,carla,2,gallery,"]
        file = write_lines(tmp_path / "l.csv", "path,pid,camid,split,twin", *rows)
        assert check_dataset(["-s", f"l={file}"]) == 0
        text = "warning 1 near-twin of queries not in the gallery (column twin): dieetr"
        assert text in capsys.readouterr().out

    def test_label_maps_are_converted_and_checked(self, shop, listing, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for image in shop.rglob("*.png"):
            target = tmp_path / "iuv" / image.relative_to(shop.parent)
            write_iuv(target.with_name(f"{image.stem}_IUV.png"), make_iuv())
        arguments = ["--source", "densepose-iuv", "--iuv", "iuv"]
        assert convert([*arguments, "-s", f"list={listing}"]) == 0
        labels = sorted((tmp_path / "mask_labels" / "list" / "shop").rglob("*.png"))
        assert len(labels) == 24 and read_labels(labels[0]).shape == (32, 16)
        assert check_masks(["-s", f"list={listing}", "--workers", "1"]) == 0
        page = (tmp_path / "mask_labels" / "list" / "check_masks.html").read_text()
        assert "it's <1>" not in page and "\\u003c1>" in page
        assert AnnotatedDataset("list", inputs=("mask",))[0]["mask"].unique().numel() > 1

    def test_only_the_images_of_the_list_are_converted(self, listing, shop, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        make_images(shop.parent, ["other/visrank.png"])
        for image in sorted(shop.glob("train/*/*1.png")):
            write_iuv(tmp_path / "iuv" / image.parent.name / f"{image.stem}_IUV.png", make_iuv())
        arguments = ["--source", "densepose-iuv", "--iuv", "iuv", "-s", f"list={listing}"]
        assert convert(arguments) == 0
        missing = (tmp_path / "mask_labels" / "list" / "missing.txt").read_text().splitlines()
        assert len(missing) == 24 - 4 and all(line.startswith("shop/") for line in missing)

    def test_a_folder_without_images_of_the_list(
        self, listing, shop, tmp_path, monkeypatch, capsys
    ):
        monkeypatch.chdir(tmp_path)
        make_images(tmp_path, ["other/0001.png"])
        write_iuv(tmp_path / "iuv" / "0001_IUV.png", make_iuv())
        arguments = ["--source", "densepose-iuv", "--iuv", "iuv", "-s", f"list={listing}"]
        images = f"24 images, which are in {shop.parent}"
        for folder, message in (
            ("other", f"contains none of the data set's {images}"),
            ("nowhere", f"no such folder, expected one with the data set's {images}"),
        ):
            assert convert([*arguments, "--images", folder]) == 2
            error = capsys.readouterr().err
            assert f"convert_masks.py: --images {tmp_path / folder}: {message}" in error

    def test_annotations_of_other_images_are_not_used(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        make_images(tmp_path, [f"shop/{name}.png" for name in ("1/0001", "1/0002", "2/0001")])
        file = write_lines(
            tmp_path / "list.csv",
            *("path,pid,split", "shop/1/0001.png,1,train", "shop/1/0002.png,1,train"),
        )
        for name in ("2/0001", "1/0002"):
            write_iuv(tmp_path / "iuv" / f"{name}_IUV.png", make_iuv())
        arguments = ["--source", "densepose-iuv", "--iuv", "iuv", "-s", f"list={file}"]
        assert convert(arguments) == 0
        labels = sorted(path.name for path in (tmp_path / "mask_labels").rglob("*.png"))
        assert labels == ["0002.png"]
        assert "0 annotations that match none of these images" in capsys.readouterr().out

    def test_missing_label_maps_name_the_command(self, shop, market_folder, tmp_path, capsys):
        words = typed(market_folder, tmp_path, "masks.dir", tmp_path / "none")
        assert run("-s", f"shop={shop}", *words) == 2
        assert f"--iuv DIR -s shop={shop} --out {tmp_path}/none/shop" in capsys.readouterr().err

    def test_a_split_is_made_and_used(self, tmp_path, capsys):
        names = [f"{pid}/it's <b> c{camera}.png" for pid in "abcd" for camera in (1, 2)]
        photos = make_images(tmp_path / "photos", names)
        file = tmp_path / "shop.csv"
        arguments = ["-s", f"shop={photos}", "--split", "0.5", "--seed", "1"]
        assert check_dataset([*arguments, "--write-csv", str(file)]) == 0
        shown = capsys.readouterr().out
        assert "| train | 4 | 2 | 2 | 2, 2, 2 |" in shown and f"{file}: 8 images" in shown
        assert check_dataset(["-s", f"cut={file}", "--quick"]) == 0
        assert "| photos/" in capsys.readouterr().out
        before = file.read_text()
        again = ["-s", f"cut={file}", "--split", "0", "--write-csv"]
        with pytest.raises(SystemExit, match="2"):  # before the images are decoded
            check_dataset([*again, str(file)])
        printed = capsys.readouterr()
        assert "already exists" in printed.err and not printed.out and file.read_text() == before
        assert check_dataset([*again, str(file / "new.csv")]) == 2
        assert "found a file there or above" in capsys.readouterr().err
        other = tmp_path / "test.csv"
        assert check_dataset([*again, str(other)]) == 0
        assert "train" not in {line.split(",")[-1] for line in other.read_text().splitlines()[1:]}

    def test_everything_wrong_is_shown_at_once(self, tmp_path, capsys):
        make_images(tmp_path, ["a.png", "b.png", "c.png"])
        (tmp_path / "c.png").write_text("no picture")
        rows = ["a.png,x,1,train", "a.png,x,1,train", "b.png,x,1,query", "c.png,y,2,gallery", "1"]
        file = write_lines(tmp_path / "list.csv", "path,pid,camid,split", *rows)
        target = tmp_path / "new.csv"
        assert check_dataset(["-s", f"bad={file}", "--write-csv", str(target)]) == 1
        shown = capsys.readouterr().out
        for part in (
            "| a.png | x | 1 | train |",
            "1 line repeating an image: line 3",
            "a number of cells other than",
            "1 identity in train and in query or gallery: x",
            f"{tmp_path}/c.png: expected an image",
            "query: no image has a match in the gallery",
            f"{target} is not written",
        ):
            assert part in shown
        assert not target.exists()

    def test_an_unreadable_list_shows_no_empty_tables(self, tmp_path, capsys):
        (tmp_path / "empty").mkdir()
        assert check_dataset(["-s", f"none={tmp_path}/empty"]) == 1
        shown = capsys.readouterr().out
        assert "error   no images found" in shown and "| train |" not in shown
        assert check_dataset(["-s", f"gone={tmp_path}/gone"]) == 2

    def test_figures_of_queries_with_the_same_file_names(self, shop, tmp_path):
        """With a folder for each identity, files can have the same name."""
        lists = open_dataset(f"shop={shop}", "", mode="query")
        distances = np.random.default_rng(0).random((8, 8))
        save_rankings(distances, lists.query, lists.gallery, tmp_path, topk=2)
        names = sorted(path.stem for path in tmp_path.glob("*.jpg"))
        assert len(names) == 8 and names[0].startswith("carla_it's <1>")

    @pytest.mark.parametrize(
        ("paths", "names"),
        [
            (["/q/a.jpg", "/q/b.png"], ["a", "b"]),
            (["/q/x/a.jpg", "/q/y/a.jpg"], ["x_a", "y_a"]),
            (["/q/a.jpg", "/q/a.png"], ["00001_a", "00002_a"]),
            (
                ["/q/1/2_3.jpg", "/q/1_2/3.jpg", "/q/x/3.jpg"],
                ["00001_1_2_3", "00002_1_2_3", "00003_x_3"],
            ),
        ],
    )
    def test_each_query_has_its_own_figure(self, paths, names):
        assert _figure_names([(path, 1, 0) for path in paths]) == names

    def test_a_figure_states_no_camera(self, shop):
        """The numbers in torchreid's lists are not those of the user's list."""
        lists = open_dataset(f"shop={shop}", "", mode="query")
        query, gallery = drop_cameras(lists.query, lists.gallery)
        distances = np.random.default_rng(0).random((8, 8))
        one, other = (
            np.asarray(ranking_sheet(distances, *parts, count=1, topk=2))[:20, :80]
            for parts in ((lists.query, lists.gallery), (query, gallery))
        )
        assert (one == other).all() and (one < 128).any()

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("-s market1501 --split 0.5", "expected -s NAME=PATH"),
            ("-s market1501 --write-csv x.csv", "expected -s NAME=PATH"),
            ("-s shop=x --seed 1", "--seed: only used with --split"),
            ("-s shop=x --split 2", "from 0 to 1, got '2'"),
        ],
    )
    def test_arguments_that_do_not_fit(self, line, message, capsys):
        with pytest.raises(SystemExit, match="2"):
            check_dataset(line.split())
        assert message in capsys.readouterr().err

    def test_converting_needs_a_data_set(self, capsys):
        with pytest.raises(SystemExit, match="2"):
            convert(["--source", "npy", "--npy", "x", "--images", "y"])
        assert "expected -s DATASET, or both --images and --out" in capsys.readouterr().err


MODULE = """
import os.path as osp
import torchreid
from torchreid.data import ImageDataset

class {name}(ImageDataset):
    dataset_dir = {folder!r}

    def __init__(self, root="", **kwargs):
        self.root = osp.abspath(osp.expanduser(root))
        self.dataset_dir = osp.join(self.root, self.dataset_dir)
        images = osp.join({images!r} or self.dataset_dir, "{{}}_c{{}}.png")
        train = [(images.format(pid, cam), pid, cam) for pid in (0, 1) for cam in (0, 1)]
        query = [(images.format(pid, 0), pid, 0) for pid in (5, 6)]
        gallery = [(images.format(pid, 1), pid, 1) for pid in (5, 6)]
        super().__init__(train, query, gallery, **kwargs)

torchreid.data.register_image_dataset("{name}", {name})
"""


class TestUserModules:
    """A class that is registered as torchreid's documentation describes."""

    @pytest.fixture
    def module(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(str(tmp_path))
        names = [f"{pid}_c{camera}.png" for pid in (0, 1, 5, 6) for camera in (0, 1)]
        make_images(tmp_path / "data" / "new", names)

        def write(name: str, folder: str = "new", images: str = "") -> str:
            text = MODULE.format(name=name, folder=folder, images=images)
            write_lines(tmp_path / f"{name}_module.py", text)
            return f"{name}_module"

        return write

    def train(self, module: str, source: str, tmp_path: Path, *more: str) -> int:
        folder = MarketFolder(tmp_path / "data", tmp_path / "masks", tmp_path)
        for image in (tmp_path / "data" / "new").glob("*.png"):
            label = label_path(image, image.parent, source, folder.masks_dir)
            write_labels(label, np.full((32, 16), 3, np.uint8))
        words = typed(folder, tmp_path / "log", *more)
        return run("--import", module, "-s", source, *words)

    def test_it_is_trained_and_has_a_masked_twin(self, module, tmp_path):
        assert self.train(module("first"), "first", tmp_path) == 0
        assert {"first", "first_masked"} <= set(registered_datasets())
        assert check_dataset(["--import", "first_module", "-s", "first", "--root", "data"]) == 0

    def test_images_outside_its_folder_are_no_error(self, module, tmp_path, monkeypatch):
        """If the class names a folder without its images, the folder of the images counts."""
        name = module("second", folder="elsewhere", images=str(tmp_path / "data" / "new"))
        assert self.train(name, "second", tmp_path, "test.evaluate", "True") == 0
        dataset = AnnotatedDataset("second", "data", masks_dir="masks", inputs=("mask",))
        assert {int(value) for item in dataset for value in item["mask"].unique()} == {3}
        assert own_folder(open_dataset("second", "data")) == tmp_path / "data" / "new"

    def test_the_path_of_a_file_is_a_module_too(self, module, tmp_path, monkeypatch):
        folder = tmp_path / "below"
        folder.mkdir()
        (tmp_path / f"{module('third')}.py").rename(folder / "third_module.py")
        arguments = ["--import", str(folder / "third_module.py"), "-s", "third", "--root", "data"]
        assert check_dataset([*arguments, "--quick"]) == 0

    def test_none_of_that_name(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        assert check_dataset(["--import", "no_such_module", "-s", "x"]) == 2
        assert f"--import no_such_module: expected a Python module in {tmp_path}" in (
            capsys.readouterr().err
        )
        write_lines(tmp_path / "needs_more.py", "import no_such_dependency")
        for name in ("./first_module", ".first_module", ""):
            capsys.readouterr()
            assert check_dataset(["--import", name, "-s", "x"]) == 2
            assert f"--import {name}: expected a Python module in" in capsys.readouterr().err
        assert check_dataset(["--import", "needs_more", "-s", "x"]) == 2
        assert "No module named 'no_such_dependency'" in capsys.readouterr().err

    def test_other_errors_of_a_class_are_raised_unchanged(self, tmp_path):
        class Broken(torchreid.data.ImageDataset):
            def __init__(self, root="", **options):
                raise RuntimeError("the index is damaged")

        registered_datasets()["broken"] = Broken
        with pytest.raises(RuntimeError, match="^the index is damaged$"):
            open_dataset("broken", tmp_path)


def test_the_registry_is_restored():
    with restored_registry():
        registered_datasets()["x"] = torch
    assert "x" not in registered_datasets()
