"""The rendered pedestrians' folder: the people, Market-1501's rules, reproducible bytes."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torchreid
from mask_inputs import script
from PIL import Image

from magnifier_plugin.annotators.densepose import read_iuv
from magnifier_plugin.regions import BODY_REGIONS, NUM_PARTS, REGIONS
from magnifier_plugin.synthetic import folder as folder_module
from magnifier_plugin.synthetic.folder import DENSEPOSE, MARKET, PARAMETERS, ensure_rendered
from magnifier_plugin.synthetic.obstacle import KINDS
from magnifier_plugin.synthetic.options import SyntheticOptions
from magnifier_plugin.synthetic.plan import GALLERY, QUERY, TRAIN, make_plan
from magnifier_plugin.synthetic.renderer import render
from magnifier_plugin.synthetic.wardrobe import COLOURS, near_twin, random_wardrobe

TINY = SyntheticOptions(identities=4, cameras=2, images=2, height=64, width=32, seed=3)


def tree(root):
    """Every file below a folder and its bytes."""
    files = (file for file in sorted(root.rglob("*")) if file.is_file())
    return {str(file.relative_to(root)): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    root = tmp_path_factory.mktemp("reid-data")
    return ensure_rendered(root, TINY, workers=1)


# The people


@pytest.mark.parametrize(("people", "twins"), [(4, 1.0), (6, 1.0), (7, 1.0), (10, 0.4), (64, 0.5)])
def test_fraction_of_twins(people, twins):
    plan = make_plan(SyntheticOptions(identities=people, twins=twins, images=1, cameras=2))
    paired = [person for person in plan.identities if person.twin]
    assert len(paired) == 2 * int(twins * people / 2 + 0.5) or len(paired) == people - 1
    for person in paired:
        other = plan.identities[person.twin - 1]
        expected = replace(
            person.wardrobe, **{person.detail: getattr(other.wardrobe, person.detail)}
        )
        assert expected == other.wardrobe != person.wardrobe
        assert (other.twin, other.training) == (person.pid, person.training)
    training = sum(person.training for person in plan.identities)
    assert training in (people // 2, people // 2 - 1)


def test_a_twin_differs_in_the_named_detail_only():
    rng = np.random.default_rng(5)
    for _ in range(300):
        first = random_wardrobe(rng)
        second, detail = near_twin(first, rng)
        one, two = asdict(first), asdict(second)
        assert [name for name in one if one[name] != two[name]] == [detail]


@pytest.mark.parametrize(("training", "pairs"), [(20, (8, 1)), (3, (1, 8)), (None, (4, 5))])
def test_training_gets_the_requested_number_of_people(training, pairs):
    options = SyntheticOptions(
        identities=23, train_identities=training, twins=0.8, images=1, cameras=2
    )
    people = make_plan(options).identities
    assert sum(person.training for person in people) == (training or 23 // 2)
    twins = [[p.training for p in people if p.twin].count(side) // 2 for side in (True, False)]
    assert tuple(twins) == pairs


def test_band_twins_differ_in_one_region_each_evenly():
    options = SyntheticOptions(
        identities=64, train_identities=28, twins=0.75, twin_details="regions", images=1, cameras=2
    )
    people = make_plan(options).identities
    bodies = [REGIONS[region] for region in BODY_REGIONS]
    for side in (True, False):
        pairs = [p for p in people if p.training is side and p.twin and p.twin > p.pid]
        worn = [person.wardrobe.band for person in pairs]
        counts = [worn.count(region) for region in bodies]
        assert max(counts) - min(counts) <= 1
        singles = [p.wardrobe.band for p in people if p.training is side and not p.twin]
        assert set(singles) <= set(bodies)
        for person in pairs:
            twin = people[person.twin - 1].wardrobe
            assert person.detail == "band_colour" and twin.band == person.wardrobe.band
            assert replace(twin, band_colour=person.wardrobe.band_colour) == person.wardrobe
            one, two = (COLOURS[w.band_colour] for w in (twin, person.wardrobe))
            assert np.linalg.norm(np.subtract(one, two)) >= 90


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_fraction_of_occluded_images(share):
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
        ({"train_identities": 1}, "train_identities: expected 2..62"),
        ({"train_identities": 63}, "train_identities: expected 2..62"),
        ({"train_identities": 4.0}, "train_identities: expected a whole number"),
        ({"twin_details": "all"}, "twin_details: expected any or regions, got 'all'"),
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


def test_a_folder_of_an_earlier_version_lacks_newer_options(tmp_path):
    folder = ensure_rendered(tmp_path, TINY, workers=1)
    parameters = json.loads((folder / PARAMETERS).read_text())
    for name in ("train_identities", "twin_details"):
        del parameters["options"][name]
    (folder / PARAMETERS).write_text(json.dumps(parameters))
    assert ensure_rendered(tmp_path, TINY) == folder
    with pytest.raises(ValueError, match=r"twin_details \(expected regions, found any\)"):
        ensure_rendered(tmp_path, replace(TINY, twin_details="regions"))


def test_another_seed_gives_other_images():
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


def test_files_hold_what_was_rendered(rendered):
    plan = make_plan(TINY)
    for shot in plan.shots[::5]:
        wardrobe, camera = plan.identities[shot.pid - 1].wardrobe, plan.cameras[shot.camera - 1]
        photo, iuv = render(shot.scene, wardrobe, camera, (TINY.height, TINY.width))
        label = rendered / DENSEPOSE / f"{shot.name.removesuffix('.jpg')}_IUV.png"
        assert (read_iuv(label) == iuv).all()
        assert 3 < iuv[..., 0].max() <= NUM_PARTS
        assert not iuv[iuv[..., 0] == 0].any()
        stored = np.asarray(Image.open(rendered / MARKET / shot.folder / shot.name))
        assert np.abs(stored - photo.astype(int)).mean() < 12


def test_parameters_are_complete(rendered):
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


def test_an_existing_folder_is_reused(rendered, monkeypatch):
    before = {file: file.stat().st_mtime_ns for file in rendered.rglob("*")}
    monkeypatch.setattr(folder_module, "_write", None)
    assert ensure_rendered(rendered.parent, TINY) == rendered
    assert ensure_rendered(str(rendered.parent)) == rendered
    assert {file: file.stat().st_mtime_ns for file in rendered.rglob("*")} == before


def test_script_says_that_other_options_were_rendered(rendered, capsys, monkeypatch):
    arguments = ["render_pedestrians.py", "--root", str(rendered.parent), "--images", "3"]
    monkeypatch.setattr("sys.argv", arguments)
    assert script("render_pedestrians").main() == 2
    error = capsys.readouterr().err
    assert error.startswith("render_pedestrians.py: ")
    assert "rendered with other options" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("content", ["{}", "[5]", '{"shots": [{}], "identities": [5]}'])
def test_script_names_damaged_parameters(tmp_path, capsys, monkeypatch, content):
    file = tmp_path / "synthetic" / PARAMETERS
    file.parent.mkdir()
    file.write_text(content)
    arguments = ["--root", str(tmp_path), "--textures", str(tmp_path / "sheet.png")]
    monkeypatch.setattr("sys.argv", ["render_pedestrians.py", *arguments])
    assert script("render_pedestrians").main() == 2
    error = capsys.readouterr().err
    assert f"{file}: expected the parameters of a rendered data set, found other" in error
    assert f"remove {file.parent} to render it again" in error and error.count("\n") == 1


def test_script_checks_that_sheets_can_be_written_before_it_renders(tmp_path, capsys, monkeypatch):
    (tmp_path / "file").touch()
    arguments = ["--root", str(tmp_path), "--textures", str(tmp_path / "file" / "sheet.png")]
    monkeypatch.setattr("sys.argv", ["render_pedestrians.py", *arguments])
    assert script("render_pedestrians").main() == 2
    assert "expected a folder to write to, found a file" in capsys.readouterr().err
    assert not (tmp_path / "synthetic").exists()


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
    with pytest.raises(ValueError, match=r"to contain parameters\.json, found none"):
        ensure_rendered(tmp_path)


def test_no_workers_are_refused(tmp_path):
    with pytest.raises(ValueError, match="workers: expected at least 1"):
        ensure_rendered(tmp_path, TINY, workers=0)
