"""Tables and their rows; a row trains with overrides of a configuration.

A row's name is the name of its folder. A row that several tables share has the same name in all of
them, so that tables in one folder train it once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

# Data sets as the papers' tables call them.
CUHK03_L, DUKE, MARKET = "CUHK03-L", "DukeMTMC", "Market-1501"
Pairs = tuple[str, ...]
Printed = tuple[float, float | None]


@dataclass(frozen=True)
class Row:
    """One row of a table."""

    name: str
    """Name of its folder, without spaces and slashes."""
    title: str
    """Name in tables and figures."""
    overrides: Pairs = ()
    """KEY VALUE KEY VALUE …, which override the configuration."""
    printed: Mapping[str, Printed] = field(default_factory=dict)
    """Data set → mAP and rank-1 in the paper, in %; None for a value that it does not print."""
    against: tuple[str, ...] = ()
    """Names of rows to compare with; if none of them is in the table, the previous row."""
    maps: str = ""
    """Label maps or IUV to train with, a key of `maps.VARIANTS`; "" for the data set's own."""
    weights_of: str = ""
    """Name of another row, whose weights this one tests without training; "" to train."""
    x: float | None = None
    """Position on the horizontal axis of a figure."""
    series: str = ""
    """Name of the curve to which the row belongs in a figure."""


@dataclass(frozen=True)
class Table:
    """A table or figure of a paper, or an additional one."""

    name: str
    title: str
    system: str
    """Key of `systems.SYSTEMS`: the system whose configurations it needs."""
    rows: tuple[Row, ...]
    figure: str = ""
    """"curves" over `Row.x`, "bars", or "" for none."""
    axis: str = ""
    """Label of the curves' horizontal axis."""
    hint: str = ""
    """What to do if a row does not fit a configuration, for the error message."""
    start: Pairs = ()
    """KEY VALUE … of the plain network from whose backbone the rows may start."""

    def with_rows(self, names: Sequence[str]) -> "Table":
        """The table with only some of its rows, in its own order.

        Raises:
            ValueError: there is no row of a name, or a row tests the weights of one that is left
                out.
        """
        known = [row.name for row in self.rows]
        if unknown := sorted({*names} - {*known}):
            raise ValueError(
                f"expected rows of {self.name} ({', '.join(known)}), got {', '.join(unknown)}"
            )
        for row in self.rows:
            if row.name in names and row.weights_of and row.weights_of not in names:
                raise ValueError(f"{row.name} tests the weights of {row.weights_of}; add that row")
        rows = (row for row in self.rows if row.name in names)
        return replace(self, rows=tuple(rows))

    def pairs(self) -> list[tuple[Row, Row]]:
        """The pairs of rows to compare, see `Row.against`."""
        by_name = {row.name: row for row in self.rows}
        found = []
        for previous, row in pairwise(self.rows):
            others = [by_name[name] for name in row.against if name in by_name]
            found += [(other, row) for other in others or [previous]]
        return found


# Overrides for rows that train without some of the label maps or IUV.
MISSING_ALLOWED = ("masks.max_missing", "1.0")
