"""Exact search in blocks, against a sort of all distances."""

import naive
import numpy as np
import pytest
import torch
from embeddings import clustered, duplicated

from magnifier_plugin.evaluation import nearest as module
from magnifier_plugin.evaluation.distances import distance_matrix
from magnifier_plugin.evaluation.nearest import nearest


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Several blocks of the gallery and several groups of queries."""
    monkeypatch.setattr(module, "_BLOCK_BYTES", 7 * 4 * 16)
    monkeypatch.setattr(module, "_DISTANCE_BYTES", 5 * 4 * 60)


def problem(scale=1.0):
    rng = np.random.default_rng(0)
    query, gallery = clustered(rng, 12, 60)
    lengths = rng.uniform(1, 3, (60, 1)).astype(np.float32)
    return query * np.float32(scale), gallery * lengths * np.float32(scale)


def normalised(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("kind", ["array", "tensor", "mapped", "float64"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("normalise", [False, True])
def test_finds_the_nearest(kind, metric, normalise, tmp_path):
    query, gallery = problem()
    np.save(tmp_path / "g.npy", gallery)
    given = {
        "array": gallery,
        "tensor": torch.from_numpy(gallery),
        "mapped": np.load(tmp_path / "g.npy", mmap_mode="r"),
        "float64": gallery.astype(np.float64),
    }[kind]
    before = gallery.copy()
    found = nearest(query, given, 10, metric=metric, normalise=normalise)
    np.testing.assert_array_equal(gallery, before)
    sides = (query, gallery)
    if normalise or metric == "cosine":
        sides = tuple(map(normalised, sides))
    true = naive.squared_distances(*(side.astype(float) for side in sides))
    true = true / 2 if metric == "cosine" else true
    order = np.argsort(true, axis=1, kind="stable")[:, :10]
    np.testing.assert_array_equal(found.indices, order)
    np.testing.assert_allclose(
        found.distances, np.take_along_axis(true, order, axis=1), rtol=1e-4, atol=1e-5
    )


def test_equal_distances_are_ordered_by_row():
    query, gallery = duplicated(np.random.default_rng(1), 5, 60)
    true = naive.squared_distances(query.astype(float), gallery)
    found = nearest(query, gallery, 30)
    np.testing.assert_array_equal(found.indices, np.argsort(true, 1, kind="stable")[:, :30])


def test_the_distance_to_the_same_vector_is_not_negative():
    _, gallery = problem(100)
    distances = nearest(gallery, gallery, 1).distances
    assert (distances >= 0).all() and (distances < 1).all()


def test_at_most_the_whole_gallery_is_returned():
    query, gallery = problem()
    assert nearest(query, gallery[:3], 10).indices.shape == (12, 3)


@pytest.mark.parametrize("scale", [1e-15, 1e15, 1e25])
def test_extreme_norms(scale):
    """Their squares leave float32's range, but the directions do not change."""
    expected = nearest(*problem(), 10, normalise=True)
    found = nearest(*problem(scale), 10, normalise=True)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_allclose(found.distances, expected.distances, atol=1e-5)


def test_a_row_of_zeros_is_at_distance_1():
    query, gallery = problem()
    gallery[20] = 0
    found = nearest(query, gallery, 60, normalise=True)
    np.testing.assert_allclose(found.distances[found.indices == 20], 1, rtol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 1e-15])
def test_cosine_distance_to_zeros_is_1(scale):
    """As in `distance_matrix` and torchreid, where a row of zeros has the cosine 0."""
    query, gallery = problem(scale)
    query[1], gallery[[2, 30]] = 0, 0
    found = nearest(query, gallery, 60, metric="cosine")
    true = distance_matrix(torch.from_numpy(query), torch.from_numpy(gallery), "cosine")
    torch.testing.assert_close(found.distances, true.gather(1, found.indices), rtol=0, atol=1e-6)
    assert (found.distances[found.indices == 30] == 1).all() and (found.distances[1] == 1).all()
    assert (found.distances.diff(dim=1) >= 0).all()


def test_what_it_refuses():
    query, gallery = problem()
    wrong = gallery.copy()
    wrong[[13, 40], 3] = np.nan, np.inf
    with pytest.raises(ValueError, match="gallery features: NaN or infinity in 1 of 7 rows: 13"):
        nearest(query, wrong, 5)
    with pytest.raises(ValueError, match="gallery features: .* rows: 40"):
        nearest(query, np.where(np.isnan(wrong), 0, wrong), 5)
    with pytest.raises(ValueError, match="query features: NaN"):
        nearest(wrong, gallery, 5)
    with pytest.raises(ValueError, match="squared Euclidean distances above"):
        nearest(query, gallery * np.float32(1e20), 5)
    with pytest.raises(ValueError, match=r"expected \[G, 16\] like the query's, got \[60, 8\]"):
        nearest(query, gallery[:, :8], 5)
    with pytest.raises(ValueError, match="like the query's"):
        nearest(query, gallery[:0], 5)
    with pytest.raises(ValueError, match="at least 1 neighbour, got 0"):
        nearest(query, gallery, 0)
    with pytest.raises(ValueError, match="metric: expected 'euclidean' or 'cosine', got 'l2'"):
        nearest(query, gallery, 5, metric="l2")
