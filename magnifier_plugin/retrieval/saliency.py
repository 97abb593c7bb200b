"""What a trained network looks at in a data set's query images, in numbers and figures."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from magnifier_plugin.data.annotated import AnnotatedDataset
from magnifier_plugin.images import read_image
from magnifier_plugin.models.pooling import rescale_labels
from magnifier_plugin.regions import NUM_REGIONS, REGIONS, UNKNOWN
from magnifier_plugin.retrieval.network import TrainedNetwork
from magnifier_plugin.visualize.saliency import (
    LOWEST_TO_HIGHEST,
    ZERO_TO_HIGHEST,
    branch_maps,
    embedding_parts,
    influence_table,
    region_heat,
    region_influence,
    saliency_sheet,
)

_BATCH = 32  # images; each is embedded 8 times, once whole and once without each body region


class Saliency(NamedTuple):
    """What a network looks at in N images."""

    activations: dict[str, np.ndarray]
    """Branch → float32 [N, h, w] in 0..1, see `branch_maps`."""
    labels: np.ndarray
    """uint8 [N, H, W], the regions of the label maps; else the predicted ones; else 255."""
    influence: dict[str, np.ndarray]
    """Branch → float32 [N, 8], see `region_influence`."""
    cosine: np.ndarray
    """float32 [N], mean cosine similarity over all pairs of p(x_k) whose regions are present in the
    image (Eq. 3); NaN without SFB, and for images with fewer than two regions."""
    overlap: np.ndarray
    """float64 [8], intersection over union (IoU) of the predicted regions and those of the label
    maps, on the prediction's grid [2⌈H/16⌉, 2⌈W/16⌉]; NaN without M, without label maps, and for
    absent regions."""


def look_at(network: TrainedNetwork, dataset: AnnotatedDataset, chosen: Sequence[int]) -> Saliency:
    """Measures what a network looks at in some images of a data set.

    Args:
        network: a network for images of the size that the data set's transform gives.
        dataset: has the input "mask"; for an image without a label map, the predicted regions are
            used.
        chosen: indices of the images.
    """
    parts: list[Saliency] = []
    counts = np.zeros((2, NUM_REGIONS))
    for start in range(0, len(chosen), _BATCH):
        items = [dataset[place] for place in chosen[start : start + _BATCH]]
        images = network.precision.images(torch.stack([item["img"] for item in items]))
        labels = torch.stack([item["mask"] for item in items]).to(images.device)
        parts.append(_look_at_batch(network, images, labels, counts))
    with np.errstate(invalid="ignore"):
        overlap = counts[0] / counts[1]
    names = parts[0].activations
    return Saliency(
        {name: np.concatenate([part.activations[name] for part in parts]) for name in names},
        np.concatenate([part.labels for part in parts]),
        {
            name: np.concatenate([part.influence[name] for part in parts])
            for name in parts[0].influence
        },
        np.concatenate([part.cosine for part in parts]),
        overlap,
    )


def _look_at_batch(
    network: TrainedNetwork, images: Tensor, labels: Tensor, counts: np.ndarray
) -> Saliency:
    """Handles one batch; adds its cells of intersection and union to `counts`, float64 [2, 8]."""
    cosine = torch.full((len(images),), torch.nan)
    if network.has_regions:
        found = network.describe_regions(images)
        _count_cells(found.labels, labels, counts)
        if found.features is not None:
            cosine = mean_cosine(found.features)
        size = images.shape[-2:]
        predicted = F.interpolate(found.labels[:, None].float(), size, mode="nearest-exact")
        unlabelled = (labels == UNKNOWN).flatten(1).all(dim=1)
        labels = torch.where(unlabelled[:, None, None], predicted[:, 0].to(labels.dtype), labels)
    with torch.inference_mode(), network.precision.autocast():
        activations = branch_maps(network.model, images)
    width = network.embed(images[:1]).shape[1]
    influence = region_influence(
        network.embed, images, labels, embedding_parts(network.model, width)
    )
    return Saliency(
        {name: values.cpu().numpy() for name, values in activations.items()},
        labels.cpu().numpy(),
        {name: values.cpu().numpy() for name, values in influence.items()},
        cosine.cpu().numpy(),
        counts[0],
    )


def _count_cells(predicted: Tensor, labels: Tensor, counts: np.ndarray) -> None:
    true = rescale_labels(labels, predicted.shape[-2:])
    known = true != UNKNOWN
    for region in range(NUM_REGIONS):
        one, other = (predicted == region) & known, true == region
        counts[0, region] += int((one & other).sum())
        counts[1, region] += int((one | other).sum())


def mean_cosine(features: Tensor) -> Tensor:
    """float32 [B]: mean cosine similarity of the pairs i < j of present regions, from [B, 8, C];
    NaN if there is no pair."""
    present = (features != 0).any(dim=2).float()
    units = F.normalize(features, dim=2)
    # The sum over all ordered pairs i ≠ j: the sum of all products without the diagonal.
    total = units.sum(dim=1).square().sum(dim=1) - present.sum(dim=1)
    number = present.sum(dim=1)
    # With one region, rounding leaves a total that is not exactly 0.
    return torch.where(number > 1, total / (number * (number - 1)), torch.nan)


def activation_sheet(
    photos: Sequence[np.ndarray], found: Saliency, places: Sequence[int]
) -> Image.Image:
    """MagnifierNet's Fig. 2: images, and where each branch is active.

    Args:
        photos: uint8 [H, W, 3] each.
        found: the result of `look_at`.
        places: index of each photo in `found`.
    """
    columns = {n: [v[i] for i in places] for n, v in found.activations.items()}
    return saliency_sheet(photos, columns, LOWEST_TO_HIGHEST)


def influence_sheet(
    photos: Sequence[np.ndarray], found: Saliency, places: Sequence[int]
) -> Image.Image:
    """Images whose regions are coloured by how far the embedding moves without each of them.

    Args:
        photos, found, places: as in `activation_sheet`.
    """
    columns = {
        name: [region_heat(found.labels[i], values[i]) for i in places]
        for name, values in found.influence.items()
    }
    return saliency_sheet(photos, columns, ZERO_TO_HIGHEST)


def describe(found: Saliency) -> str:
    """The numbers of `found` as Markdown."""
    lines = [
        f"# What the network looks at, in {len(found.labels)} images",
        "",
        "1 − cosine between the embeddings with and without a region, mean over the images that "
        "show it:",
        "",
        influence_table(found.influence),
        "",
    ]
    if np.isfinite(found.cosine).any():
        mean = np.nanmean(found.cosine)
        lines += [
            f"Mean cosine between the features p(x_k) of regions that an image shows: {mean:.3f}.",
            "",
        ]
    if np.isfinite(found.overlap).any():
        shares = [
            f"{name} {value:.2f}"
            for name, value in zip(REGIONS, found.overlap, strict=True)
            if np.isfinite(value)
        ]
        mean = np.nanmean(found.overlap)
        lines += [
            f"IoU of predicted regions and label maps: mean {mean:.3f} ({', '.join(shares)}).",
            "",
        ]
    return "\n".join(lines)


def read_photos(
    dataset: AnnotatedDataset, chosen: Sequence[int], size: tuple[int, int]
) -> list[np.ndarray]:
    """Images of a data set as uint8 [H, W, 3], resized to one size (height, width)."""
    return [
        np.asarray(read_image(dataset.data[place][0]).resize(size[::-1], Image.Resampling.BICUBIC))
        for place in chosen
    ]
