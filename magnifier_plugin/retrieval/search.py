"""Search in a gallery of image files, and the content of the page that shows the hits."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from magnifier_plugin.catalogue.images import camera_of
from magnifier_plugin.evaluation.distances import distance_matrix
from magnifier_plugin.evaluation.evaluator import Reranking, reranked_distances
from magnifier_plugin.evaluation.feature_file import ImageFeatures
from magnifier_plugin.evaluation.kreciprocal.neighbours import nearest_in_order
from magnifier_plugin.evaluation.nearest import nearest
from magnifier_plugin.evaluation.scaling import l2_normalise
from magnifier_plugin.retrieval.network import TrainedNetwork
from magnifier_plugin.retrieval.photos import Regions, cosines, describe_files
from magnifier_plugin.visualize.search_page import PageImage, PageQuery
from magnifier_plugin.wording import many

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Comparison:
    """How embeddings are compared (`test.*`)."""

    metric: str = "euclidean"
    """ "euclidean" (squared) or "cosine"."""
    normalise: bool = True
    """L2-normalise the embeddings first."""
    reranking: Reranking | None = None
    """Settings of re-ranking; None: no re-ranking."""

    def __str__(self) -> str:
        name = {"euclidean": "squared Euclidean distance", "cosine": "cosine distance"}[self.metric]
        name += " of normalised embeddings" if self.normalise else ""
        return f"k-reciprocal re-ranking of the {name}" if self.reranking else name


class Hits(NamedTuple):
    """The hits of one query, nearest first."""

    rows: np.ndarray
    """int64 [n], rows of the gallery."""
    distances: np.ndarray
    """float32 [n], the distances by which the hits are ranked."""
    plain: np.ndarray | None
    """float32 [n], the distances before re-ranking; None without re-ranking."""


def search(
    query: np.ndarray,
    gallery: np.ndarray,
    count: int,
    comparison: Comparison,
    own: Sequence[int] | None = None,
) -> list[Hits]:
    """Ranks a gallery for each query.

    Args:
        query: floating point [Q, D].
        gallery: floating point [G, D].
        count: maximum number of hits of each query.
        comparison: how embeddings are compared.
        own: the gallery row of each query's own file, which is not a hit; -1 if there is none.
    Returns:
        For each query, its hits in order of (distance, row).
    Raises:
        ValueError: as in `evaluation.checks.as_features`.
    """
    places = np.full(len(query), -1) if own is None else np.asarray(own)
    more = count + bool((places >= 0).any())
    plain: np.ndarray | None = None
    if comparison.reranking is None:
        found = nearest(
            query, gallery, more, metric=comparison.metric, normalise=comparison.normalise
        )
        indices, distances = found.indices.numpy(), found.distances.numpy()
    else:
        queries, others = (torch.from_numpy(np.asarray(part)) for part in (query, gallery))
        if comparison.normalise:
            queries, others = l2_normalise(queries), l2_normalise(others)
        distmat = reranked_distances(queries, others, comparison.metric, comparison.reranking)
        rows = nearest_in_order(distmat, min(more, len(gallery)))
        indices, distances = rows.numpy(), distmat.gather(1, rows).numpy()
        plain = _plain(queries, others, rows, comparison.metric)
    result = []
    for row, place in enumerate(places):
        kept = (indices[row] != place).nonzero()[0][:count]
        before = None if plain is None else plain[row, kept]
        result.append(Hits(indices[row, kept], distances[row, kept], before))
    return result


def _plain(query: Tensor, gallery: Tensor, rows: Tensor, metric: str) -> np.ndarray:
    """The distances before re-ranking to the given gallery rows [Q, n], float32 [Q, n]."""
    found = [
        distance_matrix(query[i : i + 1], gallery[rows[i]], metric)[0] for i in range(len(query))
    ]
    return torch.stack(found).numpy()


def same_files(queries: Sequence[Path], gallery: Sequence[Path]) -> list[int]:
    """The index of each query's file in the gallery, -1 if it is not there; links are resolved."""
    places = {path.resolve(): place for place, path in enumerate(gallery)}
    return [places.get(path.resolve(), -1) for path in queries]


def require_same_network(network: TrainedNetwork, images: ImageFeatures, origin: str) -> None:
    """Refuses features of another network, or of the same one with other settings.

    Raises:
        ValueError: something differs; the message names it.
    """
    expected = network.identity()
    other = [key for key, value in expected.items() if images.identity.get(key) != value]
    if other:
        pairs = (f"{key} {images.identity.get(key)} (here {expected[key]})" for key in other)
        raise ValueError(
            f"{origin}: features of another network or other settings: {', '.join(pairs)}; "
            "extract them again with these weights"
        )


def require_images(paths: Sequence[Path], origin: str) -> None:
    """Checks that images are still where they were when their features were extracted.

    If some are missing, a warning is logged.

    Raises:
        FileNotFoundError: all are missing.
    """
    missing = [path for path in paths if not path.is_file()]
    if missing and len(missing) == len(paths):
        raise FileNotFoundError(
            f"{origin}: its images, such as {missing[0]}, no longer exist; if they were moved, "
            "give their folder with --images FOLDER"
        )
    if missing:
        logger.warning(
            "Missing: %d of %s, such as %s; hits among them are shown in grey",
            *(len(missing), many(len(paths), "image"), missing[0]),
        )


def page_of(
    network: TrainedNetwork,
    queries: ImageFeatures,
    gallery: ImageFeatures,
    hits: Sequence[Hits],
    topk: int,
) -> tuple[list[PageImage], list[PageQuery]]:
    """The images and queries of a page; regions are computed for queries and their first hits.

    Args:
        network: the network that made the features.
        queries, gallery: the images that were compared.
        hits: the hits of each query.
        topk: number of hits of each query for which regions are computed.
    """
    rows = np.unique(np.concatenate([found.rows for found in hits]))
    first = np.unique(np.concatenate([found.rows[:topk] for found in hits]))
    num_queries = len(queries.names)
    query_paths, gallery_paths = queries.paths, gallery.paths
    described = [*query_paths, *(gallery_paths[row] for row in first)]
    regions = describe_files(network, described, "Regions")
    # Gallery row → index in `described`: the queries come first, then the first hits.
    place = {int(row): num_queries + n for n, row in enumerate(first)}
    images = [
        _page_image(path, name, _labels(regions, n))
        for n, (path, name) in enumerate(zip(query_paths, queries.names, strict=True))
    ]
    images += [
        _page_image(gallery_paths[row], gallery.names[row], _labels(regions, place.get(int(row))))
        for row in rows
    ]
    pages = []
    for number, found in enumerate(hits):
        best = np.array([place[int(row)] for row in found.rows[:topk]], dtype=np.int64)
        values = cosines(regions, number, best) if regions else None
        shown = num_queries + np.searchsorted(rows, found.rows)
        pages.append(PageQuery(number, shown, found.distances, found.plain, values))
    return images, pages


def _labels(regions: Regions | None, place: int | None) -> np.ndarray | None:
    return None if regions is None or place is None else regions.labels[place]


def _page_image(path: Path, name: str, labels: np.ndarray | None) -> PageImage:
    folder, _, file = name.rpartition("/")
    return PageImage(path, name, folder or ".", camera_of(file), labels)
