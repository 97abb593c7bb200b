"""scripts/saliency.py: figures and numbers of a data set's queries, and two networks compared."""

import re

import numpy as np
import pytest
import torch
import torchreid
from mask_inputs import script
from PIL import Image
from test_retrieval import NORM, save_checkpoint, tiny_backbone  # noqa: F401

from magnifier_plugin.data.annotated import AnnotatedDataset
from magnifier_plugin.evaluation.distances import distance_matrix
from magnifier_plugin.evaluation.ranking import evaluate_ranking
from magnifier_plugin.images import read_image
from magnifier_plugin.masks.label_maps import read_labels
from magnifier_plugin.regions import NUM_REGIONS, UNKNOWN
from magnifier_plugin.retrieval.comparison import compare, evaluate_branches
from magnifier_plugin.retrieval.network import load_network
from magnifier_plugin.retrieval.saliency import describe, look_at, mean_cosine
from magnifier_plugin.visualize.rankings import first_gallery_images, heading

saliency = script("saliency")
HERE = ["use_gpu", "False", "test.amp", "off"]


@pytest.fixture
def run(market_folder, tmp_path):
    def call(*more, pairs=(), weights=None):
        path = weights or save_checkpoint(tmp_path / "w.pth.tar", *NORM, *pairs)
        options = ["-s", "market1501", "--root", market_folder.root, "--weights", path]
        options += ["--masks-dir", market_folder.masks_dir, "--out", tmp_path / "out", *more]
        return saliency.main([*map(str, options), *HERE])

    return call


def queries(market_folder, network, **options):
    return AnnotatedDataset(
        "market1501",
        market_folder.root,
        transform=network.compose,
        mode="query",
        masks_dir=market_folder.masks_dir,
        max_missing=1.0,
        inputs=("mask",),
        **options,
    )


def test_figures_and_numbers(run, tmp_path, capsys):
    assert run("--images", 2, "--numbers", 3) == 0
    printed = capsys.readouterr().out
    text = (tmp_path / "out" / "saliency.md").read_text()
    assert text in printed and "in 3 images" in text
    for name in ("activations.png", "influence.png"):
        with Image.open(tmp_path / "out" / name) as sheet:
            assert sheet.size == (5 * (112 + 6) + 6, 2 * 22 + 2 * (224 + 6))
        assert str(tmp_path / "out" / name) in printed
    assert len(re.findall(r"^\| (G|SAB|SFB|all) \|", text, re.M)) == 4
    assert not (tmp_path / "out" / "comparison.png").exists()


def test_one_branch_has_no_regions(run, tmp_path):
    assert run(pairs=("magnifier.branches", "G")) == 0
    text = (tmp_path / "out" / "saliency.md").read_text()
    assert "IoU" not in text and "Mean cosine" not in text and "| all |" in text


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("-s", "nowhere"), "nowhere"),
        (("--against", "none.pth.tar"), "none.pth.tar: expected a checkpoint, found no such file"),
        (("--root", "empty"), "empty/market1501, which does not exist"),
    ],
)
def test_bad_input(run, more, message, capsys):
    assert run(*more) == 2
    assert re.search(message, capsys.readouterr().err)


class TestLook:
    @pytest.fixture
    def network(self, tmp_path):
        return load_network(save_checkpoint(tmp_path / "w.pth.tar", *NORM), pairs=HERE)

    def test_overlap_and_regions_are_of_the_label_maps(self, network, market_folder):
        dataset = queries(market_folder, network)
        chosen = list(range(len(dataset)))
        found = look_at(network, dataset, chosen)
        items = [dataset[place] for place in chosen]
        labels = torch.stack([item["mask"] for item in items])
        with_maps = [i for i in chosen if (labels[i] != UNKNOWN).any()]
        assert (found.labels[with_maps] == labels[with_maps].numpy()).all()
        with torch.no_grad():
            predicted = network.model.predict_regions(torch.stack([item["img"] for item in items]))
        small = torch.nn.functional.interpolate(
            labels[:, None].float(), predicted.shape[-2:], mode="nearest-exact"
        )[:, 0]
        for region in range(NUM_REGIONS):
            known = small != UNKNOWN
            one, two = (predicted == region) & known, small == region
            union = (one | two).sum()
            expected = float((one & two).sum() / union) if union else np.nan
            assert found.overlap[region] == pytest.approx(expected, nan_ok=True)

    def test_an_image_without_a_label_map_uses_predicted_regions(
        self, network, market_folder, monkeypatch
    ):
        dataset = queries(market_folder, network)
        dataset.files = {"labels": dict.fromkeys(dataset.files["labels"])}
        found = look_at(network, dataset, [0])
        assert np.isnan(found.overlap).all()
        with torch.no_grad():
            predicted = network.model.predict_regions(dataset[0]["img"][None])[0]
        assert set(np.unique(found.labels)) == set(predicted.unique().tolist())

    def test_cosine_is_the_mean_over_pairs_of_present_regions(self, network, market_folder):
        dataset = queries(market_folder, network)
        with torch.no_grad():
            features = network.describe_regions(dataset[0]["img"][None]).features[0]
        present = [x / x.norm() for x in features if x.any()]
        pairs = [float(a @ b) for i, a in enumerate(present) for b in present[i + 1 :]]
        found = look_at(network, dataset, [0])
        expected = np.mean(pairs) if pairs else np.nan
        assert found.cosine[0] == pytest.approx(expected, abs=1e-5, nan_ok=True)

    def test_cosine_of_fewer_than_two_regions_is_nan(self):
        features = torch.zeros(200, 8, 32)
        features[1:, 3] = torch.randn(199, 32, generator=torch.Generator().manual_seed(0))
        assert mean_cosine(features).isnan().all()
        features[1:, 5] = features[1:, 3]
        found = mean_cosine(features)
        assert found[0].isnan()
        torch.testing.assert_close(found[1:], torch.ones(199))

    def test_batches_do_not_change_the_numbers(self, network, market_folder, monkeypatch):
        dataset = queries(market_folder, network)
        chosen = list(range(len(dataset)))
        whole = look_at(network, dataset, chosen)
        monkeypatch.setattr("magnifier_plugin.retrieval.saliency._BATCH", 1)
        single = look_at(network, dataset, chosen)
        np.testing.assert_allclose(single.overlap, whole.overlap, equal_nan=True)
        for name, values in whole.influence.items():
            np.testing.assert_allclose(single.influence[name], values, atol=1e-5)
        assert describe(single) == describe(whole)


def test_queries_that_only_the_first_network_gets_right(market_folder, tmp_path, run, capsys):
    paths = [save_checkpoint(tmp_path / f"{s}.pth.tar", *NORM, seed=s) for s in (0, 1)]
    networks = tuple(load_network(path, pairs=HERE) for path in paths)
    dataset = queries(market_folder, networks[0])
    found = compare(networks, dataset.query, dataset.gallery, names=("a", "b"), rows=1, topk=2)
    for network, right in zip(networks, found[:2], strict=True):
        sides = [
            network.embed(torch.stack([network.transform(read_image(r[0])).image for r in part]))
            for part in (dataset.query, dataset.gallery)
        ]
        distmat = distance_matrix(*sides).numpy()
        for q, (_, pid, camid, _) in enumerate(dataset.query):
            kept = [g for g, r in enumerate(dataset.gallery) if r[1:3] != (pid, camid)]
            hit = min(kept, key=lambda g, q=q: distmat[q, g])
            assert right[q] == (dataset.gallery[hit][1] == pid)
    assert (found.sheet is None) == (not (found.first & ~found.second).any())
    assert run("--against", paths[1], weights=paths[0]) == 0
    only = (found.first & ~found.second).sum()
    assert f"only with the first {only}, only with the second" in capsys.readouterr().out
    picture = tmp_path / "out" / "comparison.png"
    assert picture.exists() == bool(only)
    picture.touch()  # of an earlier comparison
    assert run("--against", paths[0], weights=paths[0]) == 0
    assert not picture.exists()


def test_the_configuration_counts_for_both_networks(tmp_path, run, monkeypatch):
    """Images are resized as the command line says, whatever the second checkpoint recorded."""
    networks = []

    def record(pair, *arguments, **options):
        networks.extend(pair)
        return compare(pair, *arguments, **options)

    monkeypatch.setattr(saliency, "compare", record)
    paths = [
        save_checkpoint(tmp_path / f"{n}.pth.tar", *NORM, "data.height", str(n)) for n in (32, 64)
    ]
    file = tmp_path / "c.yaml"
    file.write_text("data: {norm_mean: [0.9, 0.9, 0.9]}")
    more = ("--against", paths[1], "--config-file", file, "data.height", "48")
    assert run(*more, weights=paths[0]) == 0
    for network in networks:
        assert network.cfg.data.height == 48
        assert network.cfg.data.norm_mean[0] == 0.9
        assert not network.cfg.use_gpu
    assert len(networks) == 2


@pytest.mark.parametrize("more", [("--against", "w.pth.tar"), ("--branches",)])
def test_an_image_that_does_not_decode_is_named(market_folder, tmp_path, run, capsys, more):
    """Rankings without it would give its neighbours other identities."""
    more = [tmp_path / word if "." in word else word for word in more]
    image = sorted((market_folder.images / "bounding_box_test").glob("0*.jpg"))[2]
    content = image.read_bytes()
    image.write_bytes(b"no image")
    try:
        assert run(*more) == 2
    finally:
        image.write_bytes(content)  # other tests use it
    assert f"saliency.py: {image}: expected an image" in capsys.readouterr().err


def test_the_sheet_of_differences_names_the_networks(market_folder, tmp_path):
    paths = [save_checkpoint(tmp_path / f"{s}.pth.tar", *NORM, seed=s) for s in (0, 1)]
    networks = tuple(load_network(path, pairs=HERE) for path in paths)
    dataset = queries(market_folder, networks[0])
    first, second = (
        np.asarray(
            compare(
                networks, dataset.query, dataset.gallery, names=("G", name), rows=1, topk=2
            ).sheet
        )
        for name in ("all", "b")
    )
    changed = np.flatnonzero((first != second).any((1, 2)))
    gap, lines = 24, 2 * 18
    assert gap + lines // 2 <= changed[0] <= changed[-1] < gap + lines


def test_the_querys_own_camera_is_left_out_of_a_ranking():
    query = ("q.jpg", 7, 0, 0)
    gallery = [("other.jpg", 8, 0, 0), ("same.jpg", 7, 0, 0), ("match.jpg", 7, 1, 0)]
    distances = np.array([0.3, 0.1, 0.2])
    assert first_gallery_images(distances, query, gallery, topk=3) == [2, 0]
    assert first_gallery_images(distances, query, gallery, topk=1) == [2]


def test_a_heading_that_is_too_wide_loses_its_beginning():
    def draw(name):
        return np.asarray(heading({"upper rows": name}, 200))

    assert draw("log/" + "x" * 99).shape == (18, 200, 3)
    np.testing.assert_array_equal(draw("log/" + "x" * 99), draw("out/" + "x" * 99))
    assert (draw("log/" + "x" * 99) != draw("log/" + "x" * 98 + "y")).any()


@pytest.mark.parametrize("normalised", [True, False])
def test_each_branch_alone(market_folder, tmp_path, run, capsys, normalised):
    pairs = ["test.normalize_feature", str(normalised)]
    path = save_checkpoint(tmp_path / "n.pth.tar", *NORM, *pairs)
    network = load_network(path, pairs=HERE)
    dataset = queries(market_folder, network)
    lists = dataset.query, dataset.gallery
    found = evaluate_branches(network, *lists)
    embedded = [
        network.embed(torch.stack([network.transform(read_image(r[0])).image for r in part]))
        for part in lists
    ]
    ids = [[np.array([r[i] for r in part]) for part in lists] for i in (1, 2)]
    start = 0
    for name, (size, ranking) in found.items():
        start = 0 if name == "all" else start
        parts = [part[:, start : start + size] for part in embedded]
        if normalised:
            parts = [part / part.norm(dim=1, keepdim=True) for part in parts]
        expected = evaluate_ranking(distance_matrix(*parts).numpy(), *ids[0], *ids[1])
        assert ranking.mAP == pytest.approx(expected.mAP)
        start += size
    assert list(found) == ["G", "SAB", "SFB", "all"]
    assert found["all"][0] == sum(found[name][0] for name in ("G", "SAB", "SFB"))
    assert len({ranking.mAP for _, ranking in found.values()}) > 1
    assert run("--branches", weights=path) == 0
    printed = capsys.readouterr().out
    size, ranking = found["SAB"]
    row = f"| SAB | {size} | {100 * ranking.mAP:.1f} | {100 * ranking.cmc[0]:.1f} |"
    assert row in printed and row in (tmp_path / "out" / "saliency.md").read_text()
    assert run(weights=path) == 0
    assert "tested alone" not in capsys.readouterr().out


def test_label_maps_are_read(market_folder):
    """The fixture has label maps of query images; without them the tests above compare nothing."""
    maps = list((market_folder.masks_dir / "market1501").rglob("query/*.png"))
    assert maps and read_labels(maps[0]).max() > 0


@pytest.mark.parametrize(
    ("recorded", "more", "expected"),
    [
        ((), (), ("densepose", "drop", False)),
        (
            ("masks.label_set", "lip", "test.same_camera", "keep", "cuhk03.labeled_images", "True"),
            (),
            ("lip", "keep", True),
        ),
        ((), ("masks.label_set", "lip", "test.same_camera", "keep"), ("lip", "keep", False)),
        ((), ("-s", "cuhk03", "--cuhk03-labeled"), ("densepose", "drop", True)),
    ],
)
def test_data_are_opened_as_recorded_or_typed(
    run, tmp_path, monkeypatch, capsys, recorded, more, expected
):
    opened = []

    def record(*arguments, label_set, same_camera, cuhk03_labeled, **options):
        opened.append((label_set, same_camera, cuhk03_labeled))
        raise ValueError("enough")

    monkeypatch.setattr(saliency, "AnnotatedDataset", record)
    path = save_checkpoint(tmp_path / "r.pth.tar", *NORM, *recorded)
    assert run(*more, weights=path) == 2
    assert capsys.readouterr().err == "saliency.py: enough\n"
    assert opened == [expected]


def test_a_torchreid_checkpoint_uses_the_environments_label_set(tmp_path, monkeypatch):
    monkeypatch.setenv("MAGNIFIER_LABEL_SET", "lip")
    model = torchreid.models.build_model("osnet_x0_25", 5, pretrained=False)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "t.pth.tar")
    network = load_network(tmp_path / "t.pth.tar", flags={"model.name": "osnet_x0_25"}, pairs=HERE)
    assert network.cfg.masks.label_set == "lip"


def test_modules_of_ones_own_are_imported(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("--import", "no_such_module") == 2
    assert "no_such_module" in capsys.readouterr().err


def test_a_key_without_effect_is_refused(run, capsys):
    assert run("cuhk03.use_metric_cuhk03", "True") == 2
    assert "cuhk03.use_metric_cuhk03: has no effect here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--topk", "3"), "--topk: has no effect without --against"),
        (
            ("test.dist_metric", "cosine"),
            "test.dist_metric: has no effect without --branches or --against",
        ),
        (
            ("test.normalize_feature", "True"),
            "test.normalize_feature: has no effect without --branches or --against",
        ),
        (("--cuhk03-labeled",), "--cuhk03-labeled: has no effect on market1501"),
    ],
)
def test_options_without_effect(run, capsys, more, message):
    with pytest.raises(SystemExit) as ended:
        run(*more)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_refused_at_once(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(saliency, "load_network", None)
    (tmp_path / "out").touch()
    assert run() == 2
    assert f"{tmp_path}/out: expected a folder to write to" in capsys.readouterr().err
