"""The conditions of each target's query images, and the results of each query."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from magnifier_plugin.catalogue.opening import own_folder
from magnifier_plugin.evaluation.conditions import (
    Conditions,
    conditions_of,
    read_conditions,
    twin_hits,
)
from magnifier_plugin.evaluation.distances import distance_matrix
from magnifier_plugin.evaluation.evaluator import EvaluationResult
from magnifier_plugin.evaluation.matches import find_first_hits
from magnifier_plugin.evaluation.query_file import QueryScores
from magnifier_plugin.files import absolute_path


def read_target_conditions(datamanager: Any, file: str | Path) -> dict[str, Conditions]:
    """The conditions of the targets' query images.

    Args:
        datamanager: torchreid's or ours.
        file: CSV for every target whose query images it lists; "" for none. Other targets use their
            data set's own conditions if it has any (attribute `own_conditions`, or a CSV,
            `conditions_file`).
    Returns:
        Target → conditions, for the targets that have conditions.
    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a file of conditions, lists no query image of any target, or lists
            only some of a target's query images.
    """
    found, uncovered = {}, []
    for name, loaders in datamanager.test_loader.items():
        dataset = loaders["query"].dataset
        pids = getattr(dataset, "test_pids", None)
        images = [record[0] for record in datamanager.fetch_test_loaders(name)[0]]
        if file:
            table = read_conditions(file, own_folder(dataset))
            if any(absolute_path(image) in table.rows for image in images):
                found[name] = conditions_of(table, images, pids)
                continue
            uncovered.append((table, images))
        if listed := getattr(dataset, "own_conditions", None):
            found[name] = conditions_of(listed, images, pids)
        elif own := getattr(dataset, "conditions_file", None):
            found[name] = conditions_of(read_conditions(own, own_folder(dataset)), images)
    if len(uncovered) == len(datamanager.test_loader):
        conditions_of(*uncovered[0])  # raises
    return found


def query_scores(
    dataset: Any,
    images: Sequence[str],
    result: EvaluationResult,
    conditions: Conditions | None,
    metric: str,
) -> QueryScores:
    """The results of each query, without re-ranking.

    Args:
        dataset: the queries' data set; paths are given relative to its folder if it has one.
        images: paths of the queries.
        result: the result of their test.
        conditions: the queries' conditions, or None.
        metric: distance metric of the test.
    """
    is_twin = None
    if conditions is not None and conditions.twins is not None:
        query, gallery = result.query, result.gallery
        plain = result.distmat  # the plain distances, unless the test re-ranked
        if result.reranked is not None:
            plain = distance_matrix(query.features, gallery.features, metric)
        ids = query.pids, gallery.pids, query.camids, gallery.camids
        is_twin = twin_hits(conditions, find_first_hits(plain, *ids), gallery.pids)
    folder = own_folder(dataset) if hasattr(dataset, "dataset_dir") else None
    return QueryScores(
        paths=np.array([_inside(image, folder) for image in images]),
        pids=np.asarray(result.query.pids),
        average_precision=result.ranking.average_precision,
        first_match=result.ranking.first_match,
        labels={} if conditions is None else conditions.labels,
        first_hit_is_twin=is_twin,
    )


def _inside(image: str, folder: Path | None) -> str:
    """The image's path, relative to the folder if it is inside it."""
    path = absolute_path(image)
    return str(path.relative_to(folder) if folder and path.is_relative_to(folder) else path)
