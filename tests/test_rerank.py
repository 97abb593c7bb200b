"""Re-ranking against torchreid's numbers and against plain loops with a stable sort."""

import naive
import numpy as np
import pytest
import torch
import torchreid
from embeddings import clustered, duplicated

from magnifier_plugin.evaluation.distances import distance_matrix
from magnifier_plugin.evaluation.kreciprocal.row_distances import FeatureDistances, MatrixDistances
from magnifier_plugin.evaluation.rerank import rerank, rerank_distances
from magnifier_plugin.evaluation.scaling import l2_normalise

ONE_ROW = 2**-30  # GiB, so little memory that every block is one row


def without_ties(rng, num_queries, num_gallery):
    """Like `clustered`, but without distances in a row so close that rounding could swap them."""
    while True:
        query, gallery = clustered(rng, num_queries, num_gallery)
        features = np.concatenate([query, gallery], dtype=np.float64)
        distances = np.sort(naive.squared_distances(features, features), axis=1)
        if np.diff(distances, axis=1).min() > 1e-6:
            return query, gallery


def matrices(query, gallery):
    """torchreid's three matrices, numpy."""
    distances = torchreid.metrics.compute_distance_matrix
    query, gallery = torch.from_numpy(query), torch.from_numpy(gallery)
    pairs = (query, gallery), (query, query), (gallery, gallery)
    return [distances(*pair).numpy() for pair in pairs]


def random_options(rng, num_rows):
    return {
        "k1": int(rng.integers(1, min(num_rows, 30))),
        "k2": int(rng.integers(1, min(num_rows, 9) + 1)),
        "lambda_value": float(rng.random()),
    }


@pytest.mark.parametrize("hundred", range(5))
def test_equals_torchreid_on_500_problems(hundred):
    """Mixed sizes, including galleries smaller than k1."""
    rng = np.random.default_rng(hundred)
    for _ in range(100):
        num_queries, num_gallery = rng.integers(1, 15), rng.integers(2, 36)
        query, gallery = without_ties(rng, num_queries, num_gallery)
        options = random_options(rng, num_queries + num_gallery)
        given = matrices(query, gallery)
        expected = torchreid.utils.re_ranking(*given, **options)
        np.testing.assert_allclose(rerank_distances(*given, **options), expected, atol=1e-5)
        got = rerank(query, gallery, **options)
        np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("form", ["torchreid", "paper"])
@pytest.mark.parametrize("seed", range(15))
def test_duplicated_rows_equal_the_loop_with_a_stable_sort(seed, form):
    rng = np.random.default_rng(seed)
    query, gallery = duplicated(rng, rng.integers(1, 12), rng.integers(2, 30))
    options = random_options(rng, len(query) + len(gallery)) | {"form": form}
    pairs = (query, gallery), (query, query), (gallery, gallery)
    given = [naive.squared_distances(*pair) for pair in pairs]
    expected = naive.re_ranking(*given, **options)
    np.testing.assert_allclose(rerank_distances(*given, **options), expected, atol=1e-5)
    np.testing.assert_allclose(rerank(query, gallery, **options), expected, atol=1e-5)


@pytest.mark.parametrize("form", ["torchreid", "paper"])
def test_asymmetric_distances_equal_the_loop(form):
    """Rounding makes torchreid's matrices slightly asymmetric; it transposes before it sorts."""
    rng = np.random.default_rng(0)
    given = [rng.random(shape) for shape in ((6, 14), (6, 6), (14, 14))]
    expected = naive.re_ranking(*given, 5, 3, 0.3, form=form)
    got = rerank_distances(*given, 5, 3, 0.3, form=form)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_paper_form_is_the_squared_distance():
    rng = np.random.default_rng(1)
    query, gallery = clustered(rng, 7, 20)
    given = matrices(query, gallery)
    rooted = [np.sqrt(np.maximum(matrix, 0)) for matrix in given]
    expected = torchreid.utils.re_ranking(*rooted, k1=6, k2=3, lambda_value=0.4)
    got = rerank_distances(*given, 6, 3, 0.4, form="paper")
    np.testing.assert_allclose(got, expected, atol=1e-5)
    np.testing.assert_allclose(rerank(query, gallery, 6, 3, 0.4, form="paper"), got, atol=1e-5)


def test_cosine_distances_equal_normalised_features():
    rng = np.random.default_rng(2)
    query, gallery = (rng.normal(size=(n, 8)).astype(np.float32) for n in (6, 25))
    tensors = torch.from_numpy(query), torch.from_numpy(gallery)
    pairs = (0, 1), (0, 0), (1, 1)
    given = [distance_matrix(tensors[i], tensors[j], "cosine") for i, j in pairs]
    expected = rerank_distances(*given, k1=5, k2=3)
    normalised = [torch.nn.functional.normalize(features) for features in tensors]
    np.testing.assert_allclose(rerank(*normalised, k1=5, k2=3), expected, atol=1e-5)


def test_memory_changes_only_the_blocks():
    rng = np.random.default_rng(3)
    query, gallery = duplicated(rng, 9, 30)
    options = {"k1": 6, "k2": 3}
    expected = rerank(query, gallery, **options)
    np.testing.assert_allclose(
        rerank(query, gallery, **options, memory=ONE_ROW), expected, atol=1e-6
    )
    given = matrices(query, gallery)
    got = rerank_distances(*given, k1=6, k2=3, memory=ONE_ROW)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_blocks_of_pairs_are_put_together():
    """`between` is called for a few rows at a time; here the rows need several blocks."""
    rng = np.random.default_rng(5)
    query, gallery = clustered(rng, 4, 9)
    given = map(torch.from_numpy, matrices(query, gallery))
    matrix = MatrixDistances(*given, form="torchreid", memory=32 * 13)
    query, gallery = torch.from_numpy(query), torch.from_numpy(gallery)
    features = FeatureDistances(query, gallery, form="torchreid", memory=2**20)
    assert matrix.block_rows == 1
    assert torch.equal(features.nearest(5), matrix.nearest(5))
    offsets, columns = torch.tensor([0, 3, 3, 5, 9]), torch.tensor([12, 0, 5, 1, 2, 3, 4, 11, 7])
    expected = features.between(2, offsets, columns)
    for matrix.block_rows in (1, 2, 3, 9):
        got = matrix.between(2, offsets, columns)
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


def test_more_memory_than_torch_can_count():
    query, gallery = np.random.default_rng(0).normal(size=(2, 9, 4)).astype(np.float32)
    expected = rerank(query, gallery, 3, 2)
    np.testing.assert_allclose(rerank(query, gallery, 3, 2, memory=1e300), expected, atol=1e-6)


def test_default_memory(monkeypatch):
    """1/64 GiB on a CPU, whose caches are small."""
    found = []

    def distances(*arguments):
        found.append(arguments[-1])
        return FeatureDistances(*arguments)

    monkeypatch.setattr("magnifier_plugin.evaluation.rerank.FeatureDistances", distances)
    rerank(*clustered(np.random.default_rng(0), 3, 9), k1=2, k2=1)
    assert found == [2**24]


@pytest.mark.parametrize("form", ["torchreid", "paper"])
@pytest.mark.parametrize("value", [0.0, 0.3, 1e-30])
def test_identical_rows_are_finite(form, value):
    query, gallery = np.full((3, 5), value, np.float32), np.full((40, 5), value, np.float32)
    got = rerank(query, gallery, form=form)
    assert np.isfinite(got).all()
    zeros = [np.zeros(shape, np.float32) for shape in ((3, 40), (3, 3), (40, 40))]
    expected = naive.re_ranking(*zeros, 20, 6, 0.3)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    np.testing.assert_allclose(rerank_distances(*zeros, form=form), expected, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_are_computed_in_float32(dtype):
    query, gallery = (
        torch.from_numpy(f).to(dtype) for f in clustered(np.random.default_rng(4), 5, 20)
    )
    got = rerank(query.requires_grad_(), gallery, k1=5, k2=2)
    assert got.dtype == torch.float32 and not got.requires_grad
    torch.testing.assert_close(got, rerank(query.float(), gallery.float(), k1=5, k2=2))


def test_returns_the_type_that_it_was_given():
    query, gallery = clustered(np.random.default_rng(5), 4, 20)
    before = query.copy(), gallery.copy()
    assert isinstance(rerank(query, gallery, k1=5), np.ndarray)
    assert isinstance(rerank(*map(torch.from_numpy, (query, gallery)), k1=5), torch.Tensor)
    given = matrices(query, gallery)
    copies = [matrix.copy() for matrix in given]
    assert isinstance(rerank_distances(*given, k1=5), np.ndarray)
    for now, then in zip((query, gallery, *given), (*before, *copies), strict=True):
        np.testing.assert_array_equal(now, then)


def features_with(value):
    features = np.ones((8, 4))
    features[[1, 6], 2] = value
    return features


GOOD = np.eye(8, 4, dtype=np.float32)


@pytest.mark.parametrize(
    ("query", "gallery", "options", "message"),
    [
        (features_with(np.nan), GOOD, {}, "query features: NaN or infinity in 2 of 8 rows: 1, 6"),
        (GOOD, features_with(np.inf), {}, "gallery features: NaN or infinity in 2 of 8 rows: 1, 6"),
        (np.full((8, 4), np.nan), GOOD, {}, "8 of 8 rows: 0, 1, 2, 3, 4 and 3 more"),
        (
            features_with(1e39),
            GOOD,
            {},
            "query features: values beyond float32 .* in 2 of 8 rows: 1, 6",
        ),
        (GOOD, GOOD[:, :3], {}, "query features have 4 dimensions, gallery features 3"),
        (GOOD[0], GOOD, {}, r"query features: expected a dense floating-point matrix, .* \[4\]"),
        (
            GOOD.astype(int),
            GOOD,
            {},
            "query features: expected .* floating-point matrix, got torch.int64",
        ),
        (GOOD[:0], GOOD, {}, r"query features: empty, got \[0, 4\]"),
        (GOOD, GOOD[:0], {}, r"gallery features: empty, got \[0, 4\]"),
        (GOOD, GOOD, {"k1": 16}, "k1: expected 1..15, .* 16 images .* got 16"),
        (GOOD, GOOD, {"k1": 0}, "k1: expected 1..15"),
        (GOOD, GOOD, {"k2": 0}, "k2: expected 1..16, got 0"),
        (GOOD, GOOD, {"k2": 17}, "k2: expected 1..16, got 17"),
        (GOOD, GOOD, {"lambda_value": -0.1}, "lambda_value: expected 0..1, got -0.1"),
        (GOOD, GOOD, {"lambda_value": 1.1}, "lambda_value: expected 0..1, got 1.1"),
        (GOOD, GOOD, {"lambda_value": np.nan}, "lambda_value: expected 0..1, got nan"),
        (GOOD, GOOD, {"form": "zhong"}, "form: expected one of .*'paper'.* got 'zhong'"),
        (GOOD, GOOD, {"memory": 0}, "memory: expected a finite number of GiB above 0, got 0"),
        (GOOD, GOOD, {"memory": np.inf}, "memory: expected a finite number .*, got inf"),
        (GOOD, GOOD, {"memory": np.nan}, "memory: expected a finite number .*, got nan"),
    ],
)
def test_bad_input(query, gallery, options, message):
    with pytest.raises(ValueError, match=message):
        rerank(query, gallery, **{"k1": 5} | options)
    if options:
        with pytest.raises(ValueError, match=message):
            rerank_distances(*matrices(query, gallery), **{"k1": 5} | options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({1: np.zeros((3, 4))}, r"expected .*\[Q, Q\].*q_q \[3, 4\]"),
        ({2: np.zeros((3, 3))}, r"expected .*\[G, G\].*g_g \[3, 3\]"),
        ({0: np.zeros((5, 3))}, r"got q_g \[5, 3\]"),
        ({0: np.full((3, 5), np.nan)}, "q_g: NaN or infinity in 3 of 3 rows"),
        ({2: np.full((5, 5), np.inf)}, "g_g: NaN or infinity in 5 of 5 rows"),
        ({0: np.zeros((0, 5)), 1: np.zeros((0, 0))}, "q_g: empty"),
        ({0: np.zeros((3, 5), int)}, "q_g: expected .* floating-point"),
    ],
)
def test_bad_distances(change, message):
    given = [np.zeros((3, 5)), np.zeros((3, 3)), np.zeros((5, 5))]
    for position, matrix in change.items():
        given[position] = matrix
    with pytest.raises(ValueError, match=message):
        rerank_distances(*given, k1=2, k2=2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_autocast_region_of_the_caller_changes_nothing(dtype):
    features = clustered(np.random.default_rng(7), 6, 30)
    query, gallery = (torch.from_numpy(part).to(dtype) for part in features)
    given = [
        distance_matrix(*pair) for pair in ((query, gallery), (query, query), (gallery, gallery))
    ]

    def results():
        return (
            distance_matrix(query, gallery, "euclidean"),
            distance_matrix(query, gallery, "cosine"),
            l2_normalise(query),
            rerank(query, gallery, k1=5, k2=3),
            rerank_distances(*given, k1=5, k2=3),
        )

    expected = results()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = results()
    for value, reference in zip(got, expected, strict=True):
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, reference, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("dtype", "exponent"),
    [(np.float32, -120), (np.float32, 120), (np.float64, -1000), (np.float64, 1000)],
)
def test_the_magnitude_of_distances_does_not_change_the_reranking(dtype, exponent):
    given = [
        matrix.astype(dtype) for matrix in matrices(*duplicated(np.random.default_rng(9), 9, 30))
    ]
    expected = rerank_distances(*given, k1=6, k2=3)
    scaled = (np.ldexp(matrix, exponent) for matrix in given)
    np.testing.assert_array_equal(rerank_distances(*scaled, k1=6, k2=3), expected)
