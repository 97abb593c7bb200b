"""Inputs shared by the tests of masks: real sample data, small artificial data, the scripts."""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from magnifier_plugin.annotators.densepose import write_iuv
from magnifier_plugin.masks.label_maps import write_labels
from magnifier_plugin.regions import REGIONS

PROJECT = Path(__file__).resolve().parents[1]
SAMPLES = PROJECT.parent / "shared" / "data"

FIGURE_SIZE = (64, 32)

needs_samples = pytest.mark.skipif(
    not SAMPLES.is_dir(), reason="the real sample files (../shared/data) are not here"
)


def script(name: str) -> ModuleType:
    """A script of the project as a module, to call its `main`."""
    if str(PROJECT / "scripts") not in sys.path:  # for what scripts import from each other
        sys.path.insert(0, str(PROJECT / "scripts"))
    spec = importlib.util.spec_from_file_location(name, PROJECT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_iuv(height: int = 32, width: int = 16, seed: int = 0) -> np.ndarray:
    """Noise with every part, so that no plane can be mistaken for another."""
    iuv = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    iuv[..., 0] %= 25
    return iuv


def save_photo(path: Path, height: int = 32, width: int = 16) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (90, 120, 60)).save(path)
    return path


def make_market(root: Path, names: list[str]) -> tuple[Path, Path]:
    """Writes photos into Market-1501's training folder, and their IUV; returns both folders."""
    train = root / "reid-data" / "market1501" / "Market-1501-v15.09.15" / "bounding_box_train"
    for seed, name in enumerate(names):
        save_photo(train / f"{name}.jpg")
        write_iuv(root / "iuv" / f"{name}_IUV.png", make_iuv(seed=seed))
    return root / "reid-data" / "market1501", root / "iuv"


def figure(
    order: Sequence[str] = ("head", "chest", "upper leg", "lower leg", "foot"),
) -> np.ndarray:
    """A figure made of blocks, one for each region, from top to bottom."""
    labels = np.zeros(FIGURE_SIZE, dtype=np.uint8)
    for row, name in enumerate(order):
        labels[2 + 12 * row : 14 + 12 * row, 10:22] = REGIONS.index(name)
    return labels


def placed(folder: Path, name: str, labels: np.ndarray | None = None) -> tuple[str, Path]:
    """Writes a photo and, if given, its label map; returns the photo and the label map's path."""
    photo = save_photo(folder / "images" / f"{name}.jpg", *FIGURE_SIZE)
    label = folder / "labels" / f"{name}.png"
    if labels is not None:
        write_labels(label, labels)
    return str(photo), label


class Named:
    """An annotation that has only a name."""

    def __init__(self, name: str):
        self.name = name
