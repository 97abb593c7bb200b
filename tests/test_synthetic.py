"""The embedded pedestrians: exact labels, Market-1501's rules, the same bytes every time."""

import json
import threading
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torchreid
from PIL import Image

from magnifier_plugin.data.synthetic import folder as folder_module
from magnifier_plugin.data.synthetic.body import Garment
from magnifier_plugin.data.synthetic.camera import Camera, look
from magnifier_plugin.data.synthetic.charts import SEGMENTS, Surface, to_iuv
from magnifier_plugin.data.synthetic.folder import DENSEPOSE, MARKET, PARAMETERS, ensure_rendered
from magnifier_plugin.data.synthetic.obstacle import KINDS, Obstacle, random_obstacle
from magnifier_plugin.data.synthetic.person import draw_person
from magnifier_plugin.data.synthetic.plan import (
    GALLERY,
    QUERY,
    TRAIN,
    SyntheticOptions,
    make_plan,
)
from magnifier_plugin.data.synthetic.pose import Pose, random_pose, walk
from magnifier_plugin.data.synthetic.renderer import Scene, render
from magnifier_plugin.data.synthetic.wardrobe import Wardrobe, near_twin, random_wardrobe
from magnifier_plugin.regions import MIRRORED_PART, NUM_PARTS, PARTS

WALKER = Path(__file__).parents[2] / "shared/data/densepose/crops/walker_IUV.png"
TINY = SyntheticOptions(identities=4, cameras=2, images=2, height=64, width=32, seed=3)
SIZE = (256, 128)
LEVEL = Camera(1, 0.0, 0.0, (1.0, 1.0, 1.0), 1.0, 1.0, 0.5, 0.01, 90, (90.0, 45.0), 0.5, 7)

# method.md, section 3: for each part, where U and where V grow in the image.
FROM_THE_FRONT = {
    2: ("down", "left"),
    9: ("up", "right"),
    10: ("up", "left"),
    13: ("down", "left"),
    14: ("down", "right"),
    15: ("down", "right"),
    16: ("down", "left"),
    19: ("up", "left"),
    20: ("up", "right"),
    23: ("right", "up"),
    24: ("right", "up"),
}
FROM_BEHIND = {
    1: ("down", "right"),
    7: ("down", "right"),
    8: ("down", "left"),
    11: ("up", "right"),
    12: ("up", "left"),
}


def iuv_of(heading, pose=None, wardrobe=None, pitch=0.0):
    """Labels of one person, at 256 x 128, as int so that differences do not wrap."""
    wardrobe = wardrobe or Wardrobe()
    camera = replace(LEVEL, pitch=pitch)
    view = look(camera, wardrobe.build.height, SIZE)
    figure = draw_person(wardrobe, pose or Pose(), heading, camera, view)
    return figure.iuv.astype(int)


def scene(obstacle=None, heading=20.0, zoom=1.0):
    return Scene(walk(0.7, 0.8), heading, zoom, (0.0, 0.0), obstacle, (1, 2, 3))


def direction(values, rows, columns):
    """Where values grow in the image: the stronger of the two axes, and its correlation."""
    down, right = (np.corrcoef(values, axis)[0, 1] for axis in (rows, columns))
    if abs(down) > abs(right):
        return ("down" if down > 0 else "up"), abs(down)
    return ("right" if right > 0 else "left"), abs(right)


def tree(root):
    """Every file below a folder and its bytes."""
    files = (file for file in sorted(root.rglob("*")) if file.is_file())
    return {str(file.relative_to(root)): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    root = tmp_path_factory.mktemp("reid-data")
    return ensure_rendered(root, TINY, workers=1)


# Charts


@pytest.mark.parametrize(
    ("heading", "part", "expected"),
    [(0, part, expected) for part, expected in FROM_THE_FRONT.items()]
    + [(180, part, expected) for part, expected in FROM_BEHIND.items()],
)
def test_charts_run_as_densepose_draws_them(heading, part, expected):
    iuv = iuv_of(heading)
    rows, columns = np.nonzero(iuv[..., 0] == part)
    assert len(rows) > 40
    for channel, where in ((1, expected[0]), (2, expected[1])):
        found, strength = direction(iuv[rows, columns, channel], rows, columns)
        assert (found, PARTS[part]) == (where, PARTS[part])
        assert strength > 0.8


def test_head_runs_on_over_the_seam_of_the_face():
    iuv = iuv_of(0)
    right, left = (iuv[..., 0] == PARTS.index(f"head {side}") for side in ("right", "left"))
    # U rises to 1 on the right half and goes on from 0 on the left one.
    assert iuv[..., 1][right].max() > 240
    assert iuv[..., 1][left].min() < 15
    assert np.nonzero(right)[1].mean() < np.nonzero(left)[1].mean()


@pytest.mark.parametrize(
    ("heading", "seen", "unseen"),
    [(0, (2, 9, 10, 13, 14), (1, 7, 8, 11, 12)), (180, (1, 7, 8, 11, 12), (2, 9, 10, 13, 14))],
)
def test_front_and_back_show_their_own_parts(heading, seen, unseen):
    count = Counter(iuv_of(heading)[..., 0].ravel().tolist())
    for front, back in zip(seen, unseen, strict=True):
        assert count[front] > 20 * max(count[back], 1)
    inner, outer = count[15] + count[16], count[17] + count[18]
    assert (inner > outer) == (heading == 0)


@pytest.mark.parametrize(("heading", "left_at_right"), [(0, True), (180, False)])
def test_left_is_the_persons_left(heading, left_at_right):
    part = iuv_of(heading)[..., 0]
    for name in PARTS:
        if not name.startswith("left"):
            continue
        left, right = part == PARTS.index(name), part == PARTS.index(name.replace("left", "right"))
        if left.sum() > 20 and right.sum() > 20:
            left_x, right_x = np.nonzero(left)[1].mean(), np.nonzero(right)[1].mean()
            assert (left_x > right_x) == left_at_right, name


@pytest.mark.parametrize("heading", [15, 60, 140, 250])
def test_a_mirrored_person_has_mirrored_labels(heading):
    pose = replace(walk(0.9, 0.9), head_yaw=20.0)
    swapped = {name: value[::-1] for name, value in asdict(pose).items() if type(value) is tuple}
    mirrored = iuv_of(-heading, replace(pose, **swapped, head_yaw=-20.0), pitch=12.0)[:, ::-1]
    iuv = iuv_of(heading, pose, pitch=12.0)
    part = MIRRORED_PART[mirrored[..., 0]]
    same = part == iuv[..., 0]
    assert same.mean() > 0.999
    body = same & (part > 0)
    names = np.array([name.split()[-1] for name in PARTS])[part]
    u, v = mirrored[..., 1], mirrored[..., 2]
    ends = np.isin(names, ("hand", "foot")) | np.isin(part, (23, 24))
    u = np.where(ends, 255 - u, u)
    v = np.where(np.isin(part, (1, 2)), 255 - v, v)
    off = np.maximum(np.abs(u - iuv[..., 1]), np.abs(v - iuv[..., 2]))[body]
    assert (off <= 2).mean() > 0.995


def test_charts_agree_with_densepose_on_a_photograph():
    if not WALKER.exists():
        pytest.skip(f"{WALKER} is not here")
    v, u, part = np.moveaxis(np.asarray(Image.open(WALKER)).astype(int), -1, 0)
    real = np.stack([part, u, v], axis=-1)
    ours = iuv_of(0)
    # Where both show a part well, U and V run the same way and lie in the same place.
    for number in (2, 9, 10, 13, 14, 15, 16, 19, 20, 23, 24):
        for channel in (1, 2):
            runs = []
            for iuv in (real, ours):
                rows, columns = np.nonzero(iuv[..., 0] == number)
                runs.append(direction(iuv[rows, columns, channel], rows, columns)[0])
            assert runs[0] == runs[1], PARTS[number]
            places = [np.median(iuv[iuv[..., 0] == number][:, channel]) for iuv in (real, ours)]
            assert abs(places[0] - places[1]) < 64, PARTS[number]


def test_every_part_is_seen_from_somewhere_and_fills_its_chart():
    rng = np.random.default_rng(0)
    seen = np.concatenate(
        [
            iuv_of(heading, random_pose(rng), pitch=10.0).reshape(-1, 3)
            for heading in range(0, 360, 30)
        ]
    )
    for part in range(1, NUM_PARTS + 1):
        uv = seen[seen[:, 0] == part][:, 1:]
        assert len(uv) > 50, PARTS[part]
        assert (np.ptp(uv, axis=0) > 120).all(), PARTS[part]


def test_uv_beyond_a_segments_ends_is_clipped():
    torso = np.array([SEGMENTS.index("torso")] * 2)
    s, w = np.array([-0.5, 1.5], np.float32), np.array([0.0, 1.0], np.float32)
    iuv = to_iuv(Surface(torso, s, w, np.array([0, 1])))
    assert iuv.tolist() == [[2, 0, 0], [1, 255, 255]]


# Occlusion


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "frame"])
def test_occluded_pixels_have_no_part_and_the_others_are_unchanged(kind):
    camera = replace(LEVEL, pitch=10.0)
    obstacle = random_obstacle(kind, np.random.default_rng(4))
    free = render(scene(), Wardrobe(), camera, SIZE).iuv
    hidden = render(scene(obstacle), Wardrobe(), camera, SIZE).iuv
    covered = (free != hidden).any(axis=-1)
    assert 0.05 < covered[free[..., 0] > 0].mean() < 0.9
    assert not hidden[covered].any()


def test_a_pole_hides_exactly_what_is_behind_it():
    pole = Obstacle("pole", right=0.0, width=0.2, height=3.0)
    free, hidden = (render(scene(one), Wardrobe(), LEVEL, SIZE).iuv for one in (None, pole))
    view = look(LEVEL, Wardrobe().build.height, SIZE)
    behind = (np.abs(view.x) < 0.1)[None, :] & (view.y > 0)[:, None]
    assert not hidden[behind].any()
    assert (hidden[~behind] == free[~behind]).all()


@pytest.mark.parametrize("bag", ["backpack", "shoulder bag", "handbag"])
def test_bags_are_no_part_of_the_body(bag):
    for heading in (30, 150, 270):
        bare, laden = (iuv_of(heading, wardrobe=Wardrobe(bag=kind)) for kind in ("none", bag))
        changed = (bare != laden).any(axis=-1)
        assert not laden[changed].any()
    assert changed.any() or bag == "handbag"


def test_the_body_under_a_skirt_is_labelled():
    bare, skirt = (
        iuv_of(0, wardrobe=Wardrobe(bottom=b, width="slim")) for b in ("shorts", "skirt")
    )
    assert set(np.unique(skirt[..., 0])) == set(np.unique(bare[..., 0]))


# The cast


@pytest.mark.parametrize(("people", "twins"), [(4, 1.0), (6, 1.0), (7, 1.0), (10, 0.4), (64, 0.5)])
def test_share_of_twins(people, twins):
    plan = make_plan(SyntheticOptions(identities=people, twins=twins, images=1, cameras=2))
    paired = [person for person in plan.identities if person.twin]
    assert len(paired) == 2 * int(twins * people / 2 + 0.5) or len(paired) == people - 1
    for person in paired:
        other = plan.identities[person.twin - 1]
        assert (other.twin, other.training, other.detail) == (
            person.pid,
            person.training,
            person.detail,
        )
        one, two = asdict(person.wardrobe), asdict(other.wardrobe)
        assert [name for name in one if one[name] != two[name]] == [person.detail]
    training = sum(person.training for person in plan.identities)
    assert training in (people // 2, people // 2 - 1)


def test_a_twins_detail_is_seen_from_some_side():
    rng = np.random.default_rng(11)
    for _ in range(12):
        first = random_wardrobe(rng)
        second, detail = near_twin(first, rng)
        view = look(LEVEL, first.build.height, (128, 64))
        most = 0.0
        for heading in (0, 90, 180, 270):
            one, two = (
                draw_person(w, walk(0.5, 0.6), heading, LEVEL, view) for w in (first, second)
            )
            most = max(most, float((np.abs(one.colour - two.colour).max(axis=0) > 0.12).sum()))
        assert most > 12, (detail, first, second)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_share_of_occluded_images(share):
    options = SyntheticOptions(identities=5, cameras=3, images=3, occlusion=share)
    kinds = [shot.scene.obstacle.kind for shot in make_plan(options).shots if shot.scene.obstacle]
    assert len(kinds) == int(share * 45 + 0.5)
    assert set(kinds) == (set(KINDS) if share else set())


def test_more_cameras_change_nobodys_clothes():
    few, many = (make_plan(replace(TINY, cameras=count)) for count in (2, 4))
    assert few.identities == many.identities


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"cameras": 7}, "cameras: expected 2..6"),
        ({"cameras": 1}, "cameras: expected 2..6"),
        ({"identities": 1502}, "identities: expected 4..1501"),
        ({"identities": 3}, "identities: expected 4..1501"),
        ({"images": 0}, "images: expected 1..99"),
        ({"twins": 1.1}, "twins: expected 0..1"),
        ({"twins": float("nan")}, "twins: expected 0..1"),
        ({"occlusion": -0.1}, "occlusion: expected 0..1"),
        ({"height": 63}, "height: expected 64"),
        ({"width": 31}, "width: expected 32"),
        ({"seed": -1}, "seed: expected 0"),
        ({"images": 2.5}, "images: expected a whole number, got 2.5"),
        ({"twins": "half"}, "twins: expected a number"),
    ],
)
def test_refused_options(wrong, message):
    with pytest.raises(ValueError, match=message):
        SyntheticOptions(**wrong)


# The folder


def test_the_same_bytes_whatever_the_workers(rendered, tmp_path):
    again = ensure_rendered(tmp_path, TINY, workers=2)
    assert tree(again) == tree(rendered)
    assert [file.name for file in tmp_path.iterdir()] == ["synthetic"]


def test_another_seed_gives_other_pictures():
    one, two = (make_plan(replace(TINY, seed=seed)) for seed in (0, 1))
    assert one.shots != two.shots
    assert one.identities != two.identities


def test_torchreid_reads_the_folder_as_market1501(rendered):
    market = torchreid.data.datasets.image.Market1501(root=str(rendered), verbose=False)
    assert (len(market.train), len(market.query), len(market.gallery)) == (8, 4, 4)
    assert {camera for _, _, camera, *_ in market.train} == {0, 1}
    for subset in (market.query, market.gallery):
        assert {pid for _, pid, *_ in subset} == {3, 4}


def test_names_and_labels_belong_together(rendered):
    photos = sorted((rendered / MARKET).rglob("*.jpg"))
    labels = sorted((rendered / DENSEPOSE).glob("*_IUV.png"))
    names = [photo.name.partition(".")[0] for photo in photos]
    assert sorted(names) == [label.name.removesuffix("_IUV.png") for label in labels]
    assert len(set(names)) == 16
    assert "0001_c1s1_000025_01" in names
    for label in labels:
        v, u, part = np.moveaxis(np.asarray(Image.open(label)), -1, 0)
        assert part.shape == (64, 32)
        assert 3 < part.max() <= NUM_PARTS
        assert not (u[part == 0].any() or v[part == 0].any())


def test_parameters_say_everything(rendered):
    found = json.loads((rendered / PARAMETERS).read_text(encoding="utf-8"))
    plan = json.loads(json.dumps(make_plan(TINY).to_dict()))
    assert {key: found[key] for key in plan} == plan


@pytest.mark.parametrize("images", [1, 2, 3])
@pytest.mark.parametrize("cameras", [2, 3])
def test_every_query_has_a_match_in_another_camera(images, cameras):
    plan = make_plan(SyntheticOptions(identities=7, cameras=cameras, images=images))
    where = {name: [s for s in plan.shots if s.folder == name] for name in (TRAIN, QUERY, GALLERY)}
    training = {person.pid for person in plan.identities if person.training}
    assert {shot.pid for shot in where[TRAIN]} == training
    assert {shot.pid for shot in where[QUERY]} == set(range(1, 8)) - training
    for query in where[QUERY]:
        assert any(s.pid == query.pid and s.camera != query.camera for s in where[GALLERY])


def test_what_is_there_is_reused(rendered, monkeypatch):
    before = {file: file.stat().st_mtime_ns for file in rendered.rglob("*")}
    monkeypatch.setattr(folder_module, "_write", None)
    assert ensure_rendered(rendered.parent, TINY) == rendered
    assert ensure_rendered(str(rendered.parent)) == rendered
    assert {file: file.stat().st_mtime_ns for file in rendered.rglob("*")} == before


def test_other_options_are_refused(rendered):
    with pytest.raises(ValueError, match=r"parameters\.json.*other options") as error:
        ensure_rendered(rendered.parent, replace(TINY, seed=4, images=3))
    text = str(error.value)
    assert "images (expected 3, found 2), seed (expected 4, found 3);" in text
    assert "--root" in text
    assert "remove" in text
    assert "identities" not in text


def test_a_foreign_folder_is_refused(tmp_path):
    (tmp_path / "synthetic").mkdir()
    with pytest.raises(ValueError, match=r"parameters\.json in it, found none"):
        ensure_rendered(tmp_path)


def test_no_workers_are_refused(tmp_path):
    with pytest.raises(ValueError, match="workers: expected at least 1"):
        ensure_rendered(tmp_path, TINY, workers=0)


def _break(shot, *_):
    raise OSError(f"no space left for {shot.name}")


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interruption_leaves_nothing(tmp_path, monkeypatch, workers):
    monkeypatch.setattr(folder_module, "_write_image", _break)
    with pytest.raises(OSError, match="no space left"):
        ensure_rendered(tmp_path, TINY, workers)
    assert not list(tmp_path.iterdir())


def test_leftovers_of_a_killed_process_are_removed(tmp_path):
    (tmp_path / ".synthetic-killed" / "synthetic").mkdir(parents=True)
    ensure_rendered(tmp_path, TINY, workers=1)
    assert [file.name for file in tmp_path.iterdir()] == ["synthetic"]


def test_two_at_once_render_once(tmp_path, monkeypatch):
    drawn = []
    write = folder_module._write_image
    monkeypatch.setattr(
        folder_module, "_write_image", lambda shot, *rest: (drawn.append(shot), write(shot, *rest))
    )
    threads = [threading.Thread(target=ensure_rendered, args=(tmp_path, TINY, 1)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(drawn) == len(make_plan(TINY).shots)
    assert [file.name for file in tmp_path.iterdir()] == ["synthetic"]


def test_without_a_lock_the_first_to_finish_wins(tmp_path, monkeypatch, rendered):
    monkeypatch.setattr(folder_module, "fcntl", None)
    write = folder_module._write

    def overtaken(plan, target, workers):
        write(plan, target, workers)
        rendered_copy = tmp_path / "synthetic"
        for name, content in tree(rendered).items():
            (rendered_copy / name).parent.mkdir(parents=True, exist_ok=True)
            (rendered_copy / name).write_bytes(content)

    monkeypatch.setattr(folder_module, "_write", overtaken)
    assert ensure_rendered(tmp_path, TINY, workers=1) == tmp_path / "synthetic"
    assert [file.name for file in tmp_path.iterdir()] == ["synthetic"]
    assert tree(tmp_path / "synthetic") == tree(rendered)


# Pictures


def test_pictures_are_uint8_and_the_figure_stands_in_them():
    photo, iuv = render(scene(), Wardrobe(), LEVEL, SIZE)
    assert photo.shape == iuv.shape == (*SIZE, 3)
    assert photo.dtype == iuv.dtype == np.uint8
    rows, columns = np.nonzero(iuv[..., 0])
    assert np.ptp(rows) > 0.8 * SIZE[0]
    assert 0.15 < len(rows) / (SIZE[0] * SIZE[1]) < 0.5
    assert abs(columns.mean() - SIZE[1] / 2) < 0.1 * SIZE[1]


def test_garments_have_the_wardrobes_colours():
    wardrobe = Wardrobe(top_colour="red", bottom_colour="blue")
    view = look(LEVEL, wardrobe.build.height, SIZE)
    figure = draw_person(wardrobe, Pose(), 0.0, LEVEL, view)
    for part, strongest in ((2, 0), (13, 2), (14, 2)):
        shown = (figure.iuv[..., 0] == part) & (figure.iuv[..., 1] < 180)
        assert figure.colour[:, shown].mean(axis=1).argmax() == strongest
    assert len(Garment) == 8


def test_someone_out_of_the_picture_leaves_it_as_it_is():
    view = look(LEVEL, 1.72, SIZE).moved(50.0, 0.0)
    figure = draw_person(Wardrobe(), Pose(), 0.0, LEVEL, view)
    assert not figure.alpha.any()
    assert not figure.iuv.any()
