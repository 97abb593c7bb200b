"""A lock that lets only one run at a time write into a folder."""

import json
import logging
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from magnifier_plugin.files import absolute_path, make_folder

LOCK = ".lock"
HOLDER = ".lock.json"
# Seconds; the workers of a killed run hold its lock for up to 5 seconds.
LOCK_TIMEOUT = 12.0
_HELD: set[Path] = set()  # folders that this process has locked
logger = logging.getLogger(__name__)


class FolderInUse(RuntimeError):
    """Another process is writing into the same folder."""


@contextmanager
def locked_folder(folder: str | Path) -> Iterator[None]:
    """Lock a folder for a run; the system releases the lock if the process dies.

    Nothing happens if this process has already locked it.

    Args:
        folder: the run's folder; created if missing.
    Raises:
        FolderInUse: another run holds the lock; the message says which.
    """
    folder = absolute_path(folder)
    if folder in _HELD:
        yield
        return
    make_folder(folder)
    lock, holder = FileLock(folder / LOCK, timeout=LOCK_TIMEOUT), folder / HOLDER
    try:
        lock.acquire()
    except Timeout:
        raise FolderInUse(
            f"{folder}: {_describe(holder)} is writing into it, and two runs would overwrite each "
            "other's files; wait until it ends, or set another data.save_dir"
        ) from None
    except (NotImplementedError, OSError) as error:
        logger.warning(
            "%s cannot be locked (%s): make sure that no other run has the same data.save_dir",
            *(folder, error),
        )
        yield
        return
    try:
        facts = {"process": os.getpid(), "host": platform.node(), "since": time.strftime("%F %T")}
        with suppress(OSError):  # a full disk
            holder.write_text(json.dumps(facts) + "\n", encoding="utf-8")
        _HELD.add(folder)
        yield
    finally:
        _HELD.discard(folder)
        holder.unlink(missing_ok=True)
        lock.release()


def _describe(holder: Path) -> str:
    try:
        facts = json.loads(holder.read_text(encoding="utf-8"))
        return f"process {facts['process']} on {facts['host']}, since {facts['since']},"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
