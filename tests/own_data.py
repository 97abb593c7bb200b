"""Users' own data sets, shared by tests: images with any names, and CSV lists of them."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from conftest import painted, person

from magnifier_plugin.catalogue.names import registered_datasets


@contextmanager
def restored_registry() -> Iterator[None]:
    """Restores torchreid's table of data sets at the end."""
    known = registered_datasets()
    before = dict(known)
    try:
        yield
    finally:
        known.clear()
        known.update(before)


def make_images(folder: Path, names: Iterable[str]) -> Path:
    """Writes a small image with different content under each name; returns the folder."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        painted(person(np.random.default_rng(number))).save(path)
    return folder


def write_lines(file: Path, *lines: str, encoding: str = "utf-8") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n", encoding=encoding)
    return file


def split_names(
    train: Iterable[str] = ("anna", "björn"),
    test: Iterable[str] = ("carla", "dieter"),
    name: str = "img_c{camera}_{shot}.png",
) -> list[str]:
    """Names of `{train,query,gallery}/<pid>/*`: two images in each of two cameras per identity."""
    places = {"train": train, "query": test, "gallery": test}
    return [
        f"{split}/{pid}/{name.format(camera=camera, shot=f'{split[0]}{shot}')}"
        for split, pids in places.items()
        for pid in pids
        for camera in (1, 2)
        for shot in (1, 2)
    ]


@pytest.fixture
def registry() -> Iterator[None]:
    """Removes the data sets that a test registers."""
    with restored_registry():
        yield
