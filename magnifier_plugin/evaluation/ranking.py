"""CMC, mAP and mINP of a distance matrix.

Ties: of two gallery images at the same distance, the one with the smaller index comes first.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from magnifier_plugin.evaluation.matches import Matches, draw_single_shots, find_matches

Array = np.ndarray | Tensor


class Ranking(NamedTuple):
    """Metrics of one evaluation, averaged over the `num_valid` queries that have a match."""

    cmc: np.ndarray
    """float64 [max_rank]; cmc[r - 1] is the fraction of queries with a match among the first r."""
    mAP: float
    """Mean average precision, in [0, 1]."""
    mINP: float
    """Mean inverse negative penalty (Ye et al., 2021), in [0, 1]."""
    num_valid: int
    """Number of queries with a match."""
    num_absent: int
    """Number of queries left out because their identity is not in the gallery."""
    num_same_camera: int
    """Number of queries left out because their identity is in the gallery only in images of the
    query's own camera."""
    average_precision: np.ndarray
    """float64 [Q], in [0, 1]; NaN for a query without a match."""
    first_match: np.ndarray
    """int64 [Q], rank of the query's first match in the whole gallery, from 1; 0 if none."""


class _Arguments(NamedTuple):
    """Validated arguments; ids are replaced by codes 0, 1, …, shared by query and gallery."""

    distmat: Tensor
    """float32 or float64 [Q, G]."""
    q_pids: np.ndarray
    """int64 [Q]."""
    g_pids: np.ndarray
    """int64 [G]."""
    q_camids: np.ndarray
    """int64 [Q]."""
    g_camids: np.ndarray
    """int64 [G]."""


def evaluate_ranking(
    distmat: Array,
    q_pids: Array,
    g_pids: Array,
    q_camids: Array,
    g_camids: Array,
    max_rank: int = 50,
) -> Ranking:
    """CMC, mAP and mINP with Market-1501's protocol (Zheng et al., ICCV 2015).

    A query's gallery images of the same identity and camera are left out. Queries without a match
    are left out of every mean and counted. Among equal distances the smaller gallery index comes
    first.

    Args:
        distmat: floating point [Q, G] on any device; smaller means more similar; may be infinite.
        q_pids: identity of each query [Q], integers or strings.
        g_pids: identity of each gallery image [G].
        q_camids: camera of each query [Q], integers or strings.
        g_camids: camera of each gallery image [G].
        max_rank: length of the CMC; beyond the size of a smaller gallery it keeps its last value.
    Raises:
        ValueError: shapes disagree, query or gallery is empty, a distance is NaN, max_rank < 1, or
            no query has a match.
    """
    arguments = _validate(distmat, q_pids, g_pids, q_camids, g_camids, max_rank)
    return _summarise(arguments, find_matches(*arguments), max_rank, q_pids)


def evaluate_cuhk03(
    distmat: Array,
    q_pids: Array,
    g_pids: Array,
    q_camids: Array,
    g_camids: Array,
    max_rank: int = 50,
    repeats: int = 10,
    seed: int = 0,
) -> Ranking:
    """The metric of CUHK03's classic split: single gallery shot (Li et al., CVPR 2014).

    For each query one image of each gallery identity is drawn; the CMC is computed on the drawn
    images and averaged over `repeats` draws. As in torchreid, mAP (and mINP) use the whole gallery.

    Args:
        distmat, q_pids, g_pids, q_camids, g_camids, max_rank: as in `evaluate_ranking`.
        repeats: number of draws for each query, at least 1.
        seed: seed of the draws; numpy's and torch's global generators are not used.
    Raises:
        ValueError: as in `evaluate_ranking`, or repeats < 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats: expected at least 1, got {repeats}")
    arguments = _validate(distmat, q_pids, g_pids, q_camids, g_camids, max_rank)
    matches = find_matches(*arguments)
    ranking = _summarise(arguments, matches, max_rank, q_pids)
    generator = np.random.default_rng(seed)
    ranks = [
        draw_single_shots(arguments.distmat, arguments.g_pids, matches, generator)
        for _ in range(repeats)
    ]
    return ranking._replace(cmc=_cmc(np.concatenate(ranks), max_rank))


def _validate(
    distances: Array,
    q_pids: Array,
    g_pids: Array,
    q_camids: Array,
    g_camids: Array,
    max_rank: int,
) -> _Arguments:
    distmat = torch.as_tensor(distances).detach()
    if distmat.ndim != 2 or not distmat.is_floating_point():
        raise ValueError(
            f"distmat: expected floating point [Q, G], got {distmat.dtype} {list(distmat.shape)}"
        )
    if distmat.numel() == 0:
        raise ValueError(f"distmat: query or gallery is empty, got {list(distmat.shape)}")
    if max_rank < 1:
        raise ValueError(f"max_rank: expected at least 1, got {max_rank}")
    if distmat.dtype != torch.float64:
        distmat = distmat.float()
    num_queries, num_gallery = distmat.shape
    pids = _as_codes({"q_pids": (q_pids, num_queries), "g_pids": (g_pids, num_gallery)})
    camids = _as_codes({"q_camids": (q_camids, num_queries), "g_camids": (g_camids, num_gallery)})
    return _Arguments(distmat, *pids, *camids)


def _as_codes(named_ids: dict[str, tuple[Array, int]]) -> list[np.ndarray]:
    ids = []
    for name, (values, expected) in named_ids.items():
        values = values.cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
        if values.shape != (expected,):
            raise ValueError(
                f"{name}: expected [{expected}] to match distmat, got {list(values.shape)}"
            )
        ids.append(values)
    codes = np.unique(np.concatenate(ids), return_inverse=True)[1]
    return np.split(codes, [len(ids[0])])


def _summarise(arguments: _Arguments, matches: Matches, max_rank: int, q_pids: Array) -> Ranking:
    first, last = matches.order == 1, matches.order == matches.total
    num_queries, num_valid = len(arguments.q_pids), int(first.sum())
    absent = ~np.isin(arguments.q_pids, arguments.g_pids)
    num_absent = int(absent.sum())
    if num_valid == 0:
        raise ValueError(
            f"none of the {num_queries} queries has a match in the gallery: for {num_absent} the "
            f"identity is absent{_example(absent, q_pids)}, for {num_queries - num_absent} it is "
            f"there only in the query's own camera{_example(~absent, q_pids)}; do query and "
            "gallery share one numbering of identities and cameras?"
        )
    first_match = np.zeros(num_queries, np.int64)
    first_match[matches.query[first]] = matches.rank[first]
    precision = matches.order / matches.rank
    sums = np.bincount(matches.query, precision / matches.total, minlength=num_queries)
    return Ranking(
        cmc=_cmc(matches.rank[first], max_rank),
        mAP=float(sums.sum() / num_valid),
        mINP=float(precision[last].mean()),
        num_valid=num_valid,
        num_absent=num_absent,
        num_same_camera=num_queries - num_valid - num_absent,
        average_precision=np.where(sums > 0, sums, np.nan),
        first_match=first_match,
    )


def _example(chosen: np.ndarray, q_pids: Array) -> str:
    query = int(chosen.argmax())
    return f" (such as query {query}, pid {q_pids[query]})" if chosen[query] else ""


def _cmc(first_ranks: np.ndarray, max_rank: int) -> np.ndarray:
    hits = np.bincount(np.minimum(first_ranks, max_rank + 1) - 1, minlength=max_rank)
    return hits[:max_rank].cumsum() / len(first_ranks)
