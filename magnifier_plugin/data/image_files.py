"""Image files of any folder as test images; a file that does not decode is left out and named."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from magnifier_plugin.data.joint import JointTransform
from magnifier_plugin.data.pixels import batch_of
from magnifier_plugin.files import read_image


class ImageFiles(Dataset):
    """Image files, each transformed as a test image.

    An item is a dict with `row`, the file's place in the list, and `img`, `pixels.Pixels`, or in
    place of `img` `error`, what is wrong with the file.

    Args:
        paths: of the files.
        transform: of an image without maps.
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
    """A batch of the files that decode.

    Returns:
        `row` int64 [B] and `img`, `pixels.Pixels`, of these files (no `img` where B is 0), and
        `errors`, row → message of the others.
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
    """The files' batches in order, as `collate` makes them.

    Args:
        workers: processes that read images; 0 reads in this one.
        pin_memory: for a GPU.
    """
    return DataLoader(
        ImageFiles(paths, transform),
        batch_size=batch_size,
        num_workers=min(workers, -(-len(paths) // batch_size)),
        collate_fn=collate,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # a loader draws a seed for its workers
    )
