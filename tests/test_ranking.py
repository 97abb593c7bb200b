"""CMC, mAP and mINP against torchreid's numbers and against plain loops."""

import naive
import numpy as np
import pytest
import torch
import torchreid

from magnifier_plugin.evaluation import matches
from magnifier_plugin.evaluation.ranking import evaluate_cuhk03, evaluate_ranking


def problem(seed, num_queries=12, num_gallery=60, num_pids=6, num_cameras=3, ties=False):
    """distmat float32 [Q, G], q_pids, g_pids, q_camids, g_camids, all random."""
    rng = np.random.default_rng(seed)
    distmat = rng.random((num_queries, num_gallery), dtype=np.float32)
    if ties:
        distmat = np.round(distmat * 4) / 4
    pids = rng.integers(0, num_pids, num_queries), rng.integers(0, num_pids, num_gallery)
    camids = rng.integers(0, num_cameras, num_queries), rng.integers(0, num_cameras, num_gallery)
    return distmat, *pids, *camids


def assert_equal(got, expected, but=()):
    """Asserts that all fields of two rankings are equal, except for some."""
    for name, value in expected._asdict().items():
        if name not in but:
            np.testing.assert_array_equal(getattr(got, name), value, name)


def assert_equals_loop(arguments, max_rank=10):
    got = evaluate_ranking(*arguments, max_rank=max_rank)
    cmc, mean_ap, mean_inp, num_valid = naive.ranking(*arguments, max_rank)
    np.testing.assert_allclose(got.cmc, cmc, atol=1e-12)
    assert got.mAP == pytest.approx(mean_ap, abs=1e-12)
    assert got.mINP == pytest.approx(mean_inp, abs=1e-12)
    assert got.num_valid == num_valid
    found = got.first_match[got.first_match > 0]
    assert len(found) == num_valid
    np.testing.assert_allclose([(found <= r).mean() for r in range(1, max_rank + 1)], cmc)
    np.testing.assert_array_equal(got.first_match == 0, np.isnan(got.average_precision))
    assert got.num_valid + got.num_absent + got.num_same_camera == len(arguments[0])


@pytest.mark.parametrize("seed", range(20))
def test_equals_torchreid(seed):
    arguments = problem(seed)
    cmc, mean_ap = torchreid.metrics.evaluate_rank(*arguments, max_rank=20, use_cython=False)
    got = evaluate_ranking(*arguments, max_rank=20)
    np.testing.assert_allclose(got.cmc, cmc, atol=1e-6)
    assert got.mAP == pytest.approx(mean_ap, abs=1e-6)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("num_gallery", [5, 40, 300])
@pytest.mark.parametrize("num_queries", [1, 9, 70])
def test_equals_loop(num_queries, num_gallery, ties):
    arguments = problem(1, num_queries, num_gallery, num_pids=3, ties=ties)
    assert_equals_loop(arguments, max_rank=50)


def test_all_distances_equal_ranks_by_gallery_index():
    got = evaluate_ranking(np.zeros((1, 4)), [7], [1, 2, 7, 7], [0], [1, 1, 1, 1], max_rank=4)
    np.testing.assert_array_equal(got.cmc, [0, 0, 1, 1])
    assert got.mAP == pytest.approx((1 / 3 + 2 / 4) / 2)
    assert got.mINP == pytest.approx(2 / 4)


def test_blocks_of_any_size_agree(monkeypatch):
    arguments = problem(3, num_queries=40, ties=True)
    whole = evaluate_ranking(*arguments)
    for block_bytes in (1, 1000):
        monkeypatch.setattr(matches, "_BLOCK_BYTES", block_bytes)
        parts = evaluate_ranking(*arguments)
        assert_equal(parts, whole)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_equal_arrays(dtype):
    distmat, *ids = problem(4)
    distmat = torch.from_numpy(distmat).to(dtype)
    expected = evaluate_ranking(distmat.double().numpy(), *ids)
    distmat.requires_grad_()
    ids = [torch.from_numpy(i) for i in ids]
    got = evaluate_ranking(distmat, *ids)
    assert_equal(got, expected)
    assert_equal(evaluate_cuhk03(distmat, *ids), expected, but=["cmc"])


def test_float64_is_not_rounded():
    distmat = np.array([[1 + 1e-12, 1.0]])
    assert evaluate_ranking(distmat, [1], [2, 1], [0], [1, 1], max_rank=1).cmc[0] == 1


def test_infinite_distances_come_last():
    distmat = np.array([[np.inf, 0.5, -np.inf]], dtype=np.float32)
    got = evaluate_ranking(distmat, [1], [1, 2, 2], [0], [1, 1, 1], max_rank=3)
    np.testing.assert_array_equal(got.cmc, [0, 0, 1])


def test_ids_may_be_names():
    distmat, q_pids, g_pids, q_camids, g_camids = problem(5)
    named = [np.array([f"id {i}" for i in ids]) for ids in (q_pids, g_pids, q_camids, g_camids)]
    expected = evaluate_ranking(distmat, q_pids, g_pids, q_camids, g_camids)
    assert_equal(evaluate_ranking(distmat, *named), expected)


def test_small_gallery_carries_the_last_value_on():
    got = evaluate_ranking(np.array([[0.2, 0.1]]), [1], [1, 2], [0], [1, 1], max_rank=5)
    np.testing.assert_array_equal(got.cmc, [0, 1, 1, 1, 1])


def test_uneven_camera_filtering():
    """torchreid's loop raises here: its rows have lengths 1 and 3."""
    distmat = np.array([[0.1, 0.2, 0.3], [0.3, 0.1, 0.2]])
    ids = [1, 2], [1, 1, 2], [0, 0], [0, 1, 1]
    with pytest.raises(ValueError):
        torchreid.metrics.evaluate_rank(distmat, *map(np.array, ids), max_rank=3, use_cython=False)
    assert_equals_loop((distmat, *ids))


def test_queries_without_a_match_are_counted_and_left_out():
    distmat = np.array([[0.1, 0.2], [0.1, 0.2], [0.1, 0.2]])
    got = evaluate_ranking(distmat, [1, 2, 3], [1, 2], [0, 0, 0], [1, 0], max_rank=2)
    assert (got.num_valid, got.num_absent, got.num_same_camera) == (1, 1, 1)
    assert got.cmc[0] == got.mAP == got.mINP == 1
    np.testing.assert_array_equal(got.average_precision, [1, np.nan, np.nan])


@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_of_each_query_equals_the_loop(ties):
    distmat, q_pids, g_pids, q_camids, g_camids = problem(8, num_pids=30, ties=ties)
    got = evaluate_ranking(distmat, q_pids, g_pids, q_camids, g_camids)
    valid = np.flatnonzero(~np.isnan(got.average_precision))
    assert 0 < len(valid) == got.num_valid < len(distmat) == len(got.average_precision)
    for q in valid:
        single = distmat[[q]], q_pids[[q]], g_pids, q_camids[[q]], g_camids
        expected = naive.ranking(*single, max_rank=1)[1]
        assert got.average_precision[q] == pytest.approx(expected, abs=1e-12)
    assert got.mAP == pytest.approx(np.nanmean(got.average_precision), abs=1e-12)


def test_no_match_at_all_is_an_error_that_says_why():
    with pytest.raises(ValueError, match=r"3 queries.*for 2 .*absent .*pid 8.*for 1 .*pid 5"):
        evaluate_ranking(np.zeros((3, 2)), [8, 9, 5], [5, 6], [0, 0, 0], [0, 0])


@pytest.mark.parametrize("ties", [False, True])
def test_cuhk03_draws_as_often_as_the_loop(ties):
    repeats = 1000
    arguments = problem(7, num_queries=8, num_gallery=40, num_pids=5, ties=ties)
    got = evaluate_cuhk03(*arguments, max_rank=8, repeats=repeats)
    expected = naive.single_shot_cmc(*arguments, 8, repeats, np.random.default_rng(0))
    # The variance of one draw is at most 1/4; two independent means may differ by five sigma.
    np.testing.assert_allclose(got.cmc, expected, atol=5 * (2 / 4 / (8 * repeats)) ** 0.5)
    assert_equal(got, evaluate_ranking(*arguments), but=["cmc"])


def test_cuhk03_equals_torchreid_where_nothing_is_left_to_draw():
    rng = np.random.default_rng(0)
    distmat = rng.random((5, 30), dtype=np.float32)
    ids = np.arange(5), np.arange(30), np.zeros(5, int), np.ones(30, int)
    cmc, mean_ap = torchreid.metrics.evaluate_rank(
        distmat, *ids, max_rank=20, use_metric_cuhk03=True, use_cython=False
    )
    got = evaluate_cuhk03(distmat, *ids, max_rank=20)
    np.testing.assert_allclose(got.cmc, cmc, atol=1e-6)
    assert got.mAP == pytest.approx(mean_ap, abs=1e-6)


def test_cuhk03_depends_only_on_its_seed():
    arguments = problem(6)
    np.random.seed(1)
    torch.manual_seed(1)
    first = evaluate_cuhk03(*arguments, seed=3)
    state = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    again, other = evaluate_cuhk03(*arguments, seed=3), evaluate_cuhk03(*arguments, seed=4)
    np.testing.assert_array_equal(first.cmc, again.cmc)
    assert (first.cmc != other.cmc).any()
    assert state == (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


def test_cuhk03_averages_ten_draws():
    arguments = problem(3)
    expected = evaluate_cuhk03(*arguments, repeats=10, seed=0)
    assert_equal(evaluate_cuhk03(*arguments), expected)
    assert evaluate_cuhk03(*arguments, repeats=11).cmc.tolist() != expected.cmc.tolist()


def test_cuhk03_carries_the_last_value_on():
    got = evaluate_cuhk03(np.array([[0.2, 0.1, 0.3]]), [1], [1, 2, 2], [0], [1, 1, 1], max_rank=5)
    assert got.cmc[1:].tolist() == [1, 1, 1, 1]


def bad(distmat=None, q_pids=(1, 2), g_pids=(1, 2, 3), q_camids=(0, 0), g_camids=(1, 1, 1), **more):
    distmat = np.zeros((2, 3)) if distmat is None else distmat
    return [distmat, q_pids, g_pids, q_camids, g_camids], more


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (bad(distmat=np.zeros(3)), r"distmat: expected floating point \[Q, G\]"),
        (bad(distmat=np.zeros((2, 3), int)), r"distmat: expected floating point .*int64 \[2, 3\]"),
        (bad(distmat=np.zeros((2, 0)), g_pids=(), g_camids=()), "query or gallery is empty"),
        (bad(distmat=np.zeros((0, 3)), q_pids=(), q_camids=()), "query or gallery is empty"),
        (bad(distmat=np.array([[0, 0, 0], [0, np.nan, 0]])), "NaN in row 1"),
        (bad(q_pids=(1,)), r"q_pids: expected \[2\] to match distmat, got \[1\]"),
        (bad(g_pids=(1, 2)), r"g_pids: expected \[3\] to match distmat, got \[2\]"),
        (bad(q_camids=((0, 0),)), r"q_camids: expected \[2\] to match distmat, got \[1, 2\]"),
        (bad(g_camids=(1, 1, 1, 1)), r"g_camids: expected \[3\] to match distmat, got \[4\]"),
        (bad(max_rank=0), "max_rank: expected at least 1, got 0"),
    ],
)
def test_bad_input(arguments, message):
    positional, named = arguments
    with pytest.raises(ValueError, match=message):
        evaluate_ranking(*positional, **named)
    with pytest.raises(ValueError, match=message):
        evaluate_cuhk03(*positional, **named)


def test_bad_repeats():
    with pytest.raises(ValueError, match="repeats: expected at least 1, got 0"):
        evaluate_cuhk03(*problem(0), repeats=0)
