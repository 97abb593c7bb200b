"""Fixtures that several test files share."""

import os
import shutil
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torchreid
from PIL import Image

from magnifier_plugin.masks.label_maps import write_labels
from magnifier_plugin.masks.paths import label_path
from magnifier_plugin.regions import REGION_COLOURS

# Threads do not speed up networks of a few channels, and slow them down if cores are shared.
torch.set_num_threads(1)
# On one virtual machine with AMX, bf16 trainings of 32 × 16 images gave NaN now and then, while
# other programs used its cores. oneDNN reads the variable when it is first used.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")

# Reasons for which a test may be skipped even in CI: installing something would not help.
MAY_SKIP = ("shared/data", "oneDNN", "CUDA", "this user may", "the file system takes")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

SPLITS = ("bounding_box_train", "query", "bounding_box_test")


class MarketFolder(NamedTuple):
    """A tiny Market-1501 and its label maps; the colour of a pixel gives its label."""

    root: Path
    masks_dir: Path
    images: Path


def person(rng: np.random.Generator, height: int = 32, width: int = 16) -> np.ndarray:
    """uint8 [H, W]: a label map of blocks, 8 pixels each."""
    blocks = rng.integers(0, len(REGION_COLOURS), (height // 8, width // 8), dtype=np.uint8)
    return blocks.repeat(8, axis=0).repeat(8, axis=1)


def painted(labels: np.ndarray) -> Image.Image:
    """The image whose colours are those of the label map's regions."""
    return Image.fromarray(np.array(REGION_COLOURS, dtype=np.uint8)[labels])


def make_market(
    root: Path,
    pids: Sequence[int] = (2, 5, 6),
    test_pids: Sequence[int] = (1, 3),
    images: int = 2,
    seed: int = 0,
) -> MarketFolder:
    """Writes `images` images of each identity in each of two cameras, and all label maps."""
    rng = np.random.default_rng(seed)
    folder = MarketFolder(root, root / "masks", root / "market1501" / "Market-1501-v15.09.15")
    for split in SPLITS:
        (folder.images / split).mkdir(parents=True)
        for pid in pids if split == "bounding_box_train" else test_pids:
            for camera in (1, 2):
                for shot in range(images):
                    path = folder.images / split / f"{pid:04d}_c{camera}s1_{shot:06d}_01.jpg"
                    labels = person(rng)
                    painted(labels).save(path, quality=95, subsampling=0)
                    place = label_path(path, root / "market1501", "market1501", folder.masks_dir)
                    write_labels(place, labels)
    return folder


@pytest.fixture(autouse=True)
def one_thread() -> Generator[None]:
    """With more threads, which some scripts set, later runs would adapt to the CPU's load."""
    yield
    torch.set_num_threads(1)


@pytest.fixture
def market(tmp_path: Path) -> Callable[..., MarketFolder]:
    """`make_market` in a folder that only this test uses."""
    return lambda **options: make_market(tmp_path / "data", **options)


@pytest.fixture(scope="session")
def market_folder(tmp_path_factory: pytest.TempPathFactory) -> MarketFolder:
    """One tiny Market-1501 that all tests share and none changes."""
    return make_market(tmp_path_factory.mktemp("market"))


def torchreids_manager(folder: MarketFolder, **options: Any) -> torchreid.data.ImageDataManager:
    """torchreid's own data manager of a tiny Market-1501."""
    arguments = {
        "sources": "market1501_masked",
        "targets": "market1501",
        "height": 32,
        "width": 16,
        "batch_size_train": 4,
        "workers": 0,
        "use_gpu": False,
    }
    return torchreid.data.ImageDataManager(root=str(folder.root), **{**arguments, **options})


def no_skips(report: Any) -> Any:
    """In CI, where everything is installed, a test skipped because something is missing fails."""
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr)
        if not any(allowed in reason for allowed in MAY_SKIP):
            report.outcome, report.longrepr = "failed", f"skipped although CI is set: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    return no_skips((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, Any]:
    return no_skips((yield))


@pytest.fixture(scope="session")
def chromium() -> str:
    """The command of a browser that can run headless."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    return found or pytest.skip(f"expected one of {', '.join(BROWSERS)}, found none")
