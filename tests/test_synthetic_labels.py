"""The images of rendered pedestrians: charts as in DensePose, exact occlusion."""

from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from magnifier_plugin.annotators.densepose import to_regions
from magnifier_plugin.regions import BODY_REGIONS, MIRRORED_PART, NUM_PARTS, PARTS, REGIONS
from magnifier_plugin.synthetic.camera import Camera, look
from magnifier_plugin.synthetic.charts import SEGMENTS, Surface, to_iuv
from magnifier_plugin.synthetic.obstacle import KINDS, Obstacle, random_obstacle
from magnifier_plugin.synthetic.person import draw_person
from magnifier_plugin.synthetic.pose import Pose, random_pose, walk
from magnifier_plugin.synthetic.renderer import Scene, render
from magnifier_plugin.synthetic.wardrobe import (
    BAGS,
    Wardrobe,
    band_twin,
    near_twin,
    random_wardrobe,
    with_band,
)

WALKER = Path(__file__).parents[2] / "shared/data/densepose/crops/walker_IUV.png"
SIZE = (256, 128)
LEVEL = Camera(1, 0.0, 0.0, (1.0, 1.0, 1.0), 1.0, 1.0, 0.5, 0.01, 90, (90.0, 45.0), 0.5, 7)

# For each part, the directions in which U and V grow in the image.
# fmt: off
FROM_THE_FRONT = {
    2: ("down", "left"), 9: ("up", "right"), 10: ("up", "left"), 13: ("down", "left"),
    14: ("down", "right"), 15: ("down", "right"), 16: ("down", "left"), 19: ("up", "left"),
    20: ("up", "right"), 23: ("right", "up"), 24: ("right", "up"),
}
FROM_BEHIND = {
    1: ("down", "right"), 7: ("down", "right"), 8: ("down", "left"), 11: ("up", "right"),
    12: ("up", "left"),
}
# fmt: on


def iuv_of(heading, pose=None, wardrobe=None, pitch=0.0):
    """Labels of one person, at 256 × 128, as int so that differences do not wrap."""
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


def test_head_continues_over_the_seam_of_the_face():
    iuv = iuv_of(0)
    right, left = (iuv[..., 0] == PARTS.index(f"head {side}") for side in ("right", "left"))
    # U rises to 1 on the right half and continues from 0 on the left half.
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
    both = np.stack([part, u, v], axis=-1), iuv_of(0, pitch=12.0)
    # Both show these parts well: U and V grow in the same directions and have similar values.
    for number in (2, 3, 4, 5, 6, 9, 10, 13, 14, 15, 16, 19, 20, 23, 24):
        places = [iuv[iuv[..., 0] == number] for iuv in both]
        for channel in (1, 2):
            centres = [np.median(place[:, channel]) for place in places]
            assert abs(centres[0] - centres[1]) < 72, PARTS[number]
            if number in (3, 4) or (number in (5, 6) and channel == 2):
                continue  # hands can turn; the walker's camera sees his feet from higher up
            runs = [
                direction(place[:, channel], *np.nonzero(iuv[..., 0] == number))[0]
                for place, iuv in zip(places, both, strict=True)
            ]
            assert runs[0] == runs[1], PARTS[number]


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


@pytest.mark.parametrize("bottom", ["trousers", "skirt"])
@pytest.mark.parametrize("worn", [{"bag": bag} for bag in BAGS[1:]] + [{"hairstyle": "long"}])
def test_bags_and_loose_hair_are_not_part_of_the_body(worn, bottom):
    hidden = 0
    for heading in (30, 150, 270):
        bare, laden = (iuv_of(heading, wardrobe=Wardrobe(bottom=bottom, **w)) for w in ({}, worn))
        below_the_head = ~np.isin(bare[..., 0], (0, 23, 24))
        changed = below_the_head & (bare != laden).any(axis=-1)
        assert not laden[changed].any()
        hidden += changed.sum()
    assert hidden > 100


def test_the_body_under_a_skirt_is_labelled():
    bare, skirt = (iuv_of(30, wardrobe=Wardrobe(bottom=kind)) for kind in ("cropped", "skirt"))
    both = (bare[..., 0] > 0) & (skirt[..., 0] > 0)
    assert both.sum() > 0.97 * (bare[..., 0] > 0).sum()
    assert (bare == skirt)[both][:, 0].mean() > 0.97


def test_the_figure_is_in_the_middle_of_its_image():
    photo, iuv = render(scene(), Wardrobe(), LEVEL, SIZE)
    assert photo.shape == iuv.shape == (*SIZE, 3)
    assert photo.dtype == iuv.dtype == np.uint8
    rows, columns = np.nonzero(iuv[..., 0])
    assert np.ptp(rows) > 0.8 * SIZE[0]
    assert abs(columns.mean() - SIZE[1] / 2) < 0.1 * SIZE[1]


def test_garments_have_the_wardrobes_colours():
    wardrobe = Wardrobe(top_colour="red", bottom_colour="blue")
    view = look(LEVEL, wardrobe.build.height, SIZE)
    figure = draw_person(wardrobe, Pose(), 0.0, LEVEL, view)
    for part, strongest in ((2, 0), (13, 2), (14, 2)):
        shown = (figure.iuv[..., 0] == part) & (figure.iuv[..., 1] < 180)
        assert figure.colour[:, shown].mean(axis=1).argmax() == strongest


def test_a_person_outside_the_image_does_not_change_it():
    view = look(LEVEL, 1.72, SIZE).moved(50.0, 0.0)
    figure = draw_person(Wardrobe(), Pose(), 0.0, LEVEL, view)
    assert not figure.alpha.any()
    assert not figure.iuv.any()


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


@pytest.mark.parametrize("region", BODY_REGIONS)
def test_a_bands_colour_changes_only_its_region(region):
    """For people with a band, the pixels that change are in the band's region or at its outline."""
    rng = np.random.default_rng(3)
    shares = []
    for _ in range(4):
        first = with_band(random_wardrobe(rng), REGIONS[region], rng)
        second, _ = band_twin(first, rng)
        view = look(LEVEL, first.build.height, (128, 64))
        for heading in (0, 90, 180, 270):
            one, two = (
                draw_person(w, walk(0.5, 0.6), heading, LEVEL, view) for w in (first, second)
            )
            assert (one.iuv == two.iuv).all()
            changed = np.abs(one.colour - two.colour).max(axis=0) > 0.12
            own = ndimage.binary_dilation(to_regions(one.iuv) == region, iterations=2)
            shares.append((changed & own).sum() / max(changed.sum(), 1))
            assert changed.sum() > 12 or heading in (90, 180, 270), (first, second)
    assert np.mean(shares) > 0.95
