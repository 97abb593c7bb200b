"""Arbitrary image files as test images; files that cannot be decoded are left out and reported."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from magnifier_plugin.data.joint import JointTransform
from magnifier_plugin.data.pixels import batch_of
from magnifier_plugin.images import read_image


class ImageFiles(Dataset):
    """Image files, each transformed like a test image.

    An item is a dict with `row`, the file's index in the list, and either `img`, a `pixels.Pixels`,
    or `error`, a message about the file.

    Args:
        paths: the files.
        transform: the transform of test images.
    """

    def __init__(self, paths: Sequence[str | os.PathLike[str]], transform: JointTransform) -> None:
        self.paths, self.transform = [Path(path) for path in paths], transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> dict[str, Any]:
        try:
            return {"row": row, "img": self.transform(read_image(self.paths[row])).result}
        except OSError as error:
            return {"row": row, "error": str(error)}


def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A batch of the files that can be decoded.

    Returns:
        `row` int64 [B] and `img`, a `pixels.Pixels`, of these files (no `img` if B is 0), and
        `errors`, row → message, of the others.
    """
    read = [item for item in items if "img" in item]
    batch: dict[str, Any] = {
        "row": torch.tensor([item["row"] for item in read], dtype=torch.int64),
        "errors": {item["row"]: item["error"] for item in items if "error" in item},
    }
    if read:
        batch["img"] = batch_of([item["img"] for item in read])
    return batch


def file_loader(
    paths: Sequence[str | os.PathLike[str]],
    transform: JointTransform,
    *,
    batch_size: int,
    workers: int,
    pin_memory: bool = False,
) -> DataLoader[dict[str, Any]]:
    """A loader of the files' batches, in order; see `collate`.

    Args:
        paths: the files.
        transform: the transform of test images.
        batch_size: number of files in a batch.
        workers: number of processes that read images; 0 for this process.
        pin_memory: pin batches for the copy to a GPU.
    """
    return DataLoader(
        ImageFiles(paths, transform),
        batch_size=batch_size,
        num_workers=min(workers, -(-len(paths) // batch_size)),
        collate_fn=collate,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # a loader draws a seed for its workers
    )
