"""Nearest neighbours of 1000 rows, against a sort of all distances."""

import naive
import numpy as np
import pytest
import torch
from embeddings import clustered, duplicated

from magnifier_plugin.evaluation.kreciprocal import sorting
from magnifier_plugin.evaluation.kreciprocal.search import SquaredDistances, search


def features_like(kind):
    """float32 [1000, D]: features whose neighbours are easy or hard to distinguish."""
    rng = np.random.default_rng(6)
    if kind == "clustered":
        return np.concatenate(clustered(rng, 100, 900, dim=256, spread=2.0))
    if kind == "far from the origin":
        return np.concatenate(clustered(rng, 100, 900, dim=64)) + 1
    if kind == "uneven norms":
        scale = np.exp(rng.normal(size=(1000, 1))).astype(np.float32)
        return np.concatenate(clustered(rng, 100, 900, dim=64)) * scale
    if kind == "one tight cluster":
        features = np.concatenate(clustered(rng, 100, 900, dim=64))
        features[-120:] = features[-1] + 1e-2 * rng.normal(size=(120, 64))
        return features
    return np.concatenate(duplicated(rng, 100, 900, dim=4))


@pytest.mark.parametrize("side", [64, 300, 4096])
@pytest.mark.parametrize(
    "kind",
    [
        "clustered",
        "far from the origin",
        "uneven norms",
        "one tight cluster",
        "duplicated",
    ],
)
def test_finds_the_neighbours(kind, side):
    features = features_like(kind)
    distances = SquaredDistances(torch.from_numpy(features))
    found = search(distances, 100, 21, memory=16 * side**2)
    true = naive.squared_distances(features.astype(float), features)
    np.testing.assert_allclose(found.query_gallery, true[:100, 100:], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found.furthest, true.max(axis=1), rtol=1e-4)
    nearest = np.argsort(true, axis=1, kind="stable")[:, :21]
    if kind == "duplicated":
        np.testing.assert_array_equal(found.nearest, nearest)
    else:  # float32 may swap two rows at nearly the same distance
        got = np.take_along_axis(true, found.nearest.numpy(), axis=1)
        expected = np.take_along_axis(true, nearest, axis=1)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-3)
        assert (found.nearest.numpy() == nearest).mean() > 0.99


@pytest.mark.parametrize("width", [1, 3, 8, 50])
def test_rows_are_sorted_by_several_threads(width, monkeypatch):
    monkeypatch.setattr(sorting, "_TASK_SIZE", 8)
    block = torch.from_numpy(np.random.default_rng(0).random((20, width), dtype=np.float32))
    block[0, 0] = torch.nan
    given = block.clone()
    torch.testing.assert_close(sorting.sort_rows(block), block.sort().values, equal_nan=True)
    torch.testing.assert_close(block, given, equal_nan=True)  # the argument is not sorted in place


def test_a_row_is_at_distance_0_from_itself():
    distances = SquaredDistances(torch.from_numpy(features_like("clustered") + 100))
    rows = torch.arange(30)
    assert not distances.tile(slice(0, 30), slice(0, 30)).diagonal().any()
    assert not distances.rows(rows)[rows, rows].any()
    assert not distances.pairs(0, torch.arange(31), rows).any()
