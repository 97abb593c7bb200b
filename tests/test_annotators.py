"""DensePose's formats, with several people in an image: IUV files, dumps, COCO results."""

import json
import math
import tracemalloc

import numpy as np
import pytest
from dumps import CHART, EMBEDDING, ERAS, at, dump, encode, entry, make_iuv, stand_in
from mask_inputs import SAMPLES, needs_samples
from PIL import Image

from magnifier_plugin.annotators.densepose import IuvFolder, read_iuv, write_iuv
from magnifier_plugin.annotators.densepose_dump import DumpFile
from magnifier_plugin.annotators.densepose_json import ResultsFile
from magnifier_plugin.annotators.detections import (
    DetectedPeople,
    Detection,
    FloatChart,
    PngChart,
    paste,
)
from magnifier_plugin.annotators.people import Extent, choose_person, extent
from magnifier_plugin.regions import PART_TO_REGION

RESULTS = SAMPLES / "densepose" / "coco_results.json"


# Several people


def test_the_person_in_the_middle_is_taken():
    def choose(central, scores):
        return choose_person([Extent(100, pixels) for pixels in central], scores)

    assert choose([10, 90, 0], [0.9, 0.6, 1.0]) == (1, "")
    assert choose([50, 50], [0.6, 0.7])[0] == 1
    best, ambiguity = choose([60, 100], [1.0, 0.7])
    assert best == 1 and "100 and 60 pixels" in ambiguity
    assert choose([0, 0], [0.6, 0.7]) == (1, "no person in the middle of the image")
    with pytest.raises(ValueError, match="expected at least one, got none"):
        choose_person([], [])


@pytest.mark.parametrize(
    ("people", "best", "ambiguity"),
    [
        ([(2, 2), (468, 0)], 1, "no person in the middle"),
        ([(2, 2), (468, 1)], 1, "with 1 and 2 pixels there"),
        ([(2, 2), (468, 300)], 1, ""),
        (
            [(60, 60), (468, 10)],
            0,
            "a larger person next to the chosen one, with 468 and 60 pixels",
        ),
        ([(300, 60), (468, 10)], 0, ""),
        ([(0, 0), (0, 0)], 0, "no person in the middle"),
    ],
)
def test_a_few_pixels_in_the_middle_are_not_the_person(people, best, ambiguity):
    found = choose_person([Extent(*person) for person in people], [0.9] * len(people))
    assert found[0] == best and (ambiguity in found[1] if ambiguity else not found[1])


def test_the_central_window_is_half_of_both_sides():
    assert extent(np.ones((8, 4), bool)) == (32, 8)
    edge = np.ones((8, 4), bool)
    edge[2:6, 1:3] = False
    assert extent(edge) == (24, 0)


def test_inds_says_which_pixels_are_the_person_in_the_middle(tmp_path):
    iuv = at((32, 16), 4, 4, make_iuv(24, 8, 2)) + at((32, 16), 12, 0, make_iuv(32, 4, 9))
    write_iuv(tmp_path / "a_IUV.png", iuv)
    (item,) = IuvFolder(tmp_path)
    assert set(np.unique(item.read((32, 16)).labels)) == {0, 4, 5}
    inds = np.zeros((32, 16), np.uint8)
    inds[:, 12:] = 1
    Image.fromarray(inds).save(tmp_path / "a_INDS.png")
    annotation = item.read((32, 16))
    assert set(np.unique(annotation.labels)) == {0, 4}
    assert np.array_equal(annotation.iuv, at((32, 16), 4, 4, make_iuv(24, 8, 2)))
    Image.fromarray(inds[:8]).save(tmp_path / "a_INDS.png")
    with pytest.raises(ValueError, match=r"a_INDS\.png: 8 × 16"):
        item.read((32, 16))
    Image.fromarray(inds).convert("RGB").save(tmp_path / "a_INDS.png")
    with pytest.raises(ValueError, match=r"a_INDS\.png: image mode RGB, expected L"):
        item.read((32, 16))


@needs_samples
def test_real_inds_keeps_one_person_of_thirteen(tmp_path):
    for end in ("IUV", "INDS"):
        (tmp_path / f"demo_im_{end}.png").symlink_to(SAMPLES / "densepose" / f"demo_im_{end}.png")
    (item,) = IuvFolder(tmp_path)
    all_people = read_iuv(item.path)
    size = all_people.shape[:2]
    kept = item.read(size).iuv
    with Image.open(tmp_path / "demo_im_INDS.png") as image:
        indices = np.array(image)[kept[..., 0] > 0]
    assert len(set(indices.tolist())) == 1
    assert 0 < np.count_nonzero(kept[..., 0]) < np.count_nonzero(all_people[..., 0])


# detectron2's dumps


@pytest.mark.parametrize("era", ERAS)
def test_dumps_of_all_eras_give_one_result(tmp_path, era):
    walker, neighbour = make_iuv(24, 8, 2), make_iuv(20, 5, 9)
    people = {
        "/data/a.jpg": [(4.7, 3.2, 0.99, walker), (10.0, 0.0, 0.8, neighbour)],
        "/data/b.jpg": [],
        "/data/c.jpg": [(4.0, 3.0, 0.2, walker)],
    }
    source = DumpFile(dump(tmp_path / "a.pkl", people, era))
    (item,) = source
    assert (source.label_set, item.name) == ("densepose", "/data/a.jpg")
    annotation = item.read((32, 16))
    assert np.array_equal(annotation.iuv, at((32, 16), 4, 3, walker))
    assert np.array_equal(annotation.labels, PART_TO_REGION[annotation.iuv[..., 0]])
    assert annotation.ambiguity == ""


def test_ambiguous_choices_are_reported(tmp_path):
    left, right = make_iuv(30, 8, 2), make_iuv(30, 8, 9)
    people = {"a.jpg": [(0.0, 1.0, 0.7, left), (8.0, 1.0, 0.9, right)]}
    (item,) = DumpFile(dump(tmp_path / "a.pkl", people, 2022))
    annotation = item.read((32, 16))
    assert set(np.unique(annotation.labels)) == {
        0,
        5,
    }  # equally central, so the one with the higher score
    assert "two people in the middle" in annotation.ambiguity


def test_boxes_are_clipped_a_little_and_refused_beyond():
    def box(x, y, iuv):
        parts = iuv[..., 0].astype(np.int64)
        return Detection(x, y, 1.0, FloatChart(parts, np.full((2, *parts.shape), 0.5, np.float32)))

    iuv = make_iuv(32, 16, 2)
    clipped = paste(box(1.0, -1.0, iuv), (32, 16))[..., 0]
    assert clipped[0, 2] == 2 and clipped.sum() == 2 * 30 * 14
    for x, y in ((-2, 0), (2, 0), (0, -2), (0, 2)):
        assert (paste(box(x, y, iuv), (32, 16))[..., 0] == 2).any()
    for x, y in ((-3, 0), (3, 0), (0, -3), (0, 3)):
        with pytest.raises(ValueError, match="is not inside an image"):
            paste(box(x, y, iuv), (32, 16))
    with pytest.raises(ValueError, match=r"64 × 16.*is not inside an image of 32 × 16"):
        paste(box(0.0, 0.0, make_iuv(64, 16, 2)), (32, 16))
    with pytest.raises(ValueError, match="is not inside an image"):
        paste(box(-1e9, 0.0, iuv), (32, 16))
    with pytest.raises(ValueError, match="a box at"):
        paste(box(float("nan"), 0.0, iuv), (32, 16))
    with pytest.raises(ValueError, match=r"part ids 0\.\.25.*expected 0\.\.24"):
        paste(box(0.0, 0.0, make_iuv(4, 4, 25)), (32, 16))
    for parts, uv in ((np.zeros((4, 4)), np.zeros((2, 4, 4))), (iuv[..., 0], iuv[..., 1:])):
        with pytest.raises(ValueError, match="expected integers and floats|expected .h, w. and"):
            paste(Detection(0, 0, 1.0, FloatChart(parts, uv)), (32, 16))


def test_claimed_sizes_are_compared_with_the_image_before_pixels_are_read(monkeypatch):
    def read(*_):
        raise AssertionError("pixels were read")

    monkeypatch.setattr(FloatChart, "iuv", read)
    monkeypatch.setattr(PngChart, "iuv", read)
    giant = np.broadcast_to(np.int64(2), (10**5, 10**5))
    uv = np.broadcast_to(np.float32(0.5), (2, 10**5, 10**5))
    for chart in (FloatChart(giant, uv), PngChart((3, 10**5, 10**5), "")):
        with pytest.raises(ValueError, match="a box of 100000 × 100000.*is not inside an image"):
            paste(Detection(0, 0, 1.0, chart), (32, 16))
    for chart in (FloatChart(giant, uv[0]), PngChart((4, 8, 8), ""), PngChart((3, 8), "")):
        with pytest.raises(ValueError, match=r"expected (\[h, w\]|\[3, h, w\])"):
            paste(Detection(0, 0, 1.0, chart), (32, 16))


def test_a_png_of_another_size_than_claimed_is_refused():
    shape, png = encode(make_iuv(24, 8, 2))
    assert PngChart(shape, png).iuv().shape == (24, 8, 3)
    with pytest.raises(ValueError, match="the detection: 24 × 8 .*expected 23 × 8"):
        PngChart((3, 23, 8), png).iuv()


def test_memory_does_not_grow_with_the_number_of_detections():
    iuv = make_iuv(30, 14, 2)
    chart = FloatChart(iuv[..., 0].astype(int), np.zeros((2, 30, 14), np.float32))
    people = DetectedPeople("a", (Detection(0.0, 0.0, 0.9, chart),) * 500)
    tracemalloc.start()
    people.read((256, 256))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * 256 * 256 * 3


def test_cse_dumps_are_reported(tmp_path):
    import torch

    with stand_in(EMBEDDING) as cls:
        found = cls()
        found.embedding = torch.zeros(1, 16, 4, 4)
        torch.save([entry("a.jpg", [[0, 0, 4, 4]], [0.9], found)], tmp_path / "a.pkl")
    with pytest.raises(ValueError, match="CSE model, which writes embeddings, not parts"):
        list(DumpFile(tmp_path / "a.pkl"))


def test_other_content_is_not_a_dump(tmp_path):
    import torch

    torch.save({"state_dict": torch.zeros(1)}, tmp_path / "a.pkl")
    with pytest.raises(ValueError, match="holds a dict, expected the list"):
        DumpFile(tmp_path / "a.pkl")
    for wrong in ({"file_name": "a.jpg", "scores": torch.ones(1)}, {"scores": torch.ones(0)}, 5):
        torch.save([wrong], tmp_path / "a.pkl")
        with pytest.raises(ValueError, match=r"a\.pkl: entry 0 is not a DensePose result"):
            list(DumpFile(tmp_path / "a.pkl"))
    with stand_in(CHART) as cls:
        torch.save([entry("a", [[0, 0, 4, 4]], [0.9], [cls()])], tmp_path / "a.pkl")
    with pytest.raises(ValueError, match="entry 0 is not a DensePose result.*labels"):
        list(DumpFile(tmp_path / "a.pkl"))


# COCO results


def annotations(path, ids):
    images = [{"id": image, "file_name": f"val/{image}.jpg"} for image in ids]
    path.write_text(json.dumps({"images": images}))
    return path


@needs_samples
def test_real_results_give_the_areas_of_their_pngs(tmp_path):
    """An independent count: the PNGs are decoded with OpenCV and nothing is pasted."""
    import base64

    import cv2

    source = ResultsFile(RESULTS, annotations(tmp_path / "a.json", (785, 872, 885)))
    detections = json.loads(RESULTS.read_text())
    items = {item.name: item for item in source}
    assert set(items) == {"val/785.jpg", "val/872.jpg", "val/885.jpg"}
    (alone,) = (d for d in detections if d["image_id"] == 785)
    annotation = items["val/785.jpg"].read((425, 640))
    png = np.frombuffer(base64.b64decode(alone["uv_data"]), np.uint8)
    parts = np.bincount(cv2.imdecode(png, cv2.IMREAD_COLOR)[..., 2].ravel(), minlength=25)
    found = np.bincount(annotation.iuv[..., 0].ravel(), minlength=25)
    assert found[1:].tolist() == parts[1:].tolist() and found.sum() == 425 * 640
    rows, columns = np.nonzero(annotation.labels)
    x, y, width, height = alone["bbox"]
    assert int(x) <= columns.min() and columns.max() < int(x) + width
    assert int(y) <= rows.min() and rows.max() < int(y) + height


def test_wrong_json_is_reported(tmp_path):
    def written(name, content):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    names = annotations(tmp_path / "names.json", [1])
    result = {"image_id": 1, "score": 0.9, "bbox": [0, 0, 4, 4], "uv_shape": [3, 4, 4]}
    results = written("results.json", [result | {"uv_data": "no base64!"}])
    with pytest.raises(
        ValueError, match=r"names\.json: holds a dict.*pass them with --annotations"
    ):
        ResultsFile(names, names)
    with pytest.raises(ValueError, match=r"results\.json: not COCO annotations"):
        ResultsFile(results, results)
    with pytest.raises(ValueError, match=r"cut\.json: expected JSON in UTF-8"):
        ResultsFile(written("cut.json", '[{"image_id": 1'), names)
    with pytest.raises(ValueError, match=r"detection 0 is not a DensePose result \(KeyError"):
        ResultsFile(written("less.json", [result]), names)
    with pytest.raises(ValueError, match="no image has the id 1 that"):
        ResultsFile(results, annotations(tmp_path / "other.json", [2]))
    good = result | {"uv_data": encode(make_iuv(4, 4, 2))[1]}
    wrong = [
        *({"image_id": value} for value in ([1], {"a": 1}, None, 1.5)),
        *({"bbox": value} for value in (None, [0, 0, 4], ["a", 0, 4, 4], [[0], 0, 4, 4])),
        *({"uv_shape": value} for value in (3, ["3", "x", 4], [3, 1e400, 4], None)),
        *({"score": value} for value in (None, "high", [1], math.nan, math.inf)),
    ]
    for change in wrong:
        with pytest.raises(ValueError, match=r"r\.json: detection 0 is not a DensePose result"):
            ResultsFile(written("r.json", [good | change]), names)
    for content in ([[1]], [5], [None], ["a"]):
        with pytest.raises(ValueError, match=r"r\.json: detection 0 is not a DensePose result"):
            ResultsFile(written("r.json", content), names)
    for images in ([{"id": [1], "file_name": "a"}], [{"id": 1}], 5, [None]):
        with pytest.raises(ValueError, match=r"n\.json: not COCO annotations"):
            ResultsFile(results, written("n.json", {"images": images}))
    twice = [{"id": 1, "file_name": name} for name in ("train/1.jpg", "query/1.jpg")]
    with pytest.raises(ValueError, match=r"train/1\.jpg and query/1\.jpg have the same id 1, exp"):
        ResultsFile(results, written("n.json", {"images": twice}))
    ResultsFile(results, written("n.json", {"images": twice[:1] * 2}))
    for data, message in (("no base64!", "damaged or truncated|not base64"), ("", "damaged")):
        (item,) = ResultsFile(written("r.json", [result | {"uv_data": data}]), names)
        with pytest.raises(ValueError, match=message):
            item.read((8, 8))
