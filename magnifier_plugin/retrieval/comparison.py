"""Two networks, or the branches of one network, compared on the queries of a data set."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from magnifier_plugin.catalogue.names import ImageRecord
from magnifier_plugin.evaluation.distances import distance_matrix
from magnifier_plugin.evaluation.matches import find_first_hits
from magnifier_plugin.evaluation.ranking import Ranking, evaluate_ranking
from magnifier_plugin.retrieval.network import TrainedNetwork
from magnifier_plugin.retrieval.photos import embed_files
from magnifier_plugin.visualize.rankings import draw_ranking, first_gallery_images, heading
from magnifier_plugin.visualize.saliency import embedding_parts
from magnifier_plugin.visualize.sheets import stack

_PAIR_GAP = 24  # pixels between two queries on a sheet


class Comparison(NamedTuple):
    """Two networks on the Q queries of a data set."""

    first: np.ndarray
    """bool [Q], whether the first hit of the first network is right."""
    second: np.ndarray
    """bool [Q], whether the first hit of the second network is right."""
    sheet: Image.Image | None
    """MagnifierNet's Fig. 3: queries that the first network gets right and the second wrong, with
    the first's ranking above the second's, below the names of both; None if there are no such
    queries."""


def compare(
    networks: tuple[TrainedNetwork, TrainedNetwork],
    query: Sequence[ImageRecord],
    gallery: Sequence[ImageRecord],
    *,
    names: tuple[str, str],
    rows: int,
    topk: int,
) -> Comparison:
    """Finds the queries that one network gets right and another wrong.

    Args:
        networks: the first, which should be right, and the second.
        query, gallery: torchreid's lists.
        names: what the sheet calls the networks, such as the paths of their checkpoints.
        rows: maximum number of queries on the sheet.
        topk: number of gallery images in a ranking.
    Raises:
        ValueError: an image does not decode.
    """
    (q_pids, q_camids), (g_pids, g_camids) = _ids(query), _ids(gallery)
    distances, right = [], []
    for network in networks:
        features = _embed(network, query), _embed(network, gallery)
        distmat = _distances(network, *features)
        hits = find_first_hits(distmat, q_pids, g_pids, q_camids, g_camids)
        distances.append(distmat.numpy())
        right.append((hits >= 0) & (g_pids[hits] == q_pids))
    chosen = np.flatnonzero(right[0] & ~right[1])[:rows]
    pairs = []
    for q in chosen:
        ranked = (first_gallery_images(d[q], query[q], gallery, topk) for d in distances)
        both = [draw_ranking(query[q], [gallery[i] for i in found]) for found in ranked]
        pairs.append(stack(both, gap=2))
    if not pairs:
        return Comparison(right[0], right[1], None)
    titles = dict(zip(("upper rows", "lower rows"), names, strict=True))
    sheet = stack([heading(titles, pairs[0].width), *pairs], gap=_PAIR_GAP)
    return Comparison(right[0], right[1], sheet)


def evaluate_branches(
    network: TrainedNetwork, query: Sequence[ImageRecord], gallery: Sequence[ImageRecord]
) -> dict[str, tuple[int, Ranking]]:
    """Tests the part of the embedding that each branch computes, as if it were the whole.

    Args:
        network: a network with one or more branches.
        query, gallery: torchreid's lists.
    Returns:
        Branch, and "all" → its number of dimensions and its results.
    Raises:
        ValueError: an image does not decode.
    """
    (q_pids, q_camids), (g_pids, g_camids) = _ids(query), _ids(gallery)
    features = _embed(network, query), _embed(network, gallery)
    results = {}
    for name, columns in embedding_parts(network.model, features[0].shape[1]).items():
        parts = [part[:, columns] for part in features]
        distmat = _distances(network, *parts).numpy()
        ranking = evaluate_ranking(distmat, q_pids, g_pids, q_camids, g_camids)
        results[name] = parts[0].shape[1], ranking
    return results


def branch_table(results: dict[str, tuple[int, Ranking]]) -> str:
    """The results of `evaluate_branches` as a Markdown table, in %."""
    lines = ["| | dimensions | mAP | rank-1 |", "|---|---:|---:|---:|"]
    for name, (dimensions, ranking) in results.items():
        mAP, rank1 = 100 * ranking.mAP, 100 * ranking.cmc[0]
        lines.append(f"| {name} | {dimensions:,} | {mAP:.1f} | {rank1:.1f} |")
    return "\n".join(lines)


def _ids(records: Sequence[ImageRecord]) -> tuple[np.ndarray, np.ndarray]:
    """int [n] each: the identities and cameras of a list."""
    return np.array([r[1] for r in records]), np.array([r[2] for r in records])


def _embed(network: TrainedNetwork, records: Sequence[ImageRecord]) -> Tensor:
    """float32 [n, D]: the raw embeddings of a list; an image that does not decode is an error."""
    found = embed_files(network, [Path(r[0]) for r in records])
    for message in found.unreadable.values():
        raise ValueError(message)
    return torch.from_numpy(found.features)


def _distances(network: TrainedNetwork, query: Tensor, gallery: Tensor) -> Tensor:
    """[Q, D], [G, D] → float32 [Q, G], normalised as the network's test does."""
    if network.normalises:
        query, gallery = F.normalize(query, dim=1), F.normalize(gallery, dim=1)
    return distance_matrix(query, gallery)
