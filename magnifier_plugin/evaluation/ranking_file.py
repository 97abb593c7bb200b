"""Rankings as a CSV file."""

import csv
import os

import numpy as np
from torch import Tensor

from magnifier_plugin.evaluation.features import Ids
from magnifier_plugin.evaluation.kreciprocal.neighbours import nearest_in_order
from magnifier_plugin.files import write_atomically

COLUMNS = ("query", "rank", "gallery", "distance", "match")


def write_ranking(
    path: str | os.PathLike[str],
    distmat: Tensor,
    query: Ids | None = None,
    gallery: Ids | None = None,
    top: int = 50,
) -> None:
    """Writes the first gallery images of each query, one per line, with the columns `COLUMNS`.

    Images are given by name if the ids have names, else by row number from 0. `match` is 1 or 0, or
    empty without ids. With ids, the gallery images that the metrics leave out (same identity and
    camera) are left out here too. Among equal distances the smaller row number comes first.

    Args:
        path: a CSV file, written atomically; missing folders are made.
        distmat: floating point [Q, G].
        query, gallery: ids of rows and columns; give both or neither.
        top: maximum number of gallery images of each query.
    """
    query_names, gallery_names = (
        np.arange(count) if ids is None or ids.names is None else ids.names
        for ids, count in zip((query, gallery), distmat.shape, strict=True)
    )
    with (
        write_atomically(path) as part,
        # File names need not be valid Unicode.
        part.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row, distances in enumerate(distmat.cpu()):
            matches, kept = np.full(len(distances), ""), np.arange(len(distances))
            if query is not None and gallery is not None:
                same = gallery.pids == query.pids[row]
                kept = np.flatnonzero(~same | (gallery.camids != query.camids[row]))
                matches = same.astype(int)
            nearest = nearest_in_order(distances[None, kept], min(top, len(kept)))[0].numpy()
            for rank, column in enumerate(kept[nearest], start=1):
                distance = f"{distances[column]:.6g}"
                writer.writerow(
                    (query_names[row], rank, gallery_names[column], distance, matches[column])
                )
