"""The log of a run on standard output and in a file."""

import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from magnifier_plugin.engine.distributed import ONE_PROCESS, Processes
from magnifier_plugin.files import make_folder

PACKAGE = logging.getLogger("magnifier_plugin")


class _StandardOutput(logging.Handler):
    """Writes to the current standard output, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        with tqdm.external_write_mode(file=sys.stdout):
            sys.stdout.write(self.format(record) + "\n")
            sys.stdout.flush()


def show_log(processes: Processes = ONE_PROCESS) -> None:
    """Show the package's log on standard output, as torchreid prints its own.

    Does nothing if the caller has configured logging for the root logger or this package, or if
    this is not the first process.
    """
    if processes.is_first and not PACKAGE.hasHandlers():
        PACKAGE.addHandler(_StandardOutput())
        PACKAGE.setLevel(logging.INFO)


class Tee:
    """A stream that also writes to a file; everything else is delegated to the original stream.

    torchreid's `Logger` has neither `isatty` nor `fileno`, which progress bars ask for, and closes
    the real standard output at exit.
    """

    def __init__(self, stream: TextIO, file: TextIO) -> None:
        self._stream, self._file = stream, file
        self._failed = False

    def write(self, text: str) -> int:
        self._keep(lambda: self._file.write(text))
        return self._stream.write(text)

    def flush(self) -> None:
        self._keep(self._file.flush)
        self._stream.flush()

    def _keep(self, write: Callable[[], object]) -> None:
        """Write to the file; a full disk does not end the run, and later lines are tried again."""
        try:
            write()
        except OSError as error:
            if not self._failed:
                self._stream.write(f"{self._file.name}: not written, {error}\n")
            self._failed = True
        else:
            self._failed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _open_log(path: Path) -> Iterator[TextIO]:
    file = path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)
    try:
        yield file
    finally:
        with suppress(OSError):  # unwritten text, if the disk is full
            file.close()


@contextmanager
def logged_to(folder: str | Path, name: str) -> Iterator[Path]:
    """Copy everything printed and logged in the block to `<folder>/<name>.log-<time>`.

    The file's name follows torchreid. If an exception ends the block, its traceback is written into
    the file.
    """
    path = Path(folder) / f"{name}.log{time.strftime('-%Y-%m-%d-%H-%M-%S')}"
    make_folder(path.parent)
    screen, handler, level = sys.stdout, _StandardOutput(), PACKAGE.level
    with _open_log(path) as file:
        sys.stdout = Tee(screen, file)
        PACKAGE.addHandler(handler)
        PACKAGE.setLevel(logging.INFO)
        try:
            yield path
        except Exception:
            with suppress(OSError):  # a full disk
                file.write(traceback.format_exc())
            raise
        finally:
            PACKAGE.setLevel(level)
            PACKAGE.removeHandler(handler)
            sys.stdout = screen


@contextmanager
def silenced(folder: str | Path) -> Iterator[Path]:
    """Print nothing and log only errors inside the block; for processes other than the first.

    Args:
        folder: the folder of the first process's log; yielded as a Path.
    """
    screen, level = sys.stdout, PACKAGE.level
    with open(os.devnull, "w") as nothing:  # noqa: PTH123
        sys.stdout = nothing
        PACKAGE.setLevel(logging.ERROR)
        try:
            yield Path(folder)
        finally:
            PACKAGE.setLevel(level)
            sys.stdout = screen
