"""One pass of a network over image files: their embeddings, or their regions."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from magnifier_plugin.data.image_files import file_loader
from magnifier_plugin.data.pixels import Images
from magnifier_plugin.evaluation.feature_file import ImageFeatures
from magnifier_plugin.retrieval.network import TrainedNetwork

logger = logging.getLogger(__name__)


class Embedded(NamedTuple):
    """The embeddings of image files."""

    features: np.ndarray
    """float32 [n, D], raw, of the files that decode, in the order of the list."""
    rows: np.ndarray
    """int64 [n], their indices in the list of files."""
    unreadable: dict[Path, str]
    """Each of the other files → what is wrong with it."""


class Regions(NamedTuple):
    """The predicted regions of M image files; a file that does not decode is all background."""

    labels: np.ndarray
    """uint8 [M, h, w], predicted region ids."""
    features: Tensor | None
    """float32 [M, 8, C], pooled region features p(x_k) with norm 1, zeros for an absent region;
    None if the network does not pool regions."""


def embed_files(network: TrainedNetwork, paths: Sequence[Path], description: str = "") -> Embedded:
    """Embeds image files.

    Args:
        network: the network; its configuration gives the batch size and the number of workers.
        paths: paths of the files, at least one.
        description: title of the progress bar, which is only shown on a terminal.
    Raises:
        ValueError: none of the files decodes; the message names the first one.
    """
    unreadable: dict[Path, str] = {}
    features, decoded = np.empty((0, 0), np.float32), np.zeros(len(paths), dtype=bool)
    for rows, images in _batches(network, paths, unreadable, description):
        embeddings = network.embed(images).cpu().numpy()
        if not features.size:
            features = np.empty((len(paths), embeddings.shape[1]), np.float32)
        features[rows], decoded[rows] = embeddings, True
    if not decoded.any():
        raise ValueError(
            f"none of {len(paths)} images can be read; the first: {next(iter(unreadable.values()))}"
        )
    kept = decoded.nonzero()[0]
    return Embedded(features if len(kept) == len(paths) else features[kept], kept, unreadable)


def extract(
    network: TrainedNetwork, paths: Sequence[Path], folder: Path, description: str = "Images"
) -> ImageFeatures:
    """Extracts the features of image files, without those that do not decode.

    A warning is logged for each file that is left out.

    Args:
        network, paths, description: as in `embed_files`.
        folder: the folder to which the names in the result are relative.
    Raises:
        ValueError: none of the files decodes.
    """
    features, rows, unreadable = embed_files(network, paths, description)
    for message in unreadable.values():
        logger.warning("Left out: %s", message)
    names = [paths[row].relative_to(folder).as_posix() for row in rows]
    return ImageFeatures(features, names, folder, network.identity())


def describe_files(
    network: TrainedNetwork, paths: Sequence[Path], description: str = ""
) -> Regions | None:
    """Predicts the regions of image files and pools them.

    Args:
        network, paths, description: as in `embed_files`.
    Returns:
        None if the network has no mask module M, or none of the files decodes.
    """
    if not network.has_regions:
        return None
    labels: np.ndarray | None = None
    features: Tensor | None = None
    for rows, images in _batches(network, paths, {}, description):
        found = network.describe_regions(images)
        if labels is None:
            labels = np.zeros((len(paths), *found.labels.shape[1:]), np.uint8)
            if found.features is not None:
                features = torch.zeros(len(paths), *found.features.shape[1:])
        labels[rows] = found.labels.cpu().numpy()
        if features is not None and found.features is not None:
            features[torch.from_numpy(rows)] = F.normalize(found.features, dim=2).cpu()
    return None if labels is None else Regions(labels, features)


def cosines(regions: Regions, one: int, others: np.ndarray) -> np.ndarray | None:
    """The cosine similarity of p(x_k) between an image and other images, for each region.

    Args:
        regions: the regions of all images.
        one, others: indices in `regions`; others int64 [n].
    Returns:
        float32 [n, 8] in [0, 1], NaN if a region is absent from one of the two images; None if
        the network does not pool regions.
    """
    if regions.features is None:
        return None
    pair = regions.features[one], regions.features[torch.from_numpy(others)]
    absent = (pair[0] == 0).all(dim=-1) | (pair[1] == 0).all(dim=-1)
    products = (pair[0] * pair[1]).sum(dim=-1).clamp_(-1, 1)
    return products.masked_fill_(absent, torch.nan).numpy()


def _batches(
    network: TrainedNetwork, paths: Sequence[Path], unreadable: dict[Path, str], description: str
) -> Iterator[tuple[np.ndarray, Images]]:
    """Yields the indices int64 [B] and images of the files that decode, batch by batch."""
    loader = file_loader(
        paths,
        network.transform,
        batch_size=network.cfg.test.batch_size,
        workers=network.cfg.data.workers,
        pin_memory=network.precision.device.type == "cuda",
    )
    with tqdm(total=len(paths), desc=description, unit="image", disable=None, leave=False) as bar:
        for batch in loader:
            for row, message in batch["errors"].items():
                unreadable[paths[row]] = message
            if len(batch["row"]):
                yield batch["row"].numpy(), batch["img"]
            bar.update(len(batch["row"]) + len(batch["errors"]))
