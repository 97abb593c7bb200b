"""Label maps and IUV under resizing and mirroring."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import Compose, RandomHorizontalFlip, Resize

from magnifier_plugin.data.transforms import rebuild
from magnifier_plugin.regions import MIRRORED_PART, PARTS

HEIGHT, WIDTH = 96, 48


@pytest.mark.parametrize("size", [(64, 32), (100, 51), (300, 131), (7, 5)])
def test_labels_are_resized_as_nearest_exact(size: tuple[int, int]) -> None:
    labels = torch.from_numpy(np.random.default_rng(1).integers(0, 8, size, dtype=np.uint8))
    expected = torch.nn.functional.interpolate(
        labels[None, None], size=(HEIGHT, WIDTH), mode="nearest-exact"
    )
    view = rebuild(Compose([Resize((HEIGHT, WIDTH))]))(Image.new("RGB", size[::-1]), labels.numpy())
    assert torch.equal(view.labels, expected[0, 0])


def iuv_of(part: int, u: int, v: int) -> np.ndarray:
    iuv = np.zeros((64, 32, 3), np.uint8)
    iuv[:, :8] = part, u, v
    return iuv


@pytest.mark.parametrize("part", range(1, len(PARTS)))
def test_mirrored_iuv(part: int) -> None:
    joint = rebuild(Compose([Resize((HEIGHT, WIDTH)), RandomHorizontalFlip(1.0)]))
    iuv = joint(Image.new("RGB", (32, 64)), iuv=iuv_of(part, 10, 30)).iuv
    kind = PARTS[part].split()
    u = 245 if {"hand", "foot", "head"} & set(kind) else 10
    v = 225 if "torso" in kind else 30
    assert iuv.shape == (3, HEIGHT, WIDTH)
    assert iuv[:, 0, -1].tolist() == [MIRRORED_PART[part], u, v]
    assert iuv[:, 0, 0].tolist() == [0, 0, 0]


def test_mirroring_an_iuv_twice_changes_nothing() -> None:
    joint = rebuild(Compose([Resize((HEIGHT, WIDTH)), RandomHorizontalFlip(1.0)]))
    iuv = np.random.default_rng(0).integers(0, 25, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    image = Image.new("RGB", (32, 64)).resize((WIDTH, HEIGHT))
    once = joint(image, iuv=iuv).iuv
    twice = joint(image, iuv=once.permute(1, 2, 0).numpy()).iuv
    assert torch.equal(twice.permute(1, 2, 0), torch.from_numpy(iuv))
