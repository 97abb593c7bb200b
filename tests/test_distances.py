"""Distance matrices against torchreid's, and features at the ends of float32's range."""

import numpy as np
import pytest
import torch
import torchreid
from embeddings import duplicated

from magnifier_plugin.evaluation import distances
from magnifier_plugin.evaluation.checks import as_features
from magnifier_plugin.evaluation.distances import distance_matrix
from magnifier_plugin.evaluation.rerank import rerank
from magnifier_plugin.evaluation.scaling import l2_normalise

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="no oneDNN")


@pytest.mark.parametrize("by_onednn", [False, pytest.param(True, marks=needs_onednn)])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_distance_matrix_equals_torchreid(metric, by_onednn, monkeypatch):
    monkeypatch.setattr(distances, "_onednn_pays", lambda features: by_onednn)
    monkeypatch.setattr(distances, "_BLOCK_BYTES", 80)  # two rows
    query, gallery = torch.randn(5, 7), torch.randn(9, 7)
    expected = torchreid.metrics.compute_distance_matrix(query, gallery, metric)
    torch.testing.assert_close(distance_matrix(query, gallery, metric), expected)
    half = distance_matrix(query.bfloat16(), gallery.bfloat16(), metric)
    assert half.dtype == torch.float32
    torch.testing.assert_close(
        half, distance_matrix(query.bfloat16().float(), gallery.bfloat16().float(), metric)
    )


def test_features_on_two_devices():
    with pytest.raises(ValueError, match="query features are on cpu, gallery features on meta"):
        as_features(torch.ones(3, 2), torch.ones(3, 2, device="meta"))


@pytest.mark.parametrize("exponent", [-140, -90, -30, 60, 100, 125])
def test_the_magnitude_of_features_does_not_change_the_reranking(exponent):
    query, gallery = duplicated(np.random.default_rng(8), 9, 30)
    expected = rerank(query, gallery, k1=6, k2=3)
    scaled = (np.ldexp(part, exponent) for part in (query, gallery))
    np.testing.assert_array_equal(rerank(*scaled, k1=6, k2=3), expected)


@pytest.mark.parametrize("factor", [1e-40, 1e-25, 1e-13, 1e19, 3e37])
def test_the_magnitude_of_features_does_not_change_cosine_distances(factor):
    query, gallery = torch.rand(5, 7) + 0.1, torch.rand(9, 7) + 0.1
    expected = distance_matrix(query, gallery, "cosine")
    got = distance_matrix(query * factor, gallery, "cosine")
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-5)
    assert torch.equal(l2_normalise(torch.zeros(2, 3)), torch.zeros(2, 3))


def test_euclidean_distances_beyond_float32_are_an_error():
    features = torch.full((3, 4), 2e18)
    assert distance_matrix(features, -features).isfinite().all()
    for factor in (4, 1e20):
        with pytest.raises(ValueError, match=r"norms .* below 9.2e\+18.* found norms up to \d.*L2"):
            distance_matrix(features * factor, features)


def test_unknown_metric():
    with pytest.raises(ValueError, match="metric: expected 'euclidean' or 'cosine', got 'l1'"):
        distance_matrix(torch.ones(2, 2), torch.ones(2, 2), "l1")
