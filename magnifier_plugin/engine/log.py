"""The log of a run, on standard output and in a file."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

PACKAGE = logging.getLogger("magnifier_plugin")


class _StandardOutput(logging.Handler):
    """Writes to whatever standard output is now, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        with tqdm.external_write_mode(file=sys.stdout):
            sys.stdout.write(self.format(record) + "\n")
            sys.stdout.flush()


def show_log() -> None:
    """Show the package's log on standard output, as torchreid prints its own.

    Does nothing if the caller has set up logging, of the root logger or of this package.
    """
    if not PACKAGE.hasHandlers():
        PACKAGE.addHandler(_StandardOutput())
        PACKAGE.setLevel(logging.INFO)


class Tee:
    """A stream that writes to a file too, and is the first stream in every other respect.

    torchreid's `Logger` has neither `isatty` nor `fileno`, which progress bars ask for, and closes
    the real standard output at exit.
    """

    def __init__(self, stream: TextIO, file: TextIO) -> None:
        self._stream, self._file = stream, file

    def write(self, text: str) -> int:
        self._file.write(text)
        return self._stream.write(text)

    def flush(self) -> None:
        self._file.flush()
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def logged_to(folder: str | Path, name: str) -> Iterator[Path]:
    """Write what is printed and logged into `<folder>/<name>.log-<time>` as well.

    The file is named as torchreid names it.
    """
    path = Path(folder) / f"{name}.log{time.strftime('-%Y-%m-%d-%H-%M-%S')}"
    path.parent.mkdir(parents=True, exist_ok=True)
    screen, handler, level = sys.stdout, _StandardOutput(), PACKAGE.level
    with path.open("a", encoding="utf-8", buffering=1) as file:
        sys.stdout = Tee(screen, file)
        PACKAGE.addHandler(handler)
        PACKAGE.setLevel(logging.INFO)
        try:
            yield path
        finally:
            PACKAGE.setLevel(level)
            PACKAGE.removeHandler(handler)
            sys.stdout = screen
