"""Every source with its command, from the annotator's files to label maps and kept IUV."""

import json

import numpy as np
import pytest
from dumps import ERAS, at, dump, encode, make_iuv
from mask_inputs import save_photo, script

from magnifier_plugin.annotators.densepose import IuvFolder, read_iuv, to_regions, write_iuv
from magnifier_plugin.annotators.npy import NpyFolder
from magnifier_plugin.masks.conversion import convert
from magnifier_plugin.masks.label_maps import read_labels
from magnifier_plugin.masks.manifest import read_manifest
from magnifier_plugin.masks.paths import iuv_path

NAME = "0002_c1s1_000451_03"


@pytest.fixture
def run(tmp_path):
    """Converts for one photo with these options; returns exit status and the label map's path."""
    market, out = tmp_path / "market1501", tmp_path / "masks" / "market1501"
    save_photo(market / "bounding_box_train" / f"{NAME}.jpg")

    def run(*options):
        arguments = [*options, "--images", market, "--out", out]
        status = script("convert_masks").main([str(argument) for argument in arguments])
        return status, out / "bounding_box_train" / f"{NAME}.png"

    return run


def test_coco_results(run, tmp_path, capsys):
    shape, png = encode(make_iuv(24, 8, 2))
    results, names = tmp_path / "results.json", tmp_path / "names.json"
    person = {"image_id": 7, "score": 0.9, "bbox": [4, 3, 8, 24], "uv_shape": shape}
    results.write_text(json.dumps([person | {"uv_data": png}]))
    names.write_text(json.dumps({"images": [{"id": 7, "file_name": f"{NAME}.jpg"}]}))
    status, label = run("--source", "densepose-json", "--json", results, "--annotations", names)
    assert status == 0
    assert np.array_equal(read_labels(label), to_regions(at((32, 16), 4, 3, make_iuv(24, 8, 2))))
    with pytest.raises(SystemExit, match="2"):
        run("--source", "densepose-json", "--json", results)
    assert "--source densepose-json needs --annotations" in capsys.readouterr().err


@pytest.mark.parametrize("size", [{"height": 99, "width": 33}, {"height": 32, "width": 16}, {}])
def test_coco_results_of_resized_images_fail(run, tmp_path, size):
    """Where a box fits into the image, nothing but the annotated size shows it."""
    shape, png = encode(make_iuv(24, 8, 2))
    results, names = tmp_path / "results.json", tmp_path / "names.json"
    person = {"image_id": 7, "score": 0.9, "bbox": [4, 3, 8, 24], "uv_shape": shape}
    results.write_text(json.dumps([person | {"uv_data": png}]))
    names.write_text(json.dumps({"images": [{"id": 7, "file_name": f"{NAME}.jpg"} | size]}))
    resized = size.get("height") == 99
    status, label = run("--source", "densepose-json", "--json", results, "--annotations", names)
    assert (status, label.exists()) == ((1, False) if resized else (0, True))
    failed = (tmp_path / "masks" / "market1501" / "failed.txt").read_text()
    message = f"{NAME}.jpg in the COCO annotations: 99 × 33 (height × width), but the image is 32"
    assert (message in failed) == resized


@pytest.mark.parametrize("score", [0.4, None])
def test_no_detection_is_left(run, tmp_path, capsys, score):
    """All scores are too low, or there are no detections at all."""
    shape, png = encode(make_iuv(24, 8, 2))
    person = {"image_id": 7, "bbox": [4, 3, 8, 24], "uv_shape": shape, "uv_data": png}
    results, names = tmp_path / "results.json", tmp_path / "names.json"
    results.write_text(json.dumps([person | {"score": score}] if score else []))
    names.write_text(json.dumps({"images": [{"id": 7, "file_name": f"{NAME}.jpg"}]}))
    command = ("--source", "densepose-json", "--json", results, "--annotations", names)
    assert run(*command)[0] == 2
    error = capsys.readouterr().err
    assert "the source has no annotations" in error and "at least --min-score" in error
    if score:
        assert run(*command, "--min-score", "0.4")[0] == 0


def test_authors_arrays(run, tmp_path):
    ids = np.arange(32 * 16).reshape(32, 16) % 8
    np.save(tmp_path / f"{NAME}.npy", ids)
    status, label = run("--source", "npy", "--npy", tmp_path)
    assert status == 0 and np.array_equal(read_labels(label), ids)
    assert read_manifest(tmp_path / "masks" / "market1501").label_set == "magnifiernet-authors"


@pytest.mark.parametrize("era", ERAS)
def test_dump_with_its_iuv_kept(run, tmp_path, era):
    iuv = make_iuv(24, 8, 2)
    people = {f"../market1501/bounding_box_train/{NAME}.jpg": [(4.0, 3.0, 0.9, iuv)]}
    path = dump(tmp_path / "market.pkl", people, era)
    status, label = run("--source", "densepose-dump", "--dump", path, "--keep-iuv")
    assert status == 0
    assert np.array_equal(read_iuv(iuv_path(label)), at((32, 16), 4, 3, iuv))
    assert np.array_equal(read_labels(label), to_regions(read_iuv(iuv_path(label))))


def test_iuv_kept_later_is_added(tmp_path):
    photo = save_photo(tmp_path / "data" / "a.jpg")
    write_iuv(tmp_path / "iuv" / "a_IUV.png", make_iuv(32, 16, 2))
    source, out = IuvFolder(tmp_path / "iuv"), tmp_path / "masks" / "data"
    assert convert(source, photo.parent, out, progress=False).converted == 1
    assert convert(source, photo.parent, out, keep_iuv=True, progress=False).converted == 1
    assert convert(source, photo.parent, out, keep_iuv=True, progress=False).already_there == 1
    np.save(tmp_path / "a.npy", np.zeros((32, 16)))
    with pytest.raises(ValueError, match="npy has no IUV; only DensePose's sources have"):
        convert(NpyFolder(tmp_path), photo.parent, out, keep_iuv=True)


def test_iuv_only(run, tmp_path, capsys):
    """DSA-reID needs no label maps, and existing ones may be from another annotator."""
    np.save(tmp_path / f"{NAME}.npy", np.ones((32, 16)))
    _, label = run("--source", "npy", "--npy", tmp_path)
    out = tmp_path / "masks" / "market1501"
    before = {path: path.read_bytes() for path in out.rglob("*.*")}
    iuv = make_iuv(32, 16, 2)
    write_iuv(tmp_path / "iuv" / f"{NAME}_IUV.png", iuv)
    source = ("--source", "densepose-iuv", "--iuv", tmp_path / "iuv")
    for printed in ("1 converted", "1 already there"):
        status, _ = run(*source, "--iuv-only")
        assert status == 0 and f"{printed}\n" in capsys.readouterr().out
    assert np.array_equal(read_iuv(iuv_path(label)), iuv)
    added = {path.name for path in out.rglob("*.*")} - {path.name for path in before}
    lists = {"iuv_missing.txt", "iuv_failed.txt", "iuv_ambiguous.txt"}
    assert added == {f"{NAME}_IUV.png", *lists}
    assert all(path.read_bytes() == content for path, content in before.items())
    assert run("--source", "npy", "--npy", tmp_path, "--iuv-only")[0] == 2
    assert "source npy has no IUV" in capsys.readouterr().err
    for other in (["--keep-iuv"], ["--hands", "background"]):
        with pytest.raises(SystemExit, match="2"):
            run(*source, "--iuv-only", *other)
    assert "--hands: has no effect with --iuv-only" in capsys.readouterr().err
    with pytest.raises(ValueError, match="keep_iuv and iuv_only"):
        convert(IuvFolder(tmp_path / "iuv"), tmp_path, out, keep_iuv=True, iuv_only=True)


def test_a_folder_that_is_missing_or_empty(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"nowhere: no such folder, expected one that contains \*\.npy"
    ):
        NpyFolder(tmp_path / "nowhere")
    (tmp_path / ".a.npy").touch()  # hidden
    with pytest.raises(ValueError, match=r"contains no \*\.npy; did the annotator"):
        NpyFolder(tmp_path)


def test_linked_subfolders_are_read(tmp_path):
    """As those of the images are; annotations of a large data set are often on another disk."""
    write_iuv(tmp_path / "disk" / "a_IUV.png", make_iuv(32, 16, 2))
    (tmp_path / "iuv").mkdir()
    (tmp_path / "iuv" / "train").symlink_to(tmp_path / "disk")
    assert [item.name for item in IuvFolder(tmp_path / "iuv")] == [f"{tmp_path}/iuv/train/a"]


def test_label_maps_after_iuv_only(run, tmp_path):
    write_iuv(tmp_path / "iuv" / f"{NAME}_IUV.png", make_iuv(32, 16, 2))
    source = ("--source", "densepose-iuv", "--iuv", tmp_path / "iuv")
    status, label = run(*source, "--iuv-only")
    assert status == 0 and iuv_path(label).is_file() and not label.exists()
    assert read_manifest(tmp_path / "masks" / "market1501") is None
    assert run(*source)[0] == 0 and label.is_file()
    assert read_manifest(tmp_path / "masks" / "market1501").label_set == "densepose"
