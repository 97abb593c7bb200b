"""From images to numbers: embeddings, distances, re-ranking, CMC and mAP."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm


class Embeddings(NamedTuple):
    """What a loader's images became, in its order."""

    features: Tensor
    """float32 [N, D], where the model left them."""
    pids: np.ndarray
    """int [N]."""
    camids: np.ndarray
    """int [N]."""


def extract(
    embed: Callable[[Tensor], Tensor],
    batches: Iterable,
    parse: Callable[[dict], Sequence[Tensor]],
    description: str = "",
) -> tuple[Embeddings, float]:
    """Embed every image of a loader.

    Args:
        embed: images [B, 3, H, W] → raw embeddings [B, D].
        batches: of a data loader.
        parse: a batch → images, pids, camids.
        description: of the progress bar, which shows on a terminal only.
    Returns:
        The embeddings, and the mean seconds a batch without the loading.
    """
    features, pids, camids, seconds = [], [], [], []
    for batch in tqdm(batches, desc=description, disable=None, leave=False):
        images, batch_pids, batch_camids = parse(batch)
        start = time.perf_counter()
        features.append(embed(images).float())
        seconds.append(time.perf_counter() - start)
        pids.append(np.asarray(batch_pids))
        camids.append(np.asarray(batch_camids))
    result = Embeddings(torch.cat(features), np.concatenate(pids), np.concatenate(camids))
    return result, sum(seconds) / len(seconds)


def normalise(embeddings: Embeddings) -> Embeddings:
    """Bring every embedding to length 1."""
    return embeddings._replace(features=F.normalize(embeddings.features, dim=1))


class Reranking(NamedTuple):
    k1: int = 20
    k2: int = 6
    lambda_value: float = 0.3
    form: str = "torchreid"


class EvaluationResult(NamedTuple):
    ranking: object


class Evaluator:
    pass
