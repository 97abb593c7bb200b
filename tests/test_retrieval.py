"""A network from its checkpoint, embeddings and regions of image files, and the search."""

from functools import partial

import numpy as np
import pytest
import torch
import torchreid
from conftest import painted, person
from embeddings import clustered
from mask_inputs import save_photo
from tiny import TinyBackbone

from magnifier_plugin.builders import build_network, find_system
from magnifier_plugin.config import ConfigError, load_config
from magnifier_plugin.data.datamanager import AnnotatedDataManager
from magnifier_plugin.evaluation.evaluator import Evaluator, Reranking, reranked_distances
from magnifier_plugin.evaluation.feature_file import ImageFeatures
from magnifier_plugin.evaluation.scaling import l2_normalise
from magnifier_plugin.regions import REGIONS
from magnifier_plugin.retrieval.network import COMPARISON_KEYS, load_network
from magnifier_plugin.retrieval.photos import cosines, describe_files, embed_files, extract
from magnifier_plugin.retrieval.search import (
    Comparison,
    page_of,
    require_images,
    require_same_network,
    same_files,
    search,
)

SMALL = "data.height 32 data.width 16 data.workers 0 use_gpu False test.amp off".split()
NORM = ["data.norm_mean", "[0.1, 0.2, 0.3]", "data.norm_std", "[0.5, 0.6, 0.7]"]
HERE = ["data.workers", "0", "use_gpu", "False", "test.amp", "off"]


@pytest.fixture(autouse=True)
def tiny_backbone(monkeypatch):
    monkeypatch.setattr("magnifier_plugin.models.magnifiernet.Backbone", TinyBackbone)


def save_checkpoint(path, *pairs, record=True, classes=7, seed=0):
    cfg = load_config(None, {}, [*SMALL, "model.pretrained", "False", *pairs])
    torch.manual_seed(seed)
    model = build_network(cfg, find_system(cfg), classes)
    content = {"state_dict": model.state_dict(), "epoch": 1}
    if record:
        content["record"] = {"seed": 1, "configuration": cfg.dump()}
    torch.save(content, path)
    return path


@pytest.fixture
def weights(tmp_path):
    return save_checkpoint(tmp_path / "w.pth.tar", *NORM)


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(6):
        painted(person(rng, 64, 32)).save(folder / f"{number}_c{number % 2}.jpg", quality=95)
    return folder


def files(folder):
    return sorted(folder.iterdir())


# The network


@pytest.mark.parametrize("flip", [False, True])
def test_features_are_those_of_a_test(weights, market_folder, flip):
    """Transform, weights and flipping are those of the data manager and the evaluator."""
    network = load_network(weights, flags={"test.flip": flip}, pairs=HERE)
    manager = AnnotatedDataManager(
        root=market_folder.root,
        sources="market1501",
        masks_dir=market_folder.masks_dir,
        height=32,
        width=16,
        norm_mean=[0.1, 0.2, 0.3],
        norm_std=[0.5, 0.6, 0.7],
        batch_size_train=4,
        workers=0,
        use_gpu=False,
    )
    evaluator = Evaluator(lambda batch: network.model(batch["img"]), flip=flip)
    loaders = manager.test_loader["market1501"]
    with torch.no_grad():
        expected = evaluator.evaluate(loaders["query"], loaders["gallery"]).query.features
    paths = [record[0] for record in loaders["query"].dataset.data]
    found = embed_files(network, paths)
    np.testing.assert_allclose(found.features, expected, rtol=1e-5, atol=1e-6)
    assert found.rows.tolist() == list(range(len(paths))) and not found.unreadable


def test_file_flags_and_pairs_override_the_record(tmp_path, weights):
    recorded = load_network(weights).cfg
    assert (recorded.data.height, recorded.data.norm_std) == (32, [0.5, 0.6, 0.7])
    file = tmp_path / "c.yaml"
    file.write_text("data: {height: 48, width: 24}\ntrain: {max_epoch: 3}\n")
    cfg = load_network(weights, file=file, pairs=["data.height", "64"]).cfg
    assert (cfg.data.height, cfg.data.width, cfg.data.norm_mean[0]) == (64, 24, 0.1)
    assert load_network(weights, flags={"test.batch_size": 3}).cfg.test.batch_size == 3


def test_options_without_weights_come_from_the_record(tmp_path):
    path = save_checkpoint(tmp_path / "w.pth.tar", "magnifier.mask_rescaling", "nearest-corner")
    assert load_network(path).model.mask_module.rescaling == "nearest-corner"
    path = save_checkpoint(tmp_path / "a.pth.tar", "magnifier.variant", "authors")
    network = load_network(path)
    assert network.cfg.test.rerank_form == "paper"
    with pytest.raises(ValueError, match="the file belongs to another model, or to other options"):
        load_network(path, pairs=["magnifier.variant", "paper"])


def test_bf16_where_the_device_is_faster_in_it(weights, monkeypatch):
    for answer, dtype in ((True, torch.bfloat16), (False, None)):
        monkeypatch.setattr(
            "magnifier_plugin.engine.precision.faster_in_bf16", lambda device, a=answer: a
        )
        assert load_network(weights, pairs=["use_gpu", "False"]).precision.amp is dtype
    assert not load_network(weights, pairs=["test.amp", "off"]).precision.amp


def test_the_same_file_gives_the_same_identity(tmp_path, weights):
    one, other = (load_network(weights).identity() for _ in range(2))
    assert one == other
    changed = load_network(save_checkpoint(tmp_path / "o.pth.tar", *NORM, seed=1)).identity()
    assert {key for key in one if one[key] != changed[key]} == {"weights"}
    resized = load_network(weights, pairs=["data.height", "64", "test.flip", "True"]).identity()
    assert {key for key in one if one[key] != resized[key]} == {"size", "flip"}


def test_torchreids_checkpoint_needs_a_name(tmp_path, photos):
    model = torchreid.models.build_model("osnet_x0_25", 5, pretrained=False)
    path = tmp_path / "osnet.pth.tar"
    torch.save({"state_dict": model.state_dict(), "rank1": np.float64(0.5)}, path)
    with pytest.raises(ConfigError, match=r"records no configuration.* -a NAME"):
        load_network(path)
    pairs = ["data.height", "64", "data.width", "32", *HERE]
    network = load_network(path, flags={"model.name": "osnet_x0_25"}, pairs=pairs)
    images = torch.stack([network.transform(painted(person(np.random.default_rng(1)))).image])
    with torch.no_grad():
        expected = model.eval()(images)
    torch.testing.assert_close(network.embed(images), expected)
    assert describe_files(network, files(photos)) is None and not network.has_regions


def test_what_load_network_refuses(tmp_path, weights):
    osnet = {"model.name": "osnet_x0_25"}
    with pytest.raises(ValueError, match=r"w\.pth\.tar: expected the .* belongs to another"):
        load_network(weights, flags=osnet)
    with pytest.raises(ConfigError, match=r"command line: train\.lr: has no effect here"):
        load_network(weights, pairs=["train.lr", "1e-3"])
    with pytest.raises(ConfigError, match=r"test\.rerank_k1: has no effect here"):
        load_network(weights, pairs=["test.rerank_k1", "5"])
    assert load_network(weights, pairs=["test.rerank_k1", "5"], also=COMPARISON_KEYS)
    with pytest.raises(ConfigError, match=r"magnifier\.keep: has no effect here"):
        load_network(weights, pairs=["magnifier.keep", "2"])  # of training only
    with pytest.raises(ConfigError, match=r"has no effect, magnifiernet is not a dsa_reid"):
        load_network(weights, pairs=["dsa.branches", "global"])
    with pytest.raises(ConfigError, match="unknown model 'magnifier'"):
        load_network(weights, flags={"model.name": "magnifier"})
    with pytest.raises(FileNotFoundError, match="expected a checkpoint"):
        load_network(tmp_path / "none")
    state = torch.load(weights, weights_only=True)["state_dict"]
    for text, message in (
        ("- a", "found a list"),
        ("a: [", "recorded configuration: expected YAML"),
    ):
        torch.save({"state_dict": state, "record": {"configuration": text}}, weights)
        with pytest.raises(ValueError, match=message):
            load_network(weights)


def test_a_network_that_tests_with_textures_is_refused(tmp_path):
    options = "model.name dsa_reid loss.name dsa dsa.backbone resnet18 dsa.width 0.125".split()
    path = save_checkpoint(tmp_path / "dsa.pth.tar", *options)
    network = load_network(path)
    assert not any(key.startswith("guiding_stream.") for key in network.model.state_dict())
    with pytest.raises(ValueError, match="takes textures besides the image"):
        load_network(path, pairs=["dsa.test_features", "z"])


# Files


def test_images_that_do_not_decode_are_named_and_left_out(weights, photos, caplog):
    network = load_network(weights, pairs=[*HERE, "test.batch_size", "2"])
    whole = extract(network, files(photos), photos)
    for name in ("2_c0.jpg", "3_c1.jpg"):  # a complete batch
        (photos / name).write_bytes(b"no image")
    (photos / "5_c1.jpg").write_bytes((photos / "5_c1.jpg").read_bytes()[:300])
    found = extract(network, files(photos), photos)
    assert found.names == ["0_c0.jpg", "1_c1.jpg", "4_c0.jpg"]
    np.testing.assert_allclose(found.features, whole.features[[0, 1, 4]], rtol=1e-5, atol=1e-6)
    messages = [record.message for record in caplog.records]
    assert len(messages) == 3
    assert f"Left out: {photos / '2_c0.jpg'}: expected an image" in messages[0]
    for path in files(photos):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"none of 6 images can be read; the first: .*0_c0\.jpg"):
        extract(network, files(photos), photos)


def test_workers_read_the_same(weights, photos):
    here, two = (
        embed_files(load_network(weights, pairs=[*HERE, "data.workers", n]), files(photos))
        for n in ("0", "2")
    )
    np.testing.assert_array_equal(here.features, two.features)


def test_regions_and_their_cosines(weights, photos):
    network = load_network(weights, pairs=[*HERE, "test.batch_size", "4"])
    paths = files(photos)
    paths[1].write_bytes(b"")
    regions = describe_files(network, paths)
    assert regions.labels.shape == (6, 4, 2) and not regions.labels[1].any()
    images = torch.stack([network.transform(torchreid_image(paths[n])).image for n in (0, 5)])
    with torch.no_grad():
        found = network.model.describe_regions(images)
    np.testing.assert_array_equal(regions.labels[[0, 5]], found.labels)
    values = cosines(regions, 0, np.array([5, 0, 1]))
    present = [set(labels.unique().tolist()) for labels in found.labels]
    for region in range(len(REGIONS)):
        a, b = found.features[:, region]
        if region in present[0] & present[1] and float(a.norm() * b.norm()) > 0:
            expected = float(a @ b / (a.norm() * b.norm()))
            assert values[0, region] == pytest.approx(expected, abs=1e-5)
            assert values[1, region] == pytest.approx(1, abs=1e-5)
        else:
            assert np.isnan(values[0, region])
    assert np.isnan(values[2]).all() and not np.isnan(values[0]).all()


def torchreid_image(path):
    return torchreid.utils.read_image(str(path))


def test_without_sfb_there_are_regions_but_no_cosines(tmp_path, photos):
    path = save_checkpoint(tmp_path / "g.pth.tar", "magnifier.branches", "G,M")
    regions = describe_files(load_network(path, pairs=HERE), files(photos))
    assert regions.features is None and cosines(regions, 0, np.array([1])) is None
    path = save_checkpoint(tmp_path / "g.pth.tar", "magnifier.branches", "G")
    assert describe_files(load_network(path, pairs=HERE), files(photos)) is None


# The search


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_the_same_file_is_not_a_hit(metric):
    query, gallery = clustered(np.random.default_rng(0), 4, 30)
    gallery[7] = query[2]
    compare = partial(search, query, gallery, 5, Comparison(metric))
    plain, without = compare(), compare([-1, -1, 7, -1])
    assert plain[2].rows[0] == 7 and 7 not in without[2].rows
    np.testing.assert_array_equal(without[2].rows[:4], plain[2].rows[1:])
    for number in (0, 1, 3):
        np.testing.assert_array_equal(plain[number].rows, without[number].rows)
    assert all(len(found.rows) == 5 and found.plain is None for found in without)


def test_reranking_ranks_and_keeps_the_plain_distances():
    query, gallery = (3 * part for part in clustered(np.random.default_rng(0), 6, 40))
    settings = Reranking(k1=8, k2=3)
    hits = search(query, gallery, 40, Comparison("euclidean", True, settings))
    sides = [l2_normalise(torch.from_numpy(part)) for part in (query, gallery)]
    expected = reranked_distances(*sides, "euclidean", settings)
    for row, found in enumerate(hits):
        np.testing.assert_array_equal(found.rows, expected[row].argsort(stable=True))
        np.testing.assert_allclose(found.distances, expected[row][torch.from_numpy(found.rows)])
        plain = (sides[0][row] - sides[1][torch.from_numpy(found.rows)]).square().sum(1)
        np.testing.assert_allclose(found.plain, plain, atol=1e-5)
    plain = search(query, gallery, 40, Comparison("euclidean", True))
    assert any((a.rows != b.rows).any() for a, b in zip(plain, hits, strict=True))
    for words in ("re-ranking", "squared Euclidean distance", "normalised"):
        assert words in str(Comparison("euclidean", True, settings))


def test_same_files_follows_links(tmp_path):
    paths = [save_photo(tmp_path / f"{name}.jpg") for name in "abc"]
    (tmp_path / "d.jpg").symlink_to(paths[1])
    assert same_files([tmp_path / "d.jpg", tmp_path / "e.jpg"], paths) == [1, -1]


def test_features_of_another_network_are_refused(weights, photos):
    network = load_network(weights, pairs=HERE)
    images = extract(network, files(photos), photos)
    require_same_network(network, images, "f.npz")
    other = images._replace(identity={**images.identity, "weights": "x", "flip": True})
    with pytest.raises(ValueError, match=r"f\.npz: features of another network .*weights x.*flip"):
        require_same_network(network, other, "f.npz")


def test_missing_images(photos, caplog):
    paths = files(photos)
    require_images(paths, "f.npz")
    assert not caplog.records
    paths[0].unlink()
    require_images(paths, "f.npz")
    assert "Missing: 1 of 6 images, such as" in caplog.text
    with pytest.raises(FileNotFoundError, match="give their folder with --images FOLDER"):
        require_images(paths[:1], "f.npz")


def test_the_page_has_regions_only_for_the_first_hits(weights, photos):
    network = load_network(weights, pairs=HERE)
    paths = files(photos)
    sub = photos / "Büro"
    sub.mkdir()
    moved = [path.rename(sub / path.name) for path in paths[3:]]
    gallery = extract(network, [*paths[:3], *moved], photos)
    queries = ImageFeatures(gallery.features[:1], gallery.names[:1], photos, gallery.identity)
    hits = search(queries.features, gallery.features, 5, Comparison(), [0])
    images, (page,) = page_of(network, queries, gallery, hits, topk=2)
    assert [images[place].name for place in page.hits] == [gallery.names[n] for n in hits[0].rows]
    with_regions = [images[place].regions is not None for place in page.hits]
    assert with_regions == [True, True, False, False, False] and page.cosines.shape == (2, 8)
    assert images[page.image].regions is not None and images[page.image].name == "0_c0.jpg"
    by_name = {image.name: image for image in images}
    assert by_name["Büro/3_c1.jpg"][2:4] == ("Büro", "1") and by_name["0_c0.jpg"][2:4] == (".", "0")
    first = images[page.hits[0]]
    regions = describe_files(network, [images[page.image].path, first.path])
    np.testing.assert_array_equal(first.regions, regions.labels[1])
    np.testing.assert_allclose(page.cosines[0], cosines(regions, 0, np.array([1]))[0], atol=1e-5)
