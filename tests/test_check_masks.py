"""Checks of label maps before training: faults, oddities, the label set."""

import os
import re

import numpy as np
import pytest
from mask_inputs import FIGURE_SIZE as SIZE
from mask_inputs import PROJECT, SAMPLES, figure, needs_samples, placed, script
from PIL import Image

from magnifier_plugin.annotators.densepose import IuvFolder, write_iuv
from magnifier_plugin.annotators.label_set import label_set_names, load_label_set
from magnifier_plugin.masks.checking import KINDS, check_labels, check_manifest, mean_shares
from magnifier_plugin.masks.conversion import convert
from magnifier_plugin.masks.label_maps import read_labels, write_labels
from magnifier_plugin.masks.manifest import Manifest, write_manifest
from magnifier_plugin.masks.paths import iuv_path
from magnifier_plugin.regions import PARTS, REGIONS


def check_one(folder, labels, **options):
    return check_labels(dict([placed(folder, "a", labels)]), progress=False, **options)[0]


# One label map


def test_a_figure_is_fine(tmp_path):
    finding = check_one(tmp_path, figure())
    assert (finding.kind, finding.reasons) == ("fine", ())
    assert finding.shares == pytest.approx(
        np.bincount(figure().ravel(), minlength=9) / figure().size
    )
    assert finding.body == pytest.approx((figure() > 0).mean())


def test_feet_above_the_head_are_odd(tmp_path):
    finding = check_one(tmp_path, figure()[::-1])
    assert finding.kind == "odd"
    assert finding.reasons[0] == "chest above head" and "foot above lower leg" in finding.reasons
    only_foot = check_one(tmp_path, figure(("head", "chest", "foot", "upper leg", "lower leg")))
    assert only_foot.reasons == ("foot above lower leg",)


def test_a_body_at_the_side_or_hardly_any_is_odd(tmp_path):
    labels = np.zeros(SIZE, np.uint8)
    labels[10:20, 28:31] = REGIONS.index("chest")
    assert check_one(tmp_path, labels).reasons == (
        "the body covers 1.5% of the image",
        "the body is at the image's right side",
        "only 1 of 7 body regions",
    )


def test_few_regions_and_an_empty_map_are_reported(tmp_path):
    finding = check_one(tmp_path, figure(("head", "chest")))
    assert (finding.kind, finding.reasons) == ("few regions", ("only 2 of 7 body regions",))
    assert check_one(tmp_path, figure(("head", "chest")), min_regions=2).kind == "fine"
    assert check_one(tmp_path, figure() * 0).kind == "empty"
    speck = figure() * 0
    speck[5, 5] = 1
    assert check_one(tmp_path, speck).kind == "empty"
    assert check_one(tmp_path, np.full(SIZE, 255, np.uint8)).kind == "empty"


def test_what_cannot_be_trained_on_is_reported(tmp_path):
    finding = check_one(tmp_path, figure()[:32])
    assert (finding.kind, finding.reasons) == (
        "wrong size",
        ("label map: 32 × 32 (height × width), but its image is 64 × 32",),
    )
    photo, label = placed(tmp_path, "a", figure())
    Image.fromarray(figure() * 3).save(label)
    (finding,) = check_labels({photo: label}, progress=False)
    assert finding.kind == "unreadable" and finding.reasons[0].startswith("label map: label ")
    label.write_bytes(b"")
    assert check_labels({photo: label}, progress=False)[0].kind == "unreadable"
    (finding,) = check_labels({photo: label.with_name("b.png")}, progress=False)
    assert (finding.kind, finding.label, finding.reasons) == ("missing", None, ("no label map",))
    (finding,) = check_labels({f"{photo}.gone": label}, progress=False)
    assert finding.kind == "unreadable" and finding.reasons[0].startswith("photo: ")


def facing_us() -> np.ndarray:
    """The IUV of a person who shows the front of torso and legs."""
    iuv = np.zeros((*SIZE, 3), np.uint8)
    iuv[10:30, 8:24, 0] = PARTS.index("torso front")
    iuv[30:50, 8:14, 0] = PARTS.index("right upper leg front")
    iuv[30:50, 18:24, 0] = PARTS.index("left upper leg front")
    return iuv


def test_swapped_sides_are_a_hint_only(tmp_path):
    """Correct IUV of side views looks swapped too, so certain findings come first."""
    maps = {"a": figure(), "b": figure(), "c": figure(("head", "chest")), "d": figure()[::-1]}
    places = dict(placed(tmp_path, name, labels) for name, labels in maps.items())
    for name, label in zip(maps, places.values(), strict=True):
        write_iuv(iuv_path(label), facing_us()[:, :: 1 if name == "b" else -1])
    findings = check_labels(places, progress=False)
    assert [(f.image.stem, f.kind) for f in findings] == [
        *(("d", "odd"), ("c", "few regions"), ("a", "uncertain"), ("b", "fine"))
    ]
    assert findings[2].reasons == () and findings[3].hints == ()
    for finding in findings[:3]:
        assert finding.hints == (
            "left and right of the body may be swapped; a side view looks like this too",
        )


def test_faults_of_iuv_are_found(tmp_path):
    photo, label = placed(tmp_path, "a", figure())
    write_iuv(iuv_path(label), facing_us())
    (finding,) = check_labels({photo: label}, progress=False)
    assert (finding.kind, finding.iuv) == ("fine", iuv_path(label))
    write_iuv(iuv_path(label), facing_us()[:32])
    (finding,) = check_labels({photo: label}, progress=False)
    reason = "IUV: 32 × 32 (height × width), but its image is 64 × 32"
    assert (finding.kind, finding.reasons) == ("wrong size", (reason,))
    assert finding.body > 0  # the label map is good
    planes = np.zeros((*SIZE, 3), np.uint8)
    planes[5, 7] = 25
    Image.fromarray(planes).save(iuv_path(label))
    (finding,) = check_labels({photo: label}, progress=False)
    assert finding.kind == "unreadable"
    assert finding.reasons[0].startswith("IUV: part id 25 at row 5, column 7")
    iuv_path(label).write_bytes(b"")
    write_labels(label, figure()[:32])
    (finding,) = check_labels({photo: label}, progress=False)
    assert finding.kind == "unreadable"
    assert [reason.partition(":")[0] for reason in finding.reasons] == ["label map", "IUV"]
    label.unlink()
    assert check_labels({photo: label}, progress=False)[0].kind == "unreadable"
    write_iuv(iuv_path(label), facing_us())
    (finding,) = check_labels({photo: label}, progress=False)
    assert (finding.kind, finding.label) == ("missing", None)
    assert finding.reasons == ("no label map, only IUV",)


@needs_samples
def test_real_crops_are_fine_upright_and_odd_upside_down(tmp_path):
    crops = SAMPLES / "densepose" / "crops"
    convert(IuvFolder(crops), crops, tmp_path / "crops", keep_iuv=True, progress=False)
    names = ("walker", "cap", "seated", "rider")
    labels = {str(crops / f"{name}.jpg"): tmp_path / "crops" / f"{name}.png" for name in names}
    assert [finding.kind for finding in check_labels(labels, progress=False)] == ["fine"] * 4
    for label in labels.values():
        write_labels(label, read_labels(label)[::-1])
    assert {finding.kind for finding in check_labels(labels, progress=False)} == {"odd"}


def test_the_worst_come_first(tmp_path):
    maps = {"a": figure(), "b": figure()[::-1], "c": None, "d": figure()[:8], "e": figure() * 0}
    labels = dict(placed(tmp_path, name, labels) for name, labels in maps.items())
    findings = check_labels(labels, progress=False)
    assert [finding.image.stem for finding in findings] == ["d", "e", "b", "c", "a"]
    assert [KINDS.index(f.kind) for f in findings] == sorted(KINDS.index(f.kind) for f in findings)
    assert mean_shares(findings)["foot"] == pytest.approx(2 / 3 * (figure() == 7).mean())
    assert mean_shares([]) == {}


# The label set


def test_label_maps_of_another_label_set_stop_a_run(tmp_path, caplog):
    assert check_manifest(tmp_path, "densepose") is None
    assert "no labels.json" in caplog.text
    lip = Manifest("parsing", "lip", load_label_set("lip").definition)
    write_manifest(tmp_path, lip)
    assert check_manifest(tmp_path, "lip") == lip
    with pytest.raises(ValueError, match=r"label set lip, expected densepose; name theirs \(masks"):
        check_manifest(tmp_path, "densepose")
    write_manifest(tmp_path, Manifest("parsing", "lip", {"classes": {}}))
    with pytest.raises(ValueError, match="another version of label set lip"):
        check_manifest(tmp_path, "lip")
    write_manifest(tmp_path, Manifest("parsing", "mine", {}))
    assert check_manifest(tmp_path, "mine").label_set == "mine"
    for name in ("densepose-no-hands", "magnifiernet-authors", "lip"):
        with pytest.raises(ValueError, match=f"expected {name}"):
            check_manifest(tmp_path, name)


def test_readme_lists_every_class_of_every_label_set():
    readme = (PROJECT / "mask_labels" / "README.md").read_text()
    for name in label_set_names():
        assert f"label_sets/{name}.yaml" in readme
        for known in load_label_set(name).classes.values():
            assert re.search(rf"\b{known}\b", readme), f"{name}: {known}"


# The script


def check(market, *more) -> int:
    arguments = ["-s", "market1501", "--root", market.root, "--masks", market.masks_dir]
    arguments += ["--out", market.root / "page.html", *more]
    return script("check_masks").main([str(argument) for argument in arguments])


def test_script_says_what_can_be_trained_on(market, capsys):
    folder = market()
    assert check(folder) == 0
    printed = capsys.readouterr().out
    assert "market1501: 12 training images" in printed and "Label set: unknown" in printed
    assert "Page: " in printed and (folder.root / "page.html").is_file()
    labels = sorted((folder.masks_dir / "market1501" / "bounding_box_train").iterdir())
    labels[0].unlink()
    assert check(folder) == 0
    assert check(folder, "--max-missing", "0.05") == 1
    labels[1].write_bytes(b"")
    assert check(folder) == 1
    image = f"{folder.images / 'bounding_box_train' / labels[1].stem}.jpg"
    assert f"{image}: label map: damaged or truncated" in capsys.readouterr().out


class TestLocationOfThePage:
    """It is with the label maps, or in the working directory if that is not possible."""

    def run(self, market, *more) -> int:
        arguments = ["-s", "market1501", "--root", market.root, "--masks", market.masks_dir, *more]
        return script("check_masks").main([str(argument) for argument in arguments])

    def test_with_the_label_maps(self, market, tmp_path, monkeypatch, capsys):
        folder = market()
        monkeypatch.chdir(tmp_path)
        assert self.run(folder, "--limit", 2) == 0
        page = folder.masks_dir / "market1501" / "check_masks.html"
        assert page.is_file() and f"Page: {page}\n" in capsys.readouterr().out
        assert not (tmp_path / "check_masks.html").exists()
        # The page is replaced, and no label map is overlooked.
        assert self.run(folder, "--limit", 2) == 0

    def test_without_label_maps_no_folder_is_made(self, market, tmp_path, monkeypatch, capsys):
        folder = market()
        monkeypatch.chdir(tmp_path)
        assert self.run(folder, "--masks", "none") == 1
        assert f"Page: {tmp_path / 'check_masks.html'}\n" in capsys.readouterr().out
        assert (tmp_path / "check_masks.html").is_file() and not (tmp_path / "none").exists()

    def test_a_read_only_folder(self, market, tmp_path, monkeypatch, capsys):
        folder = market()
        labels = folder.masks_dir / "market1501"
        monkeypatch.chdir(tmp_path)
        read_only = {labels}
        access = os.access
        monkeypatch.setattr(
            os, "access", lambda place, mode: place not in read_only and access(place, mode)
        )
        assert self.run(folder, "--limit", 2) == 0
        assert f"Page: {tmp_path / 'check_masks.html'}\n" in capsys.readouterr().out
        assert not (labels / "check_masks.html").exists()
        read_only.add(tmp_path)
        assert self.run(folder) == 2
        error = capsys.readouterr().err
        assert f"neither {labels} nor {tmp_path} is writable" in error and "--out" in error
        elsewhere = tmp_path / "a"
        elsewhere.mkdir()
        assert self.run(folder, "--limit", 2, "--out", elsewhere / "page.html") == 0


@pytest.mark.parametrize("name", ["labels.json", "page", "folder.html", "page.html.png"])
def test_other_files_are_not_replaced(name, market, tmp_path, monkeypatch, capsys):
    folder = market()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "labels.json").write_text("{}")
    with pytest.raises(SystemExit, match="2"):
        check(folder, "--out", name)
    error = capsys.readouterr().err
    assert f"--out: expected a .html file to write, got {tmp_path / name}\n" in error
    assert (tmp_path / "labels.json").read_text() == "{}"


def test_script_counts_and_checks_iuv(market, capsys):
    folder = market()
    assert check(folder) == 0
    assert "Images with IUV: 0, without: 12" in capsys.readouterr().out
    labels = sorted((folder.masks_dir / "market1501" / "bounding_box_train").iterdir())
    for label in labels[:9]:
        write_iuv(iuv_path(label), np.zeros((32, 16, 3), np.uint8))
    assert check(folder) == 0
    assert "Images with IUV: 9, without: 3" in capsys.readouterr().out
    for label in labels:
        label.unlink()
    assert check(folder) == 0
    printed = capsys.readouterr().out
    assert "Label set: no label maps" in printed and "only IUV: enough for DSA-reID" in printed
    assert check(folder, "--max-missing", "0.2") == 1
    assert f"have no IUV in {folder.masks_dir / 'market1501'}; run" in capsys.readouterr().out
    write_iuv(iuv_path(labels[0]), np.zeros((16, 16, 3), np.uint8))
    assert check(folder) == 1
    assert "IUV: 16 × 16" in capsys.readouterr().out


def test_textures_without_iuv(market, capsys):
    folder = market()
    assert check(folder, "--textures", "3") == 0
    assert "No textures are drawn: no image with an IUV" in capsys.readouterr().out
    for label in sorted((folder.masks_dir / "market1501" / "bounding_box_train").iterdir()):
        write_iuv(iuv_path(label), np.ones((32, 16, 3), np.uint8))
    assert check(folder, "--textures", "3") == 0
    printed = capsys.readouterr().out
    assert f"Page: {folder.root / 'page_textures.png'}\n" in printed
    assert "No textures" not in printed


def test_a_page_that_cannot_be_written_is_reported_before_the_checks(market, capsys, monkeypatch):
    folder, main = market(), script("check_masks").main
    (folder.root / "file").touch()

    def too_early(*_, **__):
        raise AssertionError("the label maps were checked")

    monkeypatch.setitem(main.__globals__, "check_labels", too_early)
    arguments = ["-s", "market1501", "--root", folder.root, "--masks", folder.masks_dir]
    arguments += ["--out", folder.root / "file" / "page.html"]
    assert main([str(argument) for argument in arguments]) == 2
    assert "expected a folder to write to, found a file" in capsys.readouterr().err


def test_script_is_unchanged_by_a_decompression_bomb_among_the_photos(market, capsys):
    folder = market()
    path = next((folder.images / "bounding_box_train").iterdir())
    Image.new("1", (20_000, 20_000)).save(path, format="PNG")
    assert check(folder) == 1
    assert f"{path}: photo: refused, " in capsys.readouterr().out


def test_script_stops_at_another_label_set(market, capsys, monkeypatch):
    folder = market()
    write_manifest(
        folder.masks_dir / "market1501",
        Manifest("parsing", "lip", load_label_set("lip").definition),
    )
    assert check(folder) == 1
    printed = capsys.readouterr().out
    assert "label maps use label set lip, expected densepose" in printed
    assert "check_masks.py: --label-set" in printed
    assert check(folder, "--label-set", "lip") == 0
    monkeypatch.setenv("MAGNIFIER_LABEL_SET", "lip")
    assert check(folder) == 0


def test_script_says_what_it_cannot_find(market, tmp_path, capsys):
    folder = market()
    assert script("check_masks").main(["-s", "market", "--root", str(folder.root)]) == 2
    assert "unknown data set 'market'" in capsys.readouterr().err
    assert script("check_masks").main(["-s", "cuhk03", "--root", str(folder.root)]) == 2
    assert "cuhk03" in capsys.readouterr().err
