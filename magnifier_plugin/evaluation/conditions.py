"""Conditions of test images, such as "occluded", and the metrics of queries by condition.

The conditions are in a CSV file with a column `path` and one for each condition. It may be a user's
list of images, whose columns `pid`, `camid` and `split` are not conditions.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from magnifier_plugin.catalogue.csv_list import COLUMNS, PATH
from magnifier_plugin.catalogue.image_list import TWIN, ConditionFile, plain_id
from magnifier_plugin.evaluation.array_files import listed
from magnifier_plugin.evaluation.bins import label_values, sort_labels
from magnifier_plugin.evaluation.query_file import require_free_names
from magnifier_plugin.files import absolute_path
from magnifier_plugin.text_files import read_csv
from magnifier_plugin.wording import many

logger = logging.getLogger(__name__)

# Queries are grouped by whether they have a near-twin.
WITH_TWIN, WITHOUT_TWIN = "with", "without"
MAX_LABELS = 30  # a column with more, such as times, is not a condition
ABSENT = "absent"  # replaces the number of a near-twin that is in neither query nor gallery


class Conditions(NamedTuple):
    """The conditions of Q query images."""

    labels: dict[str, np.ndarray]
    """Name of a condition → text [Q], the label of each query. The label of a bin is "0.25–0.5"; a
    bin includes its lower edge, and the last bin includes its upper edge too."""
    twins: np.ndarray | None
    """Text [Q], pid of the near-twin, "" if none; None if the file has no column `twin`."""


def read_conditions(file: str | os.PathLike[str], dataset_dir: str | Path) -> ConditionFile:
    """Reads a CSV of per-image conditions.

    Args:
        file: has a header; `path` is absolute or relative to dataset_dir.
        dataset_dir: the data set's own folder, such as `reid-data/market1501`.
    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the column `path` is missing, there is no condition, a column has no name or the
            name of another, a line has more or fewer fields than the header, or an image is listed
            twice.
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: expected a CSV of per-image conditions (test.conditions), found no such file"
        )
    header, lines = read_csv(file)
    columns = tuple(name for name in header if name.lower() not in COLUMNS)
    if PATH not in header or not all(columns) or not columns or len(set(header)) < len(header):
        raise ValueError(
            f"{file}: expected a header with the column {PATH} and at least one condition, all "
            f"with different names, such as path,occluded; found {listed(header) or 'nothing'}"
        )
    rows: dict[Path, tuple[str, ...]] = {}
    for number, cells in lines:
        row = dict(zip(header, (cell.strip() for cell in cells), strict=True))
        image = absolute_path(Path(dataset_dir, row[PATH]))
        if image in rows:
            raise ValueError(f"{file}, line {number}: {row[PATH]} is listed twice")
        rows[image] = tuple(row[name] for name in columns)
    return ConditionFile(file, columns, rows)


def conditions_of(
    found: ConditionFile, images: Sequence[str], pids: Mapping[str, int] | None = None
) -> Conditions:
    """The conditions of query images, in their order.

    Args:
        found: the result of `read_conditions`.
        images: paths of all query images.
        pids: identity as the data set's list gives it → its number in torchreid's lists; a twin
            that is not in it cannot be a hit. None or empty: `twin` has torchreid's numbers.
    Returns:
        The conditions; a column with more than MAX_LABELS labels is left out, with a warning.
    Raises:
        ValueError: an image is not in the file, or a condition has the name of a result.
    """
    require_free_names(found.file, found.columns)
    paths = [absolute_path(image) for image in images]
    missing = [path for path in paths if path not in found.rows]
    if missing:
        raise ValueError(
            f"{found.file}: expected a line for each of the {len(paths)} query images, found none "
            f"for {len(missing)} of them, such as {missing[0]}; the file has {len(found.rows)} "
            f"images, such as {next(iter(found.rows), 'none')}. Give a file of this data set's "
            "images (paths are absolute or relative to the data set's folder), or set "
            'test.conditions "" to test without conditions'
        )
    labels, twins = {}, None
    for place, name in enumerate(found.columns):
        cells = np.array([found.rows[path][place] for path in paths])
        if name == TWIN:
            twins = np.array([_twin_number(cell, pids or {}) for cell in cells.tolist()])
            labels[name] = np.where(cells != "", WITH_TWIN, WITHOUT_TWIN)
        else:  # bins are made from the whole file, so that they do not depend on the queries
            column = [row[place] for row in found.rows.values()]
            label = label_values(column)
            if (count := len({label[cell] for cell in column})) > MAX_LABELS:
                logger.warning(
                    "%s: the column %s is left out: expected a condition with at most %d different "
                    "values, found %s",
                    *(found.file, name, MAX_LABELS, f"{count:,}"),
                )
                continue
            labels[name] = np.array([label[cell] for cell in cells.tolist()])
    return Conditions(labels, twins)


def _twin_number(cell: str, pids: Mapping[str, int]) -> str:
    return str(pids.get(plain_id(cell), ABSENT)) if cell and pids else cell


def metrics_by_condition(
    labels: Mapping[str, np.ndarray], average_precision: np.ndarray, first_match: np.ndarray
) -> dict[str, dict[str, dict[str, Any]]]:
    """mAP and rank-1 of the queries with each label of a condition.

    Args:
        labels: condition → text [Q], as `Conditions.labels`.
        average_precision: float [Q], NaN for a query without a match, which is left out.
        first_match: int [Q], rank of each query's first match.
    Returns:
        Condition → label (sorted) → {"queries", "mAP", "rank-1"}, metrics in 0..1.
    """
    valid = np.isfinite(average_precision)
    result: dict[str, dict[str, dict[str, Any]]] = {}
    for name, values in labels.items():
        groups = {label: valid & (values == label) for label in sort_labels(set(values.tolist()))}
        result[name] = {
            label: {
                "queries": int(chosen.sum()),
                "mAP": float(average_precision[chosen].mean()),
                "rank-1": float((first_match[chosen] == 1).mean()),
            }
            for label, chosen in groups.items()
            if chosen.any()
        }
    return result


def twin_hits(conditions: Conditions, hits: np.ndarray, g_pids: np.ndarray) -> np.ndarray:
    """Whether each query's first hit is its near-twin.

    Args:
        conditions: those of the queries, with twins.
        hits: int [Q], the result of `matches.find_first_hits`.
        g_pids: identities of the gallery [G].
    Returns:
        bool [Q].
    """
    found = np.where(hits >= 0, g_pids[hits].astype(str), "")
    twins = () if conditions.twins is None else conditions.twins.tolist()
    own = np.array([twin.lstrip("0") or twin for twin in twins], dtype=str)
    return np.asarray((own != "") & (own == found))


def twin_share(
    conditions: Conditions, is_twin: np.ndarray, average_precision: np.ndarray
) -> dict[str, Any]:
    """How often the first hit is the query's near-twin.

    Args:
        conditions: those of the queries, with twins.
        is_twin: bool [Q], the result of `twin_hits`.
        average_precision: float [Q], NaN for a query without a match, which is left out.
    Returns:
        "queries": number of queries with a twin and a match; "share": the fraction of these whose
        first hit is the twin, 0..1, None if there are none.
    """
    chosen = (conditions.twins != "") & np.isfinite(average_precision)
    share = float(is_twin[chosen].mean()) if chosen.any() else None
    return {"queries": int(chosen.sum()), "share": share}


def describe_twin_share(share: Mapping[str, Any]) -> str:
    """The result of `twin_share` as a line for the log."""
    if share["share"] is None:
        return "First hit is the query's twin: no query has a twin and a match"
    queries = many(share["queries"], "query")
    return f"First hit is the query's twin: {share['share']:.1%} of {queries} with a twin"


def describe_conditions(metrics: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """The metrics as lines for the log."""
    lines = ["By condition of the query: mAP, rank-1, queries"]
    for name, groups in metrics.items():
        lines += [
            f"{name} {label}: {row['mAP']:.1%}, {row['rank-1']:.1%}, {row['queries']}"
            for label, row in groups.items()
        ]
    return "\n".join(lines)
