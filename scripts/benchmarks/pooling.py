"""Region pooling compared with the plain product of Eq. 1, forward and backward.

Batch size 32, 1024 channels, 24 × 12 cells, 8 regions: the paper's image size and half its batch.
"""

import argparse
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measuring import machine
from magnifier_plugin.models.pooling import region_masks, region_max_pool
from magnifier_plugin.regions import NUM_REGIONS

SHAPE = (32, 1024, 24, 12)


def run(args: argparse.Namespace) -> None:
    """Print the table."""
    print("| features | masks | plain product, ms | region_max_pool, ms | ratio |")
    print("|---|---|---|---|---|")
    for dtype, layout in (
        (torch.float32, torch.contiguous_format),
        (torch.bfloat16, torch.channels_last),
    ):
        features = torch.rand(SHAPE, device=args.device).to(dtype, memory_format=layout)
        for rescaling in ("bilinear", "nearest"):
            masks = random_masks(rescaling, args.device, dtype)
            plain = quickest(plain_product, features, masks, args.repeats)
            ours = quickest(region_max_pool, features, masks, args.repeats)
            kind = f"{str(dtype).removeprefix('torch.')}, {str(layout).removeprefix('torch.')}"
            print(f"| {kind} | {rescaling} | {plain:.0f} | {ours:.0f} | {plain / ours:.1f} |")
    print(f"\n{machine(args.device)}")


def plain_product(features: Tensor, masks: Tensor) -> Tensor:
    """Eq. 1 and its pooling as written in the paper, with all products in memory at once."""
    return (features.unsqueeze(1) * masks.unsqueeze(2)).amax(dim=(3, 4))


def random_masks(rescaling: str, device: str, dtype: torch.dtype) -> Tensor:
    """Masks of random label maps whose regions are about as large as those of a body."""
    batch, _, height, width = SHAPE
    coarse = torch.randn(batch, NUM_REGIONS, height // 4, width // 4, device=device)
    labels = F.interpolate(coarse, size=(2 * height, 2 * width), mode="bilinear").argmax(1)
    return region_masks(labels, (height, width), rescaling, dtype)


def quickest(
    pool: Callable[[Tensor, Tensor], Tensor], features: Tensor, masks: Tensor, repeats: int
) -> float:
    """Milliseconds of the fastest forward and backward pass of `repeats`."""
    seconds = []
    for _ in range(repeats):
        leaf = features.clone(memory_format=torch.preserve_format).requires_grad_()
        start = time.perf_counter()
        pool(leaf, masks).sum().backward()
        if leaf.is_cuda:
            torch.cuda.synchronize(leaf.device)
        seconds.append(time.perf_counter() - start)
    return 1000 * min(seconds)
