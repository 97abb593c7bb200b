"""Label maps: their paths, reading and writing, and the regions of DensePose's IUV."""

from pathlib import Path

import numpy as np
import pytest
from mask_inputs import SAMPLES, make_iuv, needs_samples
from PIL import Image

from magnifier_plugin.annotators.densepose import IuvFolder, read_iuv, to_regions, write_iuv
from magnifier_plugin.images import MAX_PIXELS
from magnifier_plugin.masks.conversion import convert
from magnifier_plugin.masks.label_maps import PALETTE, read_labels, write_labels
from magnifier_plugin.masks.manifest import Manifest, read_manifest, write_manifest
from magnifier_plugin.masks.paths import default_masks_dir, label_path
from magnifier_plugin.regions import BODY_REGIONS, PARTS, REGIONS, UNKNOWN

CROPS = SAMPLES / "densepose" / "crops"


def all_ids() -> np.ndarray:
    """A label map that contains every region and unknown."""
    return np.array([[0, 1, 2], [3, 4, 5], [6, 7, UNKNOWN]], dtype=np.uint8)


# IUV


def test_iuv_is_read_in_the_order_i_u_v_from_red_v_green_u_blue_i(tmp_path):
    planes = np.zeros((2, 3, 3), dtype=np.uint8)
    planes[...] = (200, 100, 24)  # red V, green U, blue I
    Image.fromarray(planes).save(tmp_path / "a_IUV.png")
    assert read_iuv(tmp_path / "a_IUV.png")[0, 0].tolist() == [24, 100, 200]


def test_iuv_is_unchanged_by_writing_and_reading(tmp_path):
    iuv = make_iuv()
    write_iuv(tmp_path / "deep" / "a_IUV.png", iuv)
    assert np.array_equal(read_iuv(tmp_path / "deep" / "a_IUV.png"), iuv)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a_IUV.png"]


def test_every_part_becomes_its_region():
    iuv = np.zeros((1, len(PARTS), 3), dtype=np.uint8)
    iuv[0, :, 0] = range(len(PARTS))
    expected = [0, 4, 4, 3, 3, 7, 7, 5, 5, 5, 5, 6, 6, 6, 6, 2, 2, 2, 2, 3, 3, 3, 3, 1, 1]
    assert to_regions(iuv)[0].tolist() == expected
    expected[3] = expected[4] = 0
    assert to_regions(iuv, hands="background")[0].tolist() == expected


def test_part_id_over_24_is_refused_with_its_position(tmp_path):
    planes = make_iuv()[..., ::-1].copy()
    planes[5, 7, 2] = 25
    Image.fromarray(planes).save(tmp_path / "a_IUV.png")
    with pytest.raises(ValueError, match=r"a_IUV\.png: part id 25 at row 5, column 7.*0\.\.24"):
        read_iuv(tmp_path / "a_IUV.png")


def test_swapped_byte_order_is_reported_as_such(tmp_path):
    Image.fromarray(make_iuv()).save(tmp_path / "a_IUV.png")  # red = I
    with pytest.raises(ValueError, match="red and blue are swapped"):
        read_iuv(tmp_path / "a_IUV.png")


@pytest.mark.parametrize("keep", [0, 4, 40, 200])
def test_truncated_png_is_refused_with_its_path(tmp_path, keep):
    write_iuv(tmp_path / "a_IUV.png", make_iuv())
    whole = (tmp_path / "a_IUV.png").read_bytes()
    (tmp_path / "a_IUV.png").write_bytes(whole[:keep])
    with pytest.raises(ValueError, match=r"a_IUV\.png: damaged or truncated"):
        read_iuv(tmp_path / "a_IUV.png")


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "I;16"])
def test_another_kind_of_png_is_not_an_iuv(tmp_path, mode):
    Image.new(mode, (4, 4)).save(tmp_path / "a_IUV.png")
    with pytest.raises(ValueError, match=f"image mode {mode}, expected 8-bit RGB"):
        read_iuv(tmp_path / "a_IUV.png")


def test_absurd_size_is_refused_before_it_is_unpacked(tmp_path):
    side = int(MAX_PIXELS**0.5) + 1
    Image.new("1", (side, side)).save(tmp_path / "bomb.png")
    assert (tmp_path / "bomb.png").stat().st_size < MAX_PIXELS / 1000
    with pytest.raises(ValueError, match=r"bomb\.png: refused.*pixels"):
        read_iuv(tmp_path / "bomb.png")


def test_wrong_arrays_are_refused():
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8)):
        with pytest.raises(ValueError, match=r"expected uint8 \[H, W, 3\]"):
            to_regions(wrong)
    with pytest.raises(ValueError, match=r"part id 25, expected 0\.\.24"):
        write_iuv("never.png", np.full((4, 4, 3), 25, np.uint8))
    with pytest.raises(ValueError, match="hands"):
        to_regions(make_iuv(), hands="feet")
    with pytest.raises(FileNotFoundError):
        read_iuv("never.png")


# Label maps


def test_label_maps_survive_writing_and_reading(tmp_path):
    write_labels(tmp_path / "deep" / "a.png", all_ids())
    assert np.array_equal(read_labels(tmp_path / "deep" / "a.png", (3, 3)), all_ids())
    with Image.open(tmp_path / "deep" / "a.png") as image:
        assert image.mode == "P"
        assert np.array_equal(np.array(image), all_ids())
        assert np.array_equal(np.array(image.convert("RGB")), PALETTE[all_ids()])


def test_palette_lost_by_convert_is_reported_as_such(tmp_path):
    write_labels(tmp_path / "a.png", all_ids())
    with Image.open(tmp_path / "a.png") as image:
        image.convert("L").save(tmp_path / "grey.png")
        image.convert("RGB").save(tmp_path / "colours.png")
    with pytest.raises(ValueError, match=r"grey\.png: label \d+.*palette was lost by convert"):
        read_labels(tmp_path / "grey.png")
    with pytest.raises(ValueError, match=r"colours\.png: image mode RGB, expected a palette PNG"):
        read_labels(tmp_path / "colours.png")


def test_greyscale_png_of_ids_is_accepted(tmp_path):
    Image.fromarray(all_ids()).save(tmp_path / "a.png")
    assert np.array_equal(read_labels(tmp_path / "a.png"), all_ids())


@pytest.mark.parametrize(("label", "hint"), [(24, "DensePose parts"), (200, "not a label map")])
def test_foreign_ids_are_refused_with_a_hint(tmp_path, label, hint):
    Image.fromarray(np.full((2, 2), label, np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=rf"a\.png: label {label}, expected 0\.\.7 or 255.*{hint}"):
        read_labels(tmp_path / "a.png")
    with pytest.raises(ValueError, match=f"label {label}"):
        write_labels(tmp_path / "b.png", np.full((2, 2), label, np.uint8))


def test_label_map_of_another_size_is_reported(tmp_path):
    write_labels(tmp_path / "a.png", np.zeros((64, 32), np.uint8))
    with pytest.raises(ValueError, match=r"a\.png: 64 × 32 .*image is 128 × 64"):
        read_labels(tmp_path / "a.png", size=(128, 64))
    with pytest.raises(FileNotFoundError):
        read_labels(tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"expected uint8 \[H, W\]"):
        write_labels(tmp_path / "b.png", np.zeros((3, 3)))


def test_masks_dir_comes_from_the_environment(monkeypatch):
    monkeypatch.delenv("MAGNIFIER_MASKS", raising=False)
    assert default_masks_dir() == Path.cwd() / "mask_labels"
    monkeypatch.setenv("MAGNIFIER_MASKS", "/elsewhere")
    assert default_masks_dir() == Path("/elsewhere")


def test_manifest_survives_writing_and_its_damage_is_noticed(tmp_path):
    assert read_manifest(tmp_path) is None
    manifest = Manifest("densepose-iuv", "densepose", {"part_to_region": [0, 1]})
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    assert (
        manifest.checksum
        != Manifest("densepose-iuv", "densepose", {"part_to_region": [1]}).checksum
    )
    intact = (tmp_path / "labels.json").read_text()
    for damaged, reason in (
        (intact[:20], r"damaged \(ValueError: expected JSON"),
        ("[]", r"damaged \(TypeError: "),
        (intact.replace("checksum", "sum"), r"damaged \(KeyError: 'checksum'\)"),
        (intact.replace("[0, 1]", "[0, 2]"), "its checksum does not match its content"),
    ):
        (tmp_path / "labels.json").write_text(damaged)
        with pytest.raises(ValueError, match=rf"labels\.json: {reason}.*; delete this file and "):
            read_manifest(tmp_path)


# Paths


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("Market-1501-v15.09.15/bounding_box_train/a.jpg", "bounding_box_train/a.png"),
        ("bounding_box_train/a.jpg", "bounding_box_train/a.png"),
        ("images_labeled/1_001.png", "images_labeled/1_001.png"),
        ("deep/er/a.b.jpg", "deep/er/a.b.png"),
    ],
)
def test_label_path_follows_the_image_path(image, label):
    path = label_path(f"/data/market1501/{image}", "/data/market1501", "market1501", "masks")
    assert path == Path.cwd() / "masks/market1501" / label


def test_label_path_refuses_an_image_of_another_data_set():
    with pytest.raises(ValueError, match="expected an image inside the data set's folder"):
        label_path("/data/cuhk03/a.jpg", "/data/market1501", "market1501", "masks")


# DensePose's own output


@needs_samples
def test_real_crops_have_the_regions_that_they_show(tmp_path):
    summary = convert(IuvFolder(CROPS), CROPS, tmp_path / "masks" / "crops", progress=False)
    assert (summary.converted, summary.failures) == (4, {})
    labels = {
        name: read_labels(tmp_path / f"masks/crops/{name}.png")
        for name in ("walker", "cap", "seated", "rider")
    }
    assert set(np.unique(labels["walker"])) == {0, *BODY_REGIONS}
    legs = {REGIONS.index(name) for name in ("upper leg", "lower leg", "foot")}
    assert not legs & set(np.unique(labels["seated"]).tolist())
    for region, above in (("head", "chest"), ("chest", "upper leg"), ("upper leg", "foot")):
        rows = [np.argwhere(labels["walker"] == REGIONS.index(r))[:, 0] for r in (region, above)]
        assert rows[0].mean() < rows[1].mean()


@needs_samples
@pytest.mark.parametrize("name", ["walker", "cap", "seated", "rider"])
def test_real_areas_are_those_of_the_part_plane(tmp_path, name):
    """An independent count: read with OpenCV, and with a table typed from the paper's list."""
    import cv2

    convert(IuvFolder(CROPS), CROPS, tmp_path / "crops", progress=False)
    parts = np.bincount(cv2.imread(str(CROPS / f"{name}_IUV.png"))[..., 0].ravel(), minlength=25)
    regions = np.bincount(read_labels(tmp_path / f"crops/{name}.png").ravel(), minlength=8)
    table = (
        [0],
        [23, 24],
        range(15, 19),
        [3, 4, *range(19, 23)],
        [1, 2],
        range(7, 11),
        range(11, 15),
        [5, 6],
    )
    assert regions.tolist() == [parts[list(ids)].sum() for ids in table]
