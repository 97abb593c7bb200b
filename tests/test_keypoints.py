"""Files of every pose estimator become label maps; wrong ones are reported, not guessed."""

import json
import tracemalloc

import numpy as np
import pytest
from mask_inputs import save_photo, script
from poses import (
    FORMATS,
    SIZE,
    flat,
    person,
    without,
    write_coco,
    write_openpifpaf,
    write_openpose,
    write_ultralytics,
)

from magnifier_plugin.annotators.body_drawing import draw_body
from magnifier_plugin.annotators.joints import (
    COCO,
    FEET,
    JOINTS,
    OPENPOSE_18,
    OPENPOSE_25,
    arrange,
)
from magnifier_plugin.annotators.keypoint_files import Person
from magnifier_plugin.annotators.keypoints import KeypointSource, annotate
from magnifier_plugin.masks.checking import check_manifest
from magnifier_plugin.masks.label_maps import read_labels
from magnifier_plugin.masks.manifest import read_manifest
from magnifier_plugin.regions import UNKNOWN

NAME = "0002_c1s1_000451_03"


@pytest.fixture
def folder(tmp_path):
    """The folder of the estimator's files."""
    (tmp_path / "found").mkdir()
    return tmp_path / "found"


@pytest.fixture
def run(tmp_path):
    """Converts keypoints for one photo; returns the exit status and the label map's path."""
    market, out = tmp_path / "market1501", tmp_path / "masks" / "market1501"
    save_photo(market / "bounding_box_train" / f"{NAME}.jpg", *SIZE)

    def run(path, *options):
        arguments = ["--source", "keypoints", "--keypoints", path, *options]
        arguments += ["--images", market, "--out", out]
        status = script("convert_masks").main([str(argument) for argument in arguments])
        return status, out / "bounding_box_train" / f"{NAME}.png"

    return run


def read(path, annotations=None, size=SIZE, **options):
    """The only annotation of a source."""
    (item,) = KeypointSource(path, annotations, **options)
    return item.read(size)


# Formats

# From each estimator's documentation: the numbers of the points in the order of JOINTS.
# fmt: off
NUMBERS = {
    OPENPOSE_25: [0, 16, 15, 18, 17, 5, 2, 6, 3, 7, 4, 12, 9, 13, 10, 14, 11,
                  19, 20, 21, 22, 23, 24],
    OPENPOSE_18: [0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10],
    COCO: list(range(17)),
    FEET: [None] * 17 + list(range(6)),
}
COCOS_NAMES = (
    "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow "
    "right_elbow left_wrist right_wrist left_hip right_hip left_knee right_knee left_ankle "
    "right_ankle left_big_toe left_small_toe left_heel right_big_toe right_small_toe right_heel"
)
# fmt: on


@pytest.mark.parametrize("order", NUMBERS, ids=["OpenPose 25", "OpenPose 18", "COCO", "feet"])
def test_every_number_is_its_joint(order):
    assert [name.replace(" ", "_") for name in JOINTS] == COCOS_NAMES.split()
    points = np.arange(3.0 * len(order)).reshape(-1, 3) + 1
    arranged = arrange(points, order)
    for row, number in enumerate(NUMBERS[order]):
        assert arranged[row].tolist() == ([0, 0, 0] if number is None else points[number].tolist())
    assert not arranged[len(NUMBERS[order]) :].any()


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_drawing_of_its_points(run, folder, name):
    status, label = run(FORMATS[name](folder, NAME, [person()]))
    expected = person() if name == "OpenPose 25" else without(person(), *FEET)
    assert status == 0
    # Ultralytics writes only six digits, so pixels on the border of two limbs can differ.
    assert (read_labels(label) == draw_body(expected, SIZE)).mean() > 0.999
    assert check_manifest(label.parents[1], "keypoints").source == "keypoints"


def test_numbered_images_are_named_by_annotations(run, folder, capsys):
    results = write_coco(folder / "r.json", {7: [person()]}, feet=True)
    images = folder / "images.json"
    content = {"images": [{"id": 7, "file_name": f"train/{NAME}.jpg", "height": 128, "width": 64}]}
    images.write_text(json.dumps(content))
    status, label = run(results, "--annotations", images)
    assert status == 0
    np.testing.assert_array_equal(read_labels(label), draw_body(person(), SIZE))
    assert run(results)[0] == 2
    assert "result 0: image_id 7, expected a file's name; --annotations" in capsys.readouterr().err
    content["images"][0] |= {"height": 256, "width": 128}
    images.write_text(json.dumps(content))
    assert run(results, "--annotations", images, "--overwrite")[0] == 1
    assert "256 × 128 (height × width), but the image is 128 × 64" in capsys.readouterr().out
    content["images"][0]["id"] = 8
    images.write_text(json.dumps(content))
    assert run(results, "--annotations", images)[0] == 2
    assert "images.json: no image has the id 7 that" in capsys.readouterr().err


def test_files_of_one_format_at_any_depth(folder):
    write_openpose(folder / "a", "x", [person()])
    write_openpose(folder / "b", "y", [person()])
    names = [item.name for item in KeypointSource(folder)]
    assert [name.removeprefix(f"{folder}/") for name in names] == ["a/x", "b/y"]
    (folder / "readme.txt").write_text("Market-1501\n\n1501 people\n")  # among its images
    (folder / "train.txt").write_text("a/x.jpg 0\n")
    assert len(list(KeypointSource(folder))) == 2
    write_ultralytics(folder, "z", [person()])
    with pytest.raises(ValueError, match=r"several pose estimators, .*OpenPose.*Ultralytics"):
        KeypointSource(folder)
    with pytest.raises(ValueError, match=r"images\.json: not needed"):
        KeypointSource(folder / "a", folder / "images.json")


def test_files_next_to_the_images(run, tmp_path):
    images = tmp_path / "market1501" / "bounding_box_train"
    assert run(write_openpifpaf(images, NAME, [person()]))[0] == 0


def test_ultralytics_without_the_boxs_confidence(folder):
    write_ultralytics(folder, NAME, [person()], confidence=False)
    expected = draw_body(without(person(), *FEET), SIZE)
    assert (read(folder, min_score=0.71).labels == expected).mean() > 0.999
    write_ultralytics(folder, NAME, [person()])
    assert read(folder, min_score=0.71) is None


# Scores


@pytest.mark.parametrize(
    "place", [(0, 0, 0), (40.0, 80.0, 0.29), (0.0, 0.0, 0.9)], ids=["zeros", "low", "corner"]
)
def test_points_that_were_not_found(folder, place):
    write_openpose(folder, NAME, [person(left_wrist=place)])
    labels = read(folder).labels
    np.testing.assert_array_equal(labels, draw_body(without(person(), "left wrist"), SIZE))


def test_min_score_arrives(run, folder):
    points = person(left_wrist=(55, 75, 0.5))
    path = write_coco(folder / "r.json", {f"{NAME}.jpg": [points]})
    for score, expected in (("0.4", points), ("0.6", without(points, "left wrist"))):
        status, label = run(path, "--min-score", score, "--overwrite")
        drawn = draw_body(without(expected, *FEET), SIZE)
        assert status == 0 and np.array_equal(read_labels(label), drawn)


def test_confidences_above_one_and_visibilities(folder):
    expected = draw_body(without(person(), *FEET), SIZE)
    for factor in (2 / 0.9, 6.3):
        points = person() * (1, 1, factor)
        path = write_coco(folder / "r.json", {NAME: [points]}, score=3.1)
        np.testing.assert_array_equal(read(path).labels, expected)


# People


def small(points, factor=0.4, right=0.0, down=0.0):
    points = points.copy()
    points[:, :2] = points[:, :2] * factor + (right, down)
    return points


def test_the_person_in_the_middle_is_drawn(folder):
    found = [small(person(), right=0), person()]
    write_openpifpaf(folder, NAME, found)
    annotation = read(folder)
    expected = draw_body(without(person(), *FEET), SIZE)
    np.testing.assert_array_equal(annotation.labels, expected)
    assert annotation.ambiguity == ""
    write_openpifpaf(folder, NAME, [person(), small(person(), 1, right=3)])
    assert "two people in the middle" in read(folder).ambiguity


def test_an_unlikely_person_makes_no_choice_ambiguous(folder):
    """min_score applies to whole people if the file gives them a score."""
    path = write_coco(folder / "r.json", {NAME: [small(person(), 1, right=3)]}, score=0.2)
    entries = json.loads(path.read_text())
    entries += json.loads(write_coco(folder / "s.json", {NAME: [person()]}).read_text())
    path.write_text(json.dumps(entries))
    annotation = read(path)
    np.testing.assert_array_equal(annotation.labels, draw_body(without(person(), *FEET), SIZE))
    assert annotation.ambiguity == ""


def test_an_image_without_people_has_no_label_map(run, folder, tmp_path, capsys):
    for found in ([], [without(person(), *JOINTS[2:])]):  # no person; too few points to draw
        status, label = run(write_openpose(folder, NAME, found))
        assert status == 0 and not label.exists()
        assert (
            "0 converted\n          0 already there\n          1 images" in capsys.readouterr().out
        )
        missing = (tmp_path / "masks" / "market1501" / "missing.txt").read_text()
        assert missing == f"bounding_box_train/{NAME}.jpg\n"
    assert read_manifest(tmp_path / "masks" / "market1501").label_set == "keypoints"


# Wrong input


def scaled(factor, shift=0.0):
    points = person()
    points[:, :2] = points[:, :2] * factor + shift
    return points


SHARES = (1 / 64, 1 / 128)


@pytest.mark.parametrize("name", ["COCO", "OpenPifPaf", "OpenPose 25", "OpenPose 18"])
@pytest.mark.parametrize(
    ("points", "message"),
    [
        (scaled(SHARES), "all coordinates are between -1 and 1, expected pixels"),
        (scaled(np.multiply(SHARES, 2), -1), "all coordinates are between -1 and 1"),
        (scaled(2), r"far outside an image of 128 × 64 \(height × width\), expected pixels"),
        (person(left_wrist=(64 + 33, 60, 0.9)), r"left wrist at \(97, 60\) is far outside"),
        (person(left_wrist=(-33, 60, 0.9)), r"left wrist at \(-33, 60\) is far outside"),
        (person(left_knee=(9, 1e300, 0.9)), "left knee at .* is far outside"),
    ],
)
def test_coordinates_of_another_scale(run, folder, capsys, name, points, message):
    path = FORMATS[name](folder, NAME, [points])
    with pytest.raises(ValueError, match=message):
        read(path)
    assert run(path)[0] == 1
    assert "1 failed (" in capsys.readouterr().out


def test_a_joint_a_little_outside_is_drawn(folder):
    points = person(left_wrist=(64 + 31, 60, 0.9))
    write_openpose(folder, NAME, [points])
    np.testing.assert_array_equal(read(folder).labels, draw_body(points, SIZE))


def test_pixels_where_fractions_are_expected(folder):
    write_ultralytics(folder, NAME, [person()], size=(1, 1))
    with pytest.raises(
        ValueError, match=rf"{NAME}\.txt: .* expected fractions of the image's size"
    ):
        read(folder)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ([0.5] * 50, r"50 numbers, expected 51 \(17 points\): x, y and confidence"),
        ([0.5] * 399, "399 numbers, expected 51"),
        ([], "0 numbers, expected 51"),
        ([0.5] * 50 + [None], "not a number"),
        ([0.5] * 50 + [10**400], "not a number"),
        ([0.5] * 50 + [float("nan")], "a number is not finite"),
        ([0.5] * 50 + [[1]], "not a number"),
        ("0" * 51, "no list `keypoints`"),
        (None, "no list `keypoints`"),
    ],
)
def test_other_numbers_of_keypoints(folder, numbers, message):
    entry = {"image_id": NAME, "keypoints": numbers, "score": 0.8}
    (folder / "r.json").write_text(json.dumps([entry]))
    with pytest.raises(ValueError, match=rf"r\.json: result 0: {message}"):
        KeypointSource(folder / "r.json")
    (folder / f"{NAME}.jpg.predictions.json").write_text(json.dumps([entry]))
    with pytest.raises(ValueError, match=rf"predictions\.json: person 0: {message}"):
        read(folder)


@pytest.mark.parametrize(
    ("suffix", "content", "message"),
    [
        (".predictions.json", "[[", "expected JSON in UTF-8, found other"),
        (".predictions.json", "{}", "holds a dict, expected OpenPifPaf's list"),
        (".predictions.json", "[5]", "person 0: no list `keypoints`"),
        (".predictions.json", json.dumps([{}] * 1001), "1,001 people, expected at most 1,000"),
        ("_keypoints.json", "[]", "not OpenPose's output.*--keypoints FILE.json"),
        ("_keypoints.json", '{"people": 5}', "not OpenPose's output"),
        ("_keypoints.json", '{"people": [{}]}', "person 0: no list `pose_keypoints_2d`"),
        (
            "_keypoints.json",
            json.dumps({"people": [{"pose_keypoints_2d": [0] * 51}]}),
            r"51 numbers, expected 75 \(25 points\) or 54 \(18 points\)",
        ),
        (".txt", "0 0.5 0.5 0.1 0.1", "5 numbers, expected class, box, 17 points"),
        (".txt", "read me", "2 numbers, .*is it the output of a pose model"),
        (".txt", " ".join(["x"] * 56), "not a number"),
        (".txt", b"\xff\xfe", "not a text file"),
    ],
)
def test_damaged_files_are_named(folder, suffix, content, message):
    path = folder / f"{NAME}{suffix}"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=rf"{NAME}.*: {message}"):
        read(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": []}, "holds a dict, .* keypoint results; these are COCO annotations"),
        ([5], "result 0: no list `keypoints`"),
        ([{"keypoints": flat(person())}], "result 0: image_id None, expected a file's name"),
        (
            [{"image_id": "a", "keypoints": flat(person()), "score": "high"}],
            "result 0: not a number",
        ),
        (
            [{"image_id": "a", "keypoints": flat(person()), "foot_kpts": [0] * 3}],
            r"result 0: 3 numbers, expected 18 \(6 points\)",
        ),
        *(
            (
                [{"image_id": "a", "keypoints": flat(person()), "foot_kpts": wrong}],
                "result 0: no list `foot_kpts`",
            )
            for wrong in (None, 5, "0" * 18)
        ),
    ],
)
def test_damaged_results_are_refused(folder, content, message):
    (folder / "r.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"r\.json: {message}"):
        KeypointSource(folder / "r.json")
    with pytest.raises(FileNotFoundError):
        KeypointSource(folder / "absent.json")
    with pytest.raises(ValueError, match=r"contains no \*\.predictions\.json or .* or \*\.txt"):
        KeypointSource(folder)


def test_names_that_match_nothing(run, folder, capsys):
    assert run(write_openpose(folder, "another", [person()]))[0] == 2
    error = capsys.readouterr().err
    assert "no annotation has the name of an image" in error and "another" in error


def test_keypoints_give_no_iuv(run, folder, capsys):
    assert run(write_openpose(folder, NAME, [person()]), "--keep-iuv")[0] == 2
    assert "source keypoints has no IUV" in capsys.readouterr().err


def test_people_below_the_limit_are_left_out_in_any_number():
    guess = Person(person(), 0.1)
    assert annotate([guess] * 3, SIZE) is None
    labels = annotate([guess, Person(person(), 0.9)], SIZE).labels
    np.testing.assert_array_equal(labels, draw_body(person(), SIZE))
    assert UNKNOWN not in labels


def test_memory_does_not_grow_with_the_number_of_people():
    size, found = (512, 256), Person(person() * (4, 4, 1), 0.9)
    peaks = []
    for number in (2, 40):
        tracemalloc.start()
        annotate([found] * number, size)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + size[0] * size[1]  # less than one more label map
