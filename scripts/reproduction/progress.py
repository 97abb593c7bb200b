"""Progress of the runs: one live table on a terminal, else a line for each change."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

from reproduction.plan import Run

WAITING, RUNNING, KEPT, FINISHED, FAILED, SKIPPED = (
    *("waiting", "running", "kept", "finished", "failed", "not started"),
)


@dataclass
class Status:
    """The state of a run."""

    state: str = WAITING
    detail: str = ""
    """Epoch, result or reason."""

    def __str__(self) -> str:
        return f"{self.state} {self.detail}".strip()


class Progress:
    """Shows the status of each run.

    Args:
        runs: the runs of the table.
        stream: the output; on a terminal, one table is redrawn in place.
    """

    def __init__(self, runs: Sequence[Run], stream: TextIO) -> None:
        self.status = {run: Status() for run in runs}
        self._stream, self._live = stream, stream.isatty()
        self._drawn = 0

    def set(self, run: Run, state: str, detail: str = "") -> None:
        """Set a run's state; without a terminal, print a line."""
        self.status[run] = Status(state, detail)
        if not self._live:
            print(f"{run.name}: {self.status[run]}", file=self._stream, flush=True)

    def detail(self, run: Run, detail: str) -> None:
        """Set the detail of a run's state; shown only on a terminal."""
        self.status[run].detail = detail

    def draw(self) -> None:
        """Redraw the table on a terminal."""
        if not self._live:
            return
        size = shutil.get_terminal_size()
        lines = [line[: size.columns - 1] for line in self._lines()]
        if len(lines) > size.lines - 1:
            hidden = len(lines) - (size.lines - 2)
            lines = [*lines[: size.lines - 2], f"… and {hidden} more rows"]
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        self._stream.write(up + "".join(f"\r{line}\x1b[K\n" for line in lines) + "\x1b[J")
        self._stream.flush()
        self._drawn = len(lines)

    def _lines(self) -> list[str]:
        """One line per row, one column per seed; only the start has a run with its seed."""
        seeds = list(dict.fromkeys(run.seed for run in self.status))
        rows = list(dict.fromkeys(run.row.name for run in self.status))
        cells = {(run.row.name, run.seed): str(status) for run, status in self.status.items()}
        table = [["", *(f"seed {seed}" for seed in seeds)]]
        table += [[row, *(cells.get((row, seed), "") for seed in seeds)] for row in rows]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        return [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in table
        ]
