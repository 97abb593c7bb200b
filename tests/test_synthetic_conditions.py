"""Conditions of the rendered images: the file describes what was rendered."""

import csv
from dataclasses import replace

import numpy as np
import pytest

from magnifier_plugin.data.annotated import AnnotatedDataset
from magnifier_plugin.evaluation.conditions import conditions_of, read_conditions
from magnifier_plugin.synthetic.camera import look
from magnifier_plugin.synthetic.conditions import COLUMNS, CONDITIONS, measure_visibility, turns
from magnifier_plugin.synthetic.dataset import Synthetic
from magnifier_plugin.synthetic.folder import ensure_rendered
from magnifier_plugin.synthetic.options import SyntheticOptions
from magnifier_plugin.synthetic.person import draw_body, draw_person
from magnifier_plugin.synthetic.plan import GALLERY, QUERY, TRAIN, Shot, make_plan
from magnifier_plugin.synthetic.renderer import render

OPTIONS = SyntheticOptions(
    identities=8, cameras=2, images=3, twins=0.5, occlusion=0.5, height=96, width=48, seed=2
)
SIZE = OPTIONS.height, OPTIONS.width


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("reid-data")
    ensure_rendered(root, OPTIONS, workers=1)
    return root


@pytest.fixture(scope="module")
def lines(root):
    with (root / "synthetic" / CONDITIONS).open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_image_has_its_line(lines):
    plan = make_plan(OPTIONS)
    assert tuple(lines[0]) == COLUMNS
    for line, shot in zip(lines, plan.shots, strict=True):
        person, obstacle = plan.identities[shot.pid - 1], shot.scene.obstacle
        assert line["path"] == f"Market-1501-v15.09.15/{shot.folder}/{shot.name}"
        assert line["occluded_by"] == (obstacle.kind if obstacle else "nothing")
        assert line["occluded"] == ("yes" if obstacle else "no")
        assert (line["twin"], line["twin_detail"]) == (
            str(person.twin or ""),
            person.detail or "",
        )
        assert float(line["heading"]) == shot.scene.heading
    assert {line["twin"] for line in lines} >= {"", "1", "2"}
    assert [line["turned"] for line in lines] == turns(plan.shots)


def test_the_angle_to_the_nearest_heading_of_a_match():
    scene = make_plan(OPTIONS).shots[0].scene

    def shot(pid, camera, heading, folder=GALLERY):
        return Shot("", folder, pid, camera, replace(scene, heading=heading))

    shots = [
        shot(1, 1, 350.0, QUERY),
        shot(1, 2, 10.0),  # 20 degrees from the query, across 0
        shot(1, 3, 200.0),
        shot(1, 2, 351.0, QUERY),  # a query is no match; 151 degrees from camera 3
        shot(2, 1, 0.0, QUERY),
        shot(2, 1, 0.0),  # the same camera
        shot(2, 2, 180.0),
        shot(3, 1, 5.0, QUERY),  # another person
        shot(4, 1, 0.0, TRAIN),
        shot(4, 2, 90.0, TRAIN),
        shot(4, 3, 30.0, TRAIN),
    ]
    bins = ["0–30", "90–180", "90–180", "90–180", "90–180", "90–180", "90–180", ""]
    assert turns(shots) == [*bins, "30–60", "60–90", "30–60"]


def test_visible_fraction_agrees_with_a_larger_image_without_the_obstacle():
    plan = make_plan(OPTIONS)
    seen = set()
    for shot in plan.shots:
        wardrobe, camera = plan.identities[shot.pid - 1].wardrobe, plan.cameras[shot.camera - 1]
        iuv = render(shot.scene, wardrobe, camera, SIZE).iuv
        got = measure_visibility(shot.scene, wardrobe, camera, iuv)
        # The same scale in an image three times as high and wide, the same person in the middle.
        scene = shot.scene
        shift = tuple(value / 3 for value in scene.shift)
        wide = replace(scene, obstacle=None, zoom=scene.zoom / 3, shift=shift)
        whole = render(wide, wardrobe, camera, (3 * SIZE[0], 3 * SIZE[1])).iuv[..., 0] > 0
        height, width = SIZE
        inside = np.count_nonzero(whole[height : 2 * height, width : 2 * width])
        share = np.count_nonzero(iuv[..., 0]) / np.count_nonzero(whole)
        assert got.visible == pytest.approx(share, abs=0.01)
        assert got.cut == (inside < np.count_nonzero(whole))
        seen.add((shot.scene.obstacle is not None, got.cut))
    assert len(seen) == 4


def test_the_body_is_what_the_rendering_labels():
    for shot in make_plan(OPTIONS).shots[:6]:
        plan = make_plan(OPTIONS)
        person = plan.identities[shot.pid - 1].wardrobe, shot.scene.pose, shot.scene.heading
        camera = plan.cameras[shot.camera - 1]
        view = look(camera, person[0].build.height, SIZE, shot.scene.zoom, shot.scene.shift)
        drawn = draw_person(*person, camera, view).iuv[..., 0] > 0
        np.testing.assert_array_equal(draw_body(*person, camera, view), drawn)


def test_a_test_uses_the_data_sets_conditions(root, tmp_path):
    dataset = AnnotatedDataset("synthetic", root, mode="query")
    assert dataset.conditions_file == root / "synthetic" / CONDITIONS
    found = read_conditions(dataset.conditions_file, dataset.dataset_dir)
    conditions = conditions_of(found, [record[0] for record in dataset.query])
    twins = dict(zip((record[1] for record in dataset.query), conditions.twins, strict=True))
    people = make_plan(OPTIONS).identities
    assert twins == {p.pid: str(p.twin or "") for p in people if not p.training}


def test_a_folder_that_was_rendered_without_them_is_used(root, tmp_path):
    ensure_rendered(tmp_path, OPTIONS, workers=1)
    (tmp_path / "synthetic" / CONDITIONS).unlink()
    assert Synthetic(str(tmp_path), verbose=False).conditions_file is None


def test_label_maps_in_masks_dir_replace_the_rendered_ones(root, tmp_path):
    def folder(**options):
        dataset = AnnotatedDataset("synthetic", root, inputs=("mask",), **options)
        return {
            path and path.relative_to(path.parents[4]) for path in dataset.files["labels"].values()
        }

    own = folder(masks_dir=tmp_path)
    assert own == folder()
    assert all("mask_labels/market1501" in str(path) for path in own)
    (tmp_path / "synthetic").mkdir()
    assert folder(masks_dir=tmp_path, max_missing=1) == {None}
