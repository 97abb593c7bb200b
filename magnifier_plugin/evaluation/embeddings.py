"""Embeddings of a loader's images."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from magnifier_plugin.data.pixels import mirrored
from magnifier_plugin.evaluation.scaling import l2_normalise

Batch = Mapping[str, Any]
Embed = Callable[[Batch], Tensor]


class Embeddings(NamedTuple):
    """The embeddings of a loader's images, in its order."""

    features: Tensor
    """float32 [N, D], on the device of the model."""
    pids: np.ndarray
    """int [N]."""
    camids: np.ndarray
    """int [N]."""


def extract_embeddings(
    embed: Embed, batches: Iterable[Batch], description: str = ""
) -> tuple[Embeddings, float]:
    """Embeds every image of a loader, without gradients.

    Args:
        embed: batch → its embeddings, floating point [B, D].
        batches: batch dicts with `img` [B, ...], `pid` int [B] and `camid` int [B].
        description: title of the progress bar, which is only shown on a terminal.
    Returns:
        The embeddings, and the mean time per batch in seconds, without loading.
    Raises:
        ValueError: there is no batch, or `embed` returns another shape.
    """
    features, pids, camids, seconds = [], [], [], []
    for batch in tqdm(batches, desc=description, disable=None, leave=False):
        start = time.perf_counter()
        with torch.no_grad():
            features.append(embed(batch).float())
        seconds.append(time.perf_counter() - start)
        pids.append(np.asarray(batch["pid"]))
        camids.append(np.asarray(batch["camid"]))
        if features[-1].ndim != 2 or len(features[-1]) != len(pids[-1]):
            raise ValueError(
                f"embed: expected embeddings [{len(pids[-1])}, D], one per image of the batch, "
                f"got {list(features[-1].shape)}"
            )
    if not features:
        raise ValueError(
            f"{description or 'loader'}: expected at least one batch of images, got none"
        )
    result = Embeddings(torch.cat(features), np.concatenate(pids), np.concatenate(camids))
    return result, sum(seconds) / len(seconds)


class Extraction:
    """Extraction of embeddings by one process; `engine.sharded_extraction` has one for several."""

    def agree(self, found: bool) -> bool:
        """Whether the evaluating process found the embeddings in its cache."""
        return found

    def extract(
        self, embed: Embed, loader: DataLoader[Any], description: str
    ) -> tuple[Embeddings, float]:
        """See `extract_embeddings`."""
        return extract_embeddings(embed, loader, description)


def normalise(embeddings: Embeddings) -> Embeddings:
    """The embeddings, L2-normalised."""
    return embeddings._replace(features=l2_normalise(embeddings.features))


def mirrored_batch(batch: Batch) -> dict[str, Any]:
    """The batch of the mirror images (left and right exchanged).

    Args:
        batch: has `img`, [B, C, H, W] or `data.pixels.Pixels`, and, if the model's test inputs
            include more than the image, `mirrored`: a dict with the mirrored form of every other
            input. The data set makes it, since mirroring an IUV map also exchanges the left and
            right body parts.
    Returns:
        `batch` with `img` flipped along the width, and with the other inputs replaced by the
        entries of `mirrored`.
    """
    return {**batch, "img": mirrored(batch["img"]), **batch.get("mirrored", {})}
