"""Exact keypoints of the rendered people: on the body, visible, hidden, outside the image."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from magnifier_plugin.annotators.coco import read_results
from magnifier_plugin.annotators.densepose import read_iuv
from magnifier_plugin.annotators.joints import COCO, FEET, JOINTS
from magnifier_plugin.annotators.keypoint_files import from_coco
from magnifier_plugin.annotators.keypoints import KeypointSource
from magnifier_plugin.regions import PARTS
from magnifier_plugin.synthetic.camera import Camera
from magnifier_plugin.synthetic.dataset import Synthetic
from magnifier_plugin.synthetic.folder import DENSEPOSE, ensure_rendered
from magnifier_plugin.synthetic.keypoints import KEYPOINTS, project
from magnifier_plugin.synthetic.obstacle import Obstacle
from magnifier_plugin.synthetic.options import SyntheticOptions
from magnifier_plugin.synthetic.plan import make_plan
from magnifier_plugin.synthetic.pose import Pose
from magnifier_plugin.synthetic.renderer import Scene, render
from magnifier_plugin.synthetic.wardrobe import Wardrobe

SIZE = (256, 128)
LEVEL = Camera(1, 0.0, 0.0, (1.0, 1.0, 1.0), 1.0, 1.0, 0.5, 0.01, 90, (90.0, 45.0), 0.5, 7)
OPTIONS = SyntheticOptions(
    identities=4, cameras=2, images=3, twins=0.0, occlusion=0.5, height=96, width=48, seed=2
)
HIDDEN, SEEN = 1, 2


def shown(heading=0.0, pose=None, obstacle=None, zoom=1.0, shift=(0.0, 0.0)):
    """One person's keypoints by joint, and DensePose parts."""
    scene = Scene(pose or Pose(), heading, zoom, shift, obstacle, (1, 2, 3))
    iuv = render(scene, Wardrobe(), LEVEL, SIZE).iuv
    points = project(scene, Wardrobe(), LEVEL, iuv)
    return dict(zip(JOINTS, points, strict=True)), iuv[..., 0]


def border(parts, upper, lower):
    """The row of the border between two parts, named without side and chart."""
    rows = [
        np.nonzero(np.isin(parts, [i for i, part in enumerate(PARTS) if name in part]))[0]
        for name in (upper, lower)
    ]
    return (rows[0].max() + rows[1].min()) / 2


@pytest.mark.parametrize(
    ("joint", "upper", "lower", "tolerance"),
    [
        ("knee", "upper leg", "lower leg", 8),
        ("elbow", "upper arm", "lower arm", 6),
        ("wrist", "lower arm", "hand", 8),
        ("ankle", "lower leg", "foot", 8),
    ],
)
def test_joints_are_where_two_parts_meet(joint, upper, lower, tolerance):
    points, parts = shown()
    for side in ("left", "right"):
        found = border(parts, f"{side} {upper}", f"{side} {lower}")
        assert points[f"{side} {joint}"][1] == pytest.approx(found, abs=tolerance)


@pytest.mark.parametrize(("heading", "sign"), [(0, 1), (180, -1)])
def test_left_is_the_persons_left(heading, sign):
    points, _ = shown(heading)
    for name in ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle", "heel"):
        left, right = points[f"left {name}"][0], points[f"right {name}"][0]
        assert sign * (left - right) > 3, name
        assert left + right == pytest.approx(SIZE[1] - 1, abs=0.1)


def test_the_face_is_seen_only_from_the_front():
    for heading, seen in ((0, SEEN), (180, HIDDEN)):
        points, _ = shown(heading)
        assert {points[name][2] for name in ("nose", "left eye", "right eye")} == {seen}
    points, _ = shown(90)  # walks to the image's right: the right side is the near one
    assert (points["right ear"][2], points["left ear"][2]) == (SEEN, HIDDEN)
    assert points["nose"][0] > points["right ear"][0] + 5


def test_visible_joints_are_on_their_own_parts_and_others_hidden():
    pole = Obstacle("pole", right=0.1, width=0.2, height=3.0)
    for obstacle in (None, pole):
        points, parts = shown(20.0, obstacle=obstacle)
        for joint, (x, y, visibility) in points.items():
            part = PARTS[parts[round(y), round(x)]]
            side, _, name = joint.partition(" ")
            if visibility == SEEN and name in ("elbow", "wrist", "knee", "ankle"):
                assert part.startswith(side), (joint, part)
            assert part != "background" or visibility == HIDDEN, joint
    hidden = {joint for joint, point in points.items() if point[2] == HIDDEN}
    assert {"left shoulder", "left hip"} <= hidden
    assert "right elbow" not in hidden


def test_joints_outside_the_image_are_not_found():
    points, _ = shown(zoom=1.7, shift=(0.0, 0.33))
    for joint in ("left ankle", "right knee", "left big toe"):
        assert points[joint].tolist() == [0, 0, 0]
    assert points["nose"][2] == SEEN


def test_they_agree_with_the_same_person_in_a_larger_image():
    points, _ = shown(35.0)
    scene = Scene(Pose(), 35.0, 1.0, (0.0, 0.0), None, (1, 2, 3))
    double = project(scene, Wardrobe(), LEVEL, np.zeros((512, 256, 3), np.uint8))
    for small, large in zip(points.values(), double, strict=True):
        np.testing.assert_allclose((large[:2] + 0.5) / 2, small[:2] + 0.5, atol=0.01)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return ensure_rendered(tmp_path_factory.mktemp("reid-data"), OPTIONS, workers=1)


def test_the_file_holds_every_image(folder):
    plan, results = make_plan(OPTIONS), read_results(folder / KEYPOINTS, "keypoint")
    for shot, result in zip(plan.shots, results, strict=True):
        assert result["image_id"] == f"Market-1501-v15.09.15/{shot.folder}/{shot.name}"
        assert (folder / "market1501" / result["image_id"]).is_file()
        assert (len(result["keypoints"]), len(result["foot_kpts"])) == (51, 18)
        wardrobe, camera = plan.identities[shot.pid - 1].wardrobe, plan.cameras[shot.camera - 1]
        iuv = read_iuv(folder / DENSEPOSE / shot.name.replace(".jpg", "_IUV.png"))
        expected = project(shot.scene, wardrobe, camera, iuv)
        np.testing.assert_allclose(from_coco(result).points, expected, atol=0.006)
        x, y, width, height = result["bbox"]
        seen = expected[expected[:, 2] > 0]
        assert (x, y) == pytest.approx(seen[:, :2].min(axis=0), abs=0.02)
        assert (x + width, y + height) == pytest.approx(seen[:, :2].max(axis=0), abs=0.02)
    kinds = {shot.scene.obstacle and shot.scene.obstacle.kind for shot in plan.shots}
    assert {"frame", None} < kinds


def test_they_are_a_source_of_label_maps(folder):
    names = {item.name for item in KeypointSource(folder / KEYPOINTS)}
    photos = (folder / "market1501").rglob("*.jpg")
    assert names == {str(photo.relative_to(folder / "market1501")) for photo in photos}
    assert len(COCO) + len(FEET) == len(JOINTS)


def test_a_folder_that_was_rendered_without_them_is_used(folder, tmp_path):
    assert Synthetic(str(folder.parent), verbose=False).keypoints_file == folder / KEYPOINTS
    older = replace(OPTIONS, images=1)
    target = ensure_rendered(tmp_path, older, workers=1)
    (target / KEYPOINTS).unlink()
    assert Synthetic(str(tmp_path), options=older, verbose=False).keypoints_file is None


def test_photos_and_iuv_do_not_depend_on_them(folder, monkeypatch, tmp_path):
    from magnifier_plugin.synthetic import folder as module

    monkeypatch.setattr(module, "project", lambda *person: np.zeros((len(JOINTS), 3)))
    again = ensure_rendered(tmp_path, OPTIONS, workers=1)
    for photo in (*folder.rglob("*.jpg"), *(folder / DENSEPOSE).iterdir()):
        other = again / photo.relative_to(folder)
        assert np.array_equal(Image.open(photo), Image.open(other))
    assert json.loads((again / KEYPOINTS).read_text())[0]["bbox"] == [0, 0, 0, 0]
