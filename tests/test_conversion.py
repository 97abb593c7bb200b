"""Converting a data set's annotations, in one or several processes, and in one or two runs."""

import os
import re
import shutil
import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest
from dumps import dump
from mask_inputs import PROJECT, Named, make_iuv, make_market, save_photo, script
from PIL import Image

from magnifier_plugin.annotators.densepose import IuvFolder, to_regions, write_iuv
from magnifier_plugin.annotators.densepose_dump import DumpFile
from magnifier_plugin.annotators.densepose_json import ResultsFile
from magnifier_plugin.annotators.keypoints import KeypointSource
from magnifier_plugin.annotators.npy import NpyFolder
from magnifier_plugin.annotators.parsing import ParsingFolder
from magnifier_plugin.masks.conversion import convert
from magnifier_plugin.masks.label_maps import read_labels, write_labels
from magnifier_plugin.masks.manifest import read_manifest
from magnifier_plugin.masks.paths import iuv_path, label_path
from magnifier_plugin.regions import PARTS
from magnifier_plugin.workers import on_all_cores

SCRIPT = PROJECT / "scripts" / "convert_masks.py"
NAMES = ["0002_c1s1_000451_03", "0002_c1s1_000551_01", "0007_c2s3_071052_01"]


# Conversion


def test_label_maps_are_written_where_the_data_set_reads_them(tmp_path):
    market, iuv = make_market(tmp_path, NAMES)
    for number, images in enumerate((market, *market.glob("*"), *market.glob("*/*"))):
        masks = tmp_path / f"masks{number}"
        summary = convert(IuvFolder(iuv), images, masks / "market1501", progress=False)
        assert summary.converted == len(NAMES)
        for seed, photo in enumerate(sorted(market.rglob("*.jpg"))):
            path = label_path(photo, market, "market1501", masks)
            assert np.array_equal(read_labels(path), to_regions(make_iuv(seed=seed)))
    assert number == 2


class TestAnnotationsNextToTheImages:
    @pytest.fixture(params=["iuv", "npy"])
    def shop(self, request, tmp_path):
        """Two folders of people, with the source's files for those that are asked for."""
        for name in ("1/0001", "1/0002", "2/0001"):
            save_photo(tmp_path / "shop" / f"{name}.jpg")

        def annotate(*names):
            for name in names:
                path = tmp_path / "shop" / name
                np.save(f"{path}.npy", np.ones((32, 16)))
                write_iuv(f"{path}_IUV.png", make_iuv())
            folder = tmp_path / "shop"
            return folder, {"iuv": IuvFolder, "npy": NpyFolder}[request.param]

        return annotate

    def test_in_one_folder_of_several(self, shop, tmp_path):
        folder, source = shop("1/0001", "1/0002")
        summary = convert(source(folder / "1"), folder, tmp_path / "masks" / "shop", progress=False)
        assert (summary.converted, summary.missing) == (2, (folder / "2" / "0001.jpg",))

    def test_of_an_image_that_is_not_in_the_list(self, shop, tmp_path):
        folder, source = shop("1/0002", "2/0001")
        images = [folder / "1" / "0001.jpg", folder / "1" / "0002.jpg"]
        options = {"dataset_dir": folder, "images": images, "progress": False}
        summary = convert(source(folder), folder, tmp_path / "masks" / "shop", **options)
        assert (summary.converted, summary.missing) == (1, (images[0],))


@pytest.mark.parametrize("options", [{}, {"keep_iuv": True}, {"iuv_only": True}])
def test_an_annotation_without_a_person_is_missing(tmp_path, options):
    """As a label map it would teach that all of the person is background."""
    market, iuv = make_market(tmp_path, NAMES)
    write_iuv(iuv / f"{NAMES[1]}_IUV.png", make_iuv() * np.uint8([0, 1, 1]))
    out = tmp_path / "masks" / "market1501"
    summary = convert(IuvFolder(iuv), market, out, progress=False, **options)
    assert (summary.converted, [path.stem for path in summary.missing]) == (2, [NAMES[1]])
    assert summary.areas["background"] < 0.1
    assert not list(out.rglob(f"{NAMES[1]}*"))


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({}, {"", "_IUV"}),
        ({"overwrite": True}, {"_IUV"}),
        ({"overwrite": True, "keep_iuv": True}, set()),
        ({"overwrite": True, "iuv_only": True}, {""}),
    ],
)
@pytest.mark.parametrize("nobody", [True, False])
def test_files_of_an_image_that_is_missing_now_are_removed(tmp_path, options, left, nobody):
    """--overwrite makes the folder what a conversion into an empty one would give."""
    market, iuv = make_market(tmp_path, NAMES)
    out = tmp_path / "masks" / "market1501"
    convert(IuvFolder(iuv), market, out, keep_iuv=True, progress=False)
    dropped = iuv / f"{NAMES[1]}_IUV.png"
    if nobody:
        write_iuv(dropped, make_iuv() * 0)
    else:
        dropped.unlink()
    summary = convert(IuvFolder(iuv), market, out, progress=False, **options)
    assert {path.stem.removeprefix(NAMES[1]) for path in out.rglob(f"{NAMES[1]}*")} == left
    assert len(summary.removed) == ("overwrite" in options)
    assert len(summary.missing) == ("overwrite" in options)  # without it, all have files
    assert len(list(out.rglob("*.png"))) == 4 + len(left)


@pytest.mark.parametrize("hands", ["lower arm", "background"])
def test_hands_alone_are_a_person(tmp_path, hands):
    market, iuv = make_market(tmp_path, NAMES)
    only_hands = make_iuv()
    only_hands[..., 0] = PARTS.index("right hand")
    write_iuv(iuv / f"{NAMES[1]}_IUV.png", only_hands)
    source = IuvFolder(iuv, hands)
    summary = convert(source, market, tmp_path / "masks" / "market1501", progress=False)
    assert (summary.converted, summary.missing) == (3, ())


def test_a_parsing_of_nobody_is_missing(tmp_path):
    market, _ = make_market(tmp_path, NAMES[:2])
    for name, class_id in zip(NAMES, (0, 5), strict=False):
        np.save(tmp_path / f"{name}.npy", np.full((32, 16), class_id))
    for source in (NpyFolder(tmp_path), ParsingFolder(tmp_path, "lip")):
        out = tmp_path / source.name / "market1501"
        summary = convert(source, market, out, progress=False)
        assert (summary.converted, [path.stem for path in summary.missing]) == (1, NAMES[:1])


def test_what_is_finished_is_not_done_again(tmp_path):
    market, iuv = make_market(tmp_path, NAMES)
    out = tmp_path / "masks" / "market1501"
    first = convert(IuvFolder(iuv), market, out, progress=False)
    assert (first.converted, first.already_there) == (3, 0)
    done = sorted(out.rglob("*.png"))
    times = [path.stat().st_mtime_ns for path in done]
    done[1].unlink()
    again = convert(IuvFolder(iuv), market, out, progress=False)
    assert (again.converted, again.already_there) == (1, 2)
    assert done[0].stat().st_mtime_ns == times[0]
    forced = convert(IuvFolder(iuv), market, out, overwrite=True, progress=False)
    assert (forced.converted, forced.already_there) == (3, 0)
    assert done[0].stat().st_mtime_ns > times[0]


def test_files_of_0_bytes_are_not_finished(tmp_path):
    market, iuv = make_market(tmp_path, NAMES)
    out = tmp_path / "masks" / "market1501"
    convert(IuvFolder(iuv), market, out, keep_iuv=True, progress=False)
    labels, iuvs = sorted(out.rglob("*01.png")), sorted(out.rglob("*01_IUV.png"))
    emptied = labels[0], (iuvs or sorted(out.rglob("*IUV*.png")))[1]
    for path in emptied:
        path.write_bytes(b"")
    again = convert(IuvFolder(iuv), market, out, keep_iuv=True, progress=False)
    assert (again.converted, again.already_there) == (2, 1)
    assert all(path.stat().st_size for path in emptied)


def test_a_finished_folder_is_only_read(tmp_path, monkeypatch):
    """A read-only data root, such as a shared one, can be used."""
    market, iuv = make_market(tmp_path, NAMES)
    out = tmp_path / "masks" / "market1501"
    convert(IuvFolder(iuv), market, out, keep_iuv=True, progress=False)

    def refuse(path):
        raise OSError(30, f"Read-only file system: {path}")

    for module in ("files", "masks.manifest"):
        monkeypatch.setattr(f"magnifier_plugin.{module}.write_atomically", refuse)
    again = convert(IuvFolder(iuv), market, out, keep_iuv=True, progress=False)
    assert (again.converted, again.already_there) == (0, 3)


def test_two_label_sets_are_not_mixed_in_one_folder(tmp_path):
    market, iuv = make_market(tmp_path, NAMES)
    out = tmp_path / "masks" / "market1501"
    convert(IuvFolder(iuv), market, out, progress=False)
    assert read_manifest(out).label_set == "densepose"
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="label sets must not be mixed"):
            convert(IuvFolder(iuv, "background"), market, out, overwrite=overwrite)
    (out / "labels.json").unlink()
    with pytest.raises(ValueError, match=r"no labels\.json"):
        convert(IuvFolder(iuv), market, out, progress=False)
    assert convert(IuvFolder(iuv), market, out, overwrite=True, progress=False).converted == 3


def test_a_damaged_manifest_can_be_replaced_as_its_error_says(tmp_path):
    market, iuv = make_market(tmp_path, NAMES)
    manifest = tmp_path / "masks" / "market1501" / "labels.json"
    convert(IuvFolder(iuv), market, manifest.parent, progress=False)
    manifest.write_text(manifest.read_text()[:-20])
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=r"labels\.json: damaged .*; delete this file and con"):
            convert(IuvFolder(iuv), market, manifest.parent, overwrite=overwrite, progress=False)
    manifest.unlink()
    convert(IuvFolder(iuv), market, manifest.parent, overwrite=True, progress=False)
    assert read_manifest(manifest.parent).label_set == "densepose"


def test_a_wrong_label_set_that_wrote_nothing_can_be_corrected(tmp_path):
    market, _ = make_market(tmp_path, NAMES[:1])
    np.save(tmp_path / f"{NAMES[0]}.npy", np.full((32, 16), 19))
    out = tmp_path / "masks" / "market1501"
    wrong = convert(ParsingFolder(tmp_path, "pascal"), market, out, progress=False)
    assert (wrong.converted, len(wrong.failures)) == (0, 1)
    assert convert(ParsingFolder(tmp_path, "lip"), market, out, progress=False).converted == 1
    assert read_manifest(out).label_set == "lip"


@pytest.mark.parametrize("keep_iuv", [True, False])
def test_annotations_in_two_parts(tmp_path, keep_iuv):
    """As two processes or machines make them: what the first part had is not missing."""
    market, iuv = make_market(tmp_path, NAMES)
    second = tmp_path / "second"
    second.mkdir()
    file = f"{NAMES[1]}_IUV.png"
    (iuv / file).rename(second / file)
    out = tmp_path / "masks" / "market1501"
    first = convert(IuvFolder(iuv), market, out, keep_iuv=keep_iuv, progress=False)
    assert (first.converted, [path.stem for path in first.missing]) == (2, [NAMES[1]])
    rest = convert(IuvFolder(second), market, out, keep_iuv=keep_iuv, progress=False)
    assert (rest.converted, rest.already_there, rest.missing) == (1, 2, ())
    iuvs = convert(IuvFolder(second), market, out, keep_iuv=True, progress=False)
    assert len(iuvs.missing) == (0 if keep_iuv else 2)  # their IUV are


def test_a_corrected_label_map_is_kept_when_its_iuv_is_added(tmp_path):
    market, iuv = make_market(tmp_path, NAMES)
    out = tmp_path / "masks" / "market1501"
    convert(IuvFolder(iuv), market, out, progress=False)
    label = sorted(out.rglob("*.png"))[0]
    corrected = np.full((32, 16), 3, np.uint8)
    write_labels(label, corrected)
    summary = convert(IuvFolder(iuv), market, out, keep_iuv=True, progress=False)
    assert (summary.converted, summary.already_there) == (3, 0)
    assert np.array_equal(read_labels(label), corrected)
    label.unlink()
    before = iuv_path(label).stat().st_mtime_ns
    convert(IuvFolder(iuv), market, out, keep_iuv=True, progress=False)
    assert label.is_file() and iuv_path(label).stat().st_mtime_ns == before
    convert(IuvFolder(iuv), market, out, keep_iuv=True, overwrite=True, progress=False)
    assert iuv_path(label).stat().st_mtime_ns > before


@pytest.mark.parametrize(
    "place", ["bounding_box_train/another.png", "query/0002_c1s1_000451_03.png"]
)
@pytest.mark.parametrize("options", [{}, {"keep_iuv": True}, {"overwrite": True}])
def test_label_maps_of_an_unknown_label_set_are_not_mixed_with_ours(tmp_path, place, options):
    """Without labels.json, also one that belongs to no annotation of this run is refused."""
    market, iuv = make_market(tmp_path, NAMES)
    out = tmp_path / "masks" / "market1501"
    write_labels(out / place, np.ones((32, 16), np.uint8))
    with pytest.raises(ValueError, match=rf"no labels\.json .*{place} would not be replaced"):
        convert(IuvFolder(iuv), market, out, progress=False, **options)
    assert not (out / "labels.json").exists()
    (out / place).write_bytes(b"")  # as a power cut leaves it
    assert convert(IuvFolder(iuv), market, out, progress=False, **options).converted == 3


def test_other_pictures_are_no_label_maps(tmp_path):
    market, iuv = make_market(tmp_path, NAMES)
    out = tmp_path / "masks" / "market1501"
    convert(IuvFolder(iuv), market, out, iuv_only=True, progress=False)
    save_photo(out / "check_masks_textures.png")
    assert convert(IuvFolder(iuv), market, out, progress=False).converted == 3


def test_several_processes_write_what_one_writes(tmp_path):
    market, iuv = make_market(tmp_path, [f"{pid:04d}_c1s1_000001_01" for pid in range(70)])
    (iuv / "0033_c1s1_000001_01_IUV.png").write_bytes(b"no image")
    one = convert(IuvFolder(iuv), market, tmp_path / "one", workers=1, progress=False)
    two = convert(IuvFolder(iuv), market, tmp_path / "two", workers=2, progress=False)
    assert (one.missing, one.failures, one.areas) == (two.missing, two.failures, two.areas)
    assert (one.converted, len(one.failures)) == (69, 1)
    files = {
        p.relative_to(tmp_path / "one"): p.read_bytes() for p in (tmp_path / "one").rglob("*.*")
    }
    assert files == {
        p.relative_to(tmp_path / "two"): p.read_bytes() for p in (tmp_path / "two").rglob("*.*")
    }


def test_many_tasks_come_back_in_order():
    tasks = range(-1000, 0)
    assert list(on_all_cores(abs, tasks, workers=2)) == [abs(task) for task in tasks]
    with pytest.raises(ValueError, match="workers: expected at least 1, got 0"):
        list(on_all_cores(abs, tasks, workers=0))


def test_an_interrupted_conversion_continues(tmp_path):
    class Interrupted(IuvFolder):
        def __iter__(self):
            files = list(super().__iter__())
            return iter([files[0], InterruptedFile(files[1].name), files[2]])

    market, iuv = make_market(tmp_path, NAMES)
    out = tmp_path / "masks" / "market1501"
    with pytest.raises(KeyboardInterrupt):
        convert(Interrupted(iuv), market, out, workers=1, progress=False)
    assert sorted(p.name for p in out.rglob("*.*")) == [f"{NAMES[0]}.png", "labels.json"]
    again = convert(IuvFolder(iuv), market, out, progress=False)
    assert (again.converted, again.already_there) == (2, 1)


class InterruptedFile(Named):
    def read(self, size):
        raise KeyboardInterrupt


def test_a_killed_worker_is_reported(tmp_path):
    class Deadly(IuvFolder):
        def __iter__(self):
            return (DeadlyFile(file.name) for file in super().__iter__())

    market, iuv = make_market(tmp_path, [f"{pid:04d}_c1s1_000001_01" for pid in range(40)])
    with pytest.raises(RuntimeError, match="a worker process was killed"):
        convert(Deadly(iuv), market, tmp_path / "masks" / "market1501", workers=2, progress=False)


class DeadlyFile(Named):
    def read(self, size):
        os._exit(1)


class TestInputsAreNotReplaced:
    """Neither with --overwrite, nor does a photo pass as a finished label map without it."""

    @pytest.fixture(params=[{}, {"overwrite": True}], ids=["finished", "overwrite"])
    def refused(self, request, tmp_path):
        """Checks that a conversion is refused with this message and changes no file."""

        def check(message, source, images, out, **more):
            before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
            with pytest.raises(ValueError, match=rf"{message}.* such as mask_labels/{out.name}"):
                convert(source, images, out, progress=False, **request.param, **more)
            assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before

        return check

    @pytest.fixture
    def cuhk03(self, tmp_path):
        """A data set of PNGs, and their IUV."""
        save_photo(tmp_path / "cuhk03" / "images_labeled" / "1_001_1_01.png")
        write_iuv(tmp_path / "iuv" / "1_001_1_01_IUV.png", make_iuv())
        return tmp_path / "cuhk03", IuvFolder(tmp_path / "iuv")

    @pytest.mark.parametrize("options", [{}, {"keep_iuv": True}, {"iuv_only": True}])
    def test_the_data_sets_folder(self, cuhk03, refused, options):
        folder, source = cuhk03
        for images in (folder, folder / "images_labeled"):
            refused(f"--out {folder}: is the folder of the images", source, images, folder)
            refused("is the folder of the images", source, images, folder, **options)

    def test_a_link_to_it(self, cuhk03, refused, tmp_path):
        folder, source = cuhk03
        (tmp_path / "link").symlink_to(folder)
        refused("is the folder of the images", source, folder, tmp_path / "link")

    def test_a_link_to_a_folder_inside_it(self, cuhk03, refused, tmp_path):
        folder, source = cuhk03
        (tmp_path / "masks" / "cuhk03").mkdir(parents=True)
        (tmp_path / "masks" / "cuhk03" / "images_labeled").symlink_to(folder / "images_labeled")
        photo = folder / "images_labeled" / "1_001_1_01.png"
        message = f"is the folder of the images, of which {photo} would be replaced"
        refused(message, source, folder, tmp_path / "masks" / "cuhk03")

    def test_the_parsers_folder(self, refused, tmp_path):
        save_photo(tmp_path / "photos" / "a.jpg")
        (tmp_path / "par").mkdir()
        Image.fromarray(np.full((32, 16), 5, np.uint8)).save(tmp_path / "par" / "a.png")
        source = ParsingFolder(tmp_path / "par", "lip")
        message = f"is the folder of the annotations, of which {tmp_path}/par/a.png would"
        refused(message, source, tmp_path / "photos", tmp_path / "par")

    def test_the_folder_of_the_iuv(self, tmp_path, refused):
        """Label maps may be written next to IUV, as they are with keep_iuv."""
        save_photo(tmp_path / "photos" / "a.jpg")
        out = tmp_path / "masks" / "photos"
        write_iuv(out / "a_IUV.png", make_iuv())
        for options in ({"keep_iuv": True}, {"iuv_only": True}):
            message = "is the folder of the annotations, of which .*a_IUV.png would"
            refused(message, IuvFolder(out), tmp_path / "photos", out, **options)
        assert convert(IuvFolder(out), tmp_path / "photos", out, progress=False).converted == 1

    def test_every_source_names_its_files(self, tmp_path):
        (tmp_path / "names.json").write_text('{"images": []}')
        (tmp_path / "results.json").write_text("[]")
        both = (tmp_path / "results.json", tmp_path / "names.json")
        for source in (ResultsFile(*both), KeypointSource(*both)):
            assert tuple(source.files) == both
        np.save(tmp_path / "a.npy", np.ones((2, 2)))
        assert list(NpyFolder(tmp_path).files) == [tmp_path / "a.npy"]
        (tmp_path / "a.txt").touch()
        assert list(KeypointSource(tmp_path).files) == [tmp_path / "a.txt"]
        path = dump(tmp_path / "market.pkl", {}, 2022)
        assert list(DumpFile(path).files) == [path]


# The script


def run(*arguments) -> int:
    return script("convert_masks").main([str(argument) for argument in arguments])


def densepose_iuv(iuv, images, out, *more) -> int:
    return run("--source", "densepose-iuv", "--iuv", iuv, "--images", images, "--out", out, *more)


@pytest.mark.parametrize(
    "line",
    [
        "densepose-iuv --iuv {0}",
        "densepose-dump --dump {0}",
        "densepose-json --json {0} --annotations {1}",
        "densepose-json --annotations {0} --json {1}",
        "parsing --label-set lip --parsing {0}",
        "npy --npy {0}",
        "keypoints --keypoints {0}",
        "keypoints --annotations {0} --keypoints {1}",
    ],
)
def test_annotations_that_are_not_there(tmp_path, line, capsys):
    market, _ = make_market(tmp_path, NAMES)
    words = line.format(tmp_path / "none", market).split()
    assert run("--source", *words, "--images", market, "--out", tmp_path / "out") == 2
    message = f"{words[1 if 'lip' not in words else 3]}: expected a file or folder of annotations"
    assert f"{message}, found none at {tmp_path / 'none'}\n" in capsys.readouterr().err


def test_script_converts_what_is_good_and_names_what_is_not(tmp_path, capsys):
    market, iuv = make_market(tmp_path, [*NAMES, "0008_a", "0009_b", "0010_c", "0011_d"])
    write_iuv(iuv / "0008_a_IUV.png", make_iuv(height=64))
    (iuv / "0009_b_IUV.png").write_bytes((iuv / "0009_b_IUV.png").read_bytes()[:100])
    Image.fromarray(make_iuv()).save(iuv / "0010_c_IUV.png")
    (iuv / "0011_d_IUV.png").unlink()
    write_iuv(iuv / "0012_e_IUV.png", make_iuv())
    out = tmp_path / "masks" / "market1501"
    assert densepose_iuv(iuv, market, out) == 1
    printed = capsys.readouterr().out
    assert "3 converted" in printed and "3 failed" in printed and "1 images without" in printed
    assert f"1 annotations that match none of these images: {iuv / '0012_e'}\n" in printed
    for reason in ("0008_a.jpg: .*64 × 16", "0009_b.jpg: .*truncated", "0010_c.jpg: .*swapped"):
        assert any(re.search(reason, line) for line in printed.splitlines()), reason
    assert "background" in printed and "foot" in printed
    missing = "Market-1501-v15.09.15/bounding_box_train/0011_d.jpg\n"
    assert (out / "missing.txt").read_text() == missing
    assert (out / "failed.txt").read_text().count("\n") == 3
    assert len(list(out.rglob("*.png"))) == 3


def test_lists_of_an_earlier_run_are_kept_whatever_is_in_them(tmp_path, capsys):
    market, iuv = make_market(tmp_path, NAMES)
    out = tmp_path / "masks" / "market1501"
    assert densepose_iuv(iuv, market, out) == 0
    (out / "ambiguous.txt").write_bytes(b"b.jpg\twhy\nno tab\na\xff.jpg\ttwo\ttabs\n\n")
    assert densepose_iuv(iuv, market, out) == 0
    assert (out / "ambiguous.txt").read_bytes() == b"a\xff.jpg\ttwo\ttabs\nb.jpg\twhy\nno tab\n"


def test_lists_of_names_with_tabs_and_line_breaks_do_not_grow(tmp_path, capsys):
    market, iuv = make_market(tmp_path, NAMES[:1])
    names = ["a\nb", "a\tb", "a\rb", r"a\nb", r"a\\nb", r"a\b", "a\\\nb"]
    for name in names:
        try:
            save_photo(market / "query" / f"{name}.jpg")
        except OSError:
            pytest.skip("the file system takes no such names")
    out = tmp_path / "masks" / "market1501"
    escaped = (r"a\nb", r"a\tb", r"a\rb", r"a\\nb", r"a\\\\nb", r"a\\b", r"a\\\nb")
    lines = sorted(f"query/{name}.jpg" for name in escaped)
    for _ in range(2):
        assert densepose_iuv(iuv, market, out) == 0
        assert sorted((out / "missing.txt").read_text().splitlines()) == lines
    for photo in (market / "query").iterdir():
        write_iuv(iuv / f"{photo.stem}_IUV.png", make_iuv())
    # Entries of images that this run does not look at are kept as they are.
    assert densepose_iuv(iuv, market / "Market-1501-v15.09.15", out) == 0
    assert sorted((out / "missing.txt").read_text().splitlines()) == lines
    assert densepose_iuv(iuv, market, out) == 0
    assert (out / "missing.txt").read_text() == ""


class TestListsOfSeveralRuns:
    """Entries are paths in the data set, and each run replaces those of its own images."""

    FOLDERS = ("images_detected", "images_labeled")

    @pytest.fixture
    def cuhk03(self, tmp_path):
        """Converts one folder of CUHK03, whose two folders have the same names; returns lists."""
        for folder in self.FOLDERS:
            for name in ("a", "b", "c", "d"):
                save_photo(tmp_path / "cuhk03" / folder / f"{name}.png")

        def run(folder, *more, **iuvs):
            iuv, out = tmp_path / "iuv", tmp_path / "masks" / "cuhk03"
            shutil.rmtree(iuv, ignore_errors=True)
            for name, planes in iuvs.items():
                write_iuv(iuv / f"{name}_IUV.png", planes)
                if name == "b":
                    people = np.zeros((32, 16), np.uint8)
                    people[:, 8:] = 1
                    Image.fromarray(people).save(iuv / f"{name}_INDS.png")
            densepose_iuv(iuv, tmp_path / "cuhk03" / folder, out, *more)
            names = ("missing", "failed", "ambiguous")
            lines = {name: (out / f"{name}.txt").read_text().splitlines() for name in names}
            return {k: [line.partition("\t")[0] for line in found] for k, found in lines.items()}

        return run

    ALL: ClassVar = {"a": make_iuv(), "b": make_iuv(), "d": make_iuv(height=8)}

    def test_two_folders_with_the_same_names(self, cuhk03):
        for folder in self.FOLDERS:
            lists = cuhk03(folder, **self.ALL)
        assert lists == {
            "missing": [f"{folder}/c.png" for folder in self.FOLDERS],
            "failed": [f"{folder}/d.png" for folder in self.FOLDERS],
            "ambiguous": [f"{folder}/b.png" for folder in self.FOLDERS],
        }

    def test_entries_of_images_that_are_read_again_are_replaced(self, cuhk03):
        cuhk03("images_labeled", **self.ALL)
        assert cuhk03("images_labeled", **self.ALL)["ambiguous"] == ["images_labeled/b.png"]
        cuhk03("images_detected", **self.ALL)
        now = {"b": make_iuv() * 0, "c": make_iuv(), "d": make_iuv()}
        assert cuhk03("images_labeled", "--overwrite", **now) == {
            "missing": [
                "images_detected/c.png",
                *("images_labeled/a.png", "images_labeled/b.png"),
            ],
            "failed": ["images_detected/d.png"],
            "ambiguous": ["images_detected/b.png"],
        }

    def test_an_entry_is_kept_as_long_as_its_label_map(self, cuhk03):
        cuhk03("images_labeled", **self.ALL)
        assert cuhk03("images_labeled", a=make_iuv())["ambiguous"] == ["images_labeled/b.png"]
        assert not cuhk03("images_labeled", "--overwrite", a=make_iuv())["ambiguous"]


def test_names_that_are_not_unicode_are_listed(tmp_path, capsys):
    market, iuv = make_market(tmp_path, NAMES)
    photo = next(market.rglob("*.jpg"))
    try:
        photo.with_name("0003_\udcff.jpg").write_bytes(photo.read_bytes())
    except (OSError, UnicodeError):
        pytest.skip("the file system takes no such names")
    out = tmp_path / "masks" / "market1501"
    assert densepose_iuv(iuv, market, out) == 0
    assert (out / "missing.txt").read_bytes().endswith(b"bounding_box_train/0003_\xff.jpg\n")


def test_script_succeeds_and_says_what_existed_already(tmp_path, capsys):
    market, iuv = make_market(tmp_path, NAMES)
    out = tmp_path / "masks" / "market1501"
    assert densepose_iuv(iuv, market, out) == 0
    assert densepose_iuv(iuv, market, out) == 0
    assert "3 already there" in capsys.readouterr().out
    assert densepose_iuv(iuv, market, out, "--overwrite", "--workers", "1") == 0


def test_script_reports_a_missing_or_empty_folder(tmp_path, capsys):
    market, iuv = make_market(tmp_path, NAMES)
    (tmp_path / "empty").mkdir()
    assert densepose_iuv(tmp_path / "nowhere", market, tmp_path / "m") == 2
    assert densepose_iuv(tmp_path / "empty", market, tmp_path / "m") == 2
    assert densepose_iuv(iuv, tmp_path / "nowhere", tmp_path / "m") == 2
    printed = capsys.readouterr().err
    assert "--iuv: expected a file or folder of annotations, found none at" in printed
    assert "contains no *_IUV.png" in printed
    with pytest.raises(SystemExit, match="2"):
        run("--source", "densepose-iuv", "--images", market, "--out", tmp_path / "m")
    assert "needs --iuv" in capsys.readouterr().err


def run_command(*command) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, check=False
    )


def test_script_runs_as_a_command(tmp_path):
    market, iuv = make_market(tmp_path, NAMES)
    (iuv / f"{NAMES[0]}_IUV.png").write_bytes(b"")
    where = ("--iuv", iuv, "--images", market, "--out", tmp_path / "masks" / "market1501")
    result = run_command(SCRIPT, "--source", "densepose-iuv", *where)
    assert result.returncode == 1, result.stderr
    assert "2 converted" in result.stdout
    assert "image/s" not in result.stderr  # no progress bar where there is no terminal


@pytest.mark.slow
def test_workers_may_be_spawned(tmp_path):
    """A spawned worker, as on macOS and in Python 3.14, does not inherit its parent's memory."""
    market, iuv = make_market(tmp_path, [f"{pid:04d}_c1s1_000001_01" for pid in range(40)])
    program = tmp_path / "program.py"
    program.write_text(
        "import multiprocessing, pathlib, runpy, sys\n"
        "if __name__ == '__main__':\n"
        "    multiprocessing.set_start_method('spawn')\n"
        "    del sys.argv[0]\n"
        "    sys.path.insert(0, str(pathlib.Path(sys.argv[0]).parent))\n"
        "    runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    where = ("--iuv", iuv, "--images", market, "--out", tmp_path / "masks" / "market1501")
    result = run_command(program, SCRIPT, "--source", "densepose-iuv", "--workers", "2", *where)
    assert result.returncode == 0, result.stderr
    assert "40 converted" in result.stdout
