"""The folders below a folder, symbolic links included."""

import os
from collections.abc import Iterator
from pathlib import Path


def walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """`os.walk` that follows symbolic links, except a link to a folder that contains the link.

    Yields:
        A folder, the names of its folders and of its files. As with `os.walk`, folders whose names
        the caller removes from the list are not visited.
    """
    above: dict[str, tuple[tuple[int, int], ...]] = {str(folder): ()}
    for where, folders, names in os.walk(folder, followlinks=True):
        state = os.stat(where)  # noqa: PTH116
        own, outer = (state.st_dev, state.st_ino), above.pop(where)
        if own in outer:
            folders.clear()
            continue
        above |= {os.path.join(where, name): (*outer, own) for name in folders}  # noqa: PTH118
        yield where, folders, names
