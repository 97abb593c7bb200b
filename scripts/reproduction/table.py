"""What a row and a table are: a training as overrides of a configuration, and what is compared.

A row's name is the name of its folder. Rows that several tables share have one name, so that
tables in one folder train them once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

# Data sets as the papers' tables call them.
CUHK03_L, DUKE, MARKET = "CUHK03-L", "DukeMTMC", "Market-1501"
Pairs = tuple[str, ...]
Printed = tuple[float, float | None]


@dataclass(frozen=True)
class Row:
    """One row of a table."""

    name: str
    """Of its folder: no spaces and no slashes."""
    title: str
    """In tables and figures."""
    overrides: Pairs = ()
    """KEY VALUE KEY VALUE …, typed after the configuration."""
    printed: Mapping[str, Printed] = field(default_factory=dict)
    """Data set → mAP and rank-1 that the paper prints, in %; None for what it does not print."""
    against: str = ""
    """Name of an earlier row to compare with, besides the row before."""
    maps: str = ""
    """Label maps or IUV to train with, a name of `maps.VARIANTS`; "" for the data set's own."""
    weights_of: str = ""
    """Name of the row that is trained; this one tests its weights and trains nothing."""
    x: float | None = None
    """Place on the horizontal axis of a figure."""
    series: str = ""
    """Curve of a figure that the row is a point of."""


@dataclass(frozen=True)
class Table:
    """A table or figure of a paper, or one that asks a question of its own."""

    name: str
    title: str
    system: str
    """Row of `systems.SYSTEMS` whose configurations it takes."""
    rows: tuple[Row, ...]
    figure: str = ""
    """"curves" over `Row.x`, "bars", or "" for none."""
    axis: str = ""
    """What is on the curves' horizontal axis."""
    hint: str = ""
    """What helps where a configuration does not take a row."""
    start: Pairs = ()
    """KEY VALUE … that make the plain network whose backbone rows may start from."""

    def with_rows(self, names: Sequence[str]) -> "Table":
        """The table of some of its rows, in its own order.

        Raises:
            ValueError: a name is no row's, or a row tests the weights of one that is left out.
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
        kept = (replace(r, against=r.against if r.against in names else "") for r in rows)
        return replace(self, rows=tuple(kept))

    def pairs(self) -> list[tuple[Row, Row]]:
        """The rows that are compared: each with the one before, and with its `against`."""
        by_name = {row.name: row for row in self.rows}
        found = list(zip(self.rows, self.rows[1:], strict=False))
        found += [(by_name[row.against], row) for row in self.rows if row.against]
        return [pair for place, pair in enumerate(found) if pair not in found[:place]]


# A row that trains without some of the label maps or IUV.
MISSING_ALLOWED = ("masks.max_missing", "1.0")
