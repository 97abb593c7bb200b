"""`queries.csv`: the result of each query, for comparing rows of a table later.

With it, intervals and metrics by condition need neither embeddings nor distances.
"""

import csv
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from magnifier_plugin.evaluation.array_files import listed
from magnifier_plugin.files import write_atomically
from magnifier_plugin.text_files import read_csv

QUERIES = "queries.csv"
COLUMNS = ("data_set", "path", "pid", "average_precision", "first_match")
FIRST_HIT_IS_TWIN = "first_hit_is_twin"
_ERRORS = "surrogateescape"  # file names need not be valid Unicode
_YES, _NO = "yes", "no"


@dataclass(frozen=True)
class QueryScores:
    """The results of the Q queries of one data set."""

    paths: np.ndarray
    """Text [Q], relative to the data set's folder if the image is inside it."""
    pids: np.ndarray
    """int64 [Q]."""
    average_precision: np.ndarray
    """float64 [Q], in [0, 1]; NaN for a query without a match."""
    first_match: np.ndarray
    """int64 [Q], rank of the first match, from 1; 0 for a query without a match."""
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Name of a condition → text [Q], as in `conditions.Conditions`."""
    first_hit_is_twin: np.ndarray | None = None
    """bool [Q], whether the first hit is the query's near-twin; None if twins are unknown."""

    @property
    def metrics(self) -> np.ndarray:
        """float64 [Q, 2]: average precision, and whether the first hit is a match (0 or 1); NaN for
        a query without a match."""
        hit = np.where(np.isnan(self.average_precision), np.nan, self.first_match == 1)
        return np.stack([self.average_precision, hit], axis=1)


def require_free_names(file: str | os.PathLike[str], conditions: Iterable[str]) -> None:
    """Refuses conditions with the name of a column that `write_queries` writes itself.

    Args:
        file: the file of the conditions, for the message.
        conditions: their names.
    """
    own = (*COLUMNS, FIRST_HIT_IS_TWIN)
    if taken := [name for name in conditions if name in own]:
        raise ValueError(
            f"{file}: expected names of conditions other than {listed(own)}, which are columns of "
            f"{QUERIES}; found {listed(taken)}: rename it in the header"
        )


def write_queries(path: str | os.PathLike[str], scores: Mapping[str, QueryScores]) -> None:
    """Writes the queries of all data sets atomically, one per line.

    The columns are `COLUMNS`, then the conditions; cells are empty if a data set does not have the
    condition.

    Args:
        path: the file; missing folders are made.
        scores: name of a data set → its queries; names of conditions as `require_free_names`
            allows them.
    """
    conditions = dict.fromkeys(name for found in scores.values() for name in found.labels)
    has_twins = any(found.first_hit_is_twin is not None for found in scores.values())
    with (
        write_atomically(path) as part,
        part.open("w", newline="", encoding="utf-8", errors=_ERRORS) as file,
    ):
        writer = csv.writer(file)
        writer.writerow((*COLUMNS, *conditions, *((FIRST_HIT_IS_TWIN,) if has_twins else ())))
        for name, found in scores.items():
            blank = np.full(len(found.paths), "")
            precision = ["" if np.isnan(ap) else f"{ap:.9g}" for ap in found.average_precision]
            columns = [[name] * len(blank), found.paths, found.pids, precision, found.first_match]
            columns += [found.labels.get(condition, blank) for condition in conditions]
            if has_twins:
                is_twin = found.first_hit_is_twin
                columns.append(blank if is_twin is None else np.where(is_twin, _YES, _NO))
            writer.writerows(zip(*columns, strict=True))


def read_queries(path: str | os.PathLike[str]) -> dict[str, QueryScores]:
    """Reads a file of `write_queries`: name of a data set → its queries.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has columns or values that `write_queries` does not write.
    """
    header, rows = read_csv(path, errors=_ERRORS)
    if header[: len(COLUMNS)] != COLUMNS:
        raise ValueError(f"{path}: expected the columns {listed(COLUMNS)}, found {listed(header)}")
    lines = [dict(zip(header, cells, strict=True)) for _, cells in rows]
    try:
        return {
            name: _scores([line for line in lines if line["data_set"] == name], header)
            for name in dict.fromkeys(line["data_set"] for line in lines)
        }
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: damaged ({error}); run the test again to rewrite it") from error


def _scores(lines: list[dict[str, str]], header: tuple[str, ...]) -> QueryScores:
    column = {name: np.array([line[name] for line in lines]) for name in header}
    is_twin = column.pop(FIRST_HIT_IS_TWIN, None)
    if is_twin is not None and not is_twin.all():  # the data set has no twins
        is_twin = None
    return QueryScores(
        paths=column["path"],
        pids=column["pid"].astype(np.int64),
        average_precision=np.array([float(ap or "nan") for ap in column["average_precision"]]),
        first_match=column["first_match"].astype(np.int64),
        labels={n: v for n, v in column.items() if n not in COLUMNS and v.any()},
        first_hit_is_twin=None if is_twin is None else is_twin == _YES,
    )
