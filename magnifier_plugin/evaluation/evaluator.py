"""Evaluation of one target data set: two loaders → embeddings, distances and metrics."""

import logging
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from magnifier_plugin.evaluation.cache import FeatureCache, model_fingerprint
from magnifier_plugin.evaluation.distances import distance_matrix
from magnifier_plugin.evaluation.embeddings import (
    Batch,
    Embed,
    Embeddings,
    Extraction,
    mirrored_batch,
    normalise,
)
from magnifier_plugin.evaluation.ranking import Ranking, evaluate_cuhk03, evaluate_ranking
from magnifier_plugin.evaluation.rerank import FORMS, fit_neighbours, rerank
from magnifier_plugin.evaluation.scaling import l2_normalise
from magnifier_plugin.evaluation.summary import describe

RANKS = (1, 5, 10, 20)  # the ranks that torchreid logs
_LEAST_MAX_RANK = 50  # minimum length of the CMC
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reranking:
    """Settings of k-reciprocal re-ranking (`test.rerank_*`).

    Raises:
        ValueError: a value is out of range.
    """

    k1: int = 20
    """Size of the reciprocal neighbourhoods, at least 1; reduced if there are too few images."""
    k2: int = 6
    """Number of rows that local query expansion averages, at least 1; reduced likewise."""
    lambda_value: float = 0.3
    """Weight of the original distance, in [0, 1]."""
    form: str = FORMS[0]
    """Form of the original distance, "torchreid" or "paper", as in `rerank`."""

    def __post_init__(self) -> None:
        sizes = self.k1, self.k2
        whole = all(isinstance(size, int) and size >= 1 for size in sizes)
        if not whole or not 0 <= self.lambda_value <= 1:
            raise ValueError(
                "re-ranking: expected integers k1 and k2 of at least 1, and lambda in 0..1, got "
                f"test.rerank_k1 {self.k1}, test.rerank_k2 {self.k2}, "
                f"test.rerank_lambda {self.lambda_value}"
            )
        if self.form not in FORMS:
            raise ValueError(f"re-ranking: expected form to be one of {FORMS}, got {self.form!r}")


class EvaluationResult(NamedTuple):
    """The result of testing one target; per-query values are in the order of the query loader."""

    ranking: Ranking
    """Metrics of the plain distances, with the average precision of each query."""
    reranked: Ranking | None
    """Metrics of the re-ranked distances; None without re-ranking."""
    distmat: Tensor
    """float32 [Q, G]: the re-ranked distances; without re-ranking, the plain ones."""
    query: Embeddings
    """Embeddings of the queries, normalised if requested."""
    gallery: Embeddings
    """Embeddings of the gallery, normalised if requested."""


@dataclass(frozen=True)
class Evaluator:
    """Turns a query loader and a gallery loader into an `EvaluationResult`.

    It is frozen; `dataclasses.replace(evaluator, rerank=None, cache="")` makes a copy with other
    settings.

    Raises:
        ValueError: `cache` is not a folder, or is given without `model`.
    """

    embed: Embed
    """Batch dict (`img`, `pid`, `camid`, `impath`, and whatever else the data set yields) → raw
    embeddings, floating point [B, D]. Called without gradients; the caller sets evaluation mode."""
    _: KW_ONLY
    flip: bool = False
    """Average the embeddings of a batch and of its `mirrored_batch`."""
    cache: str | Path = ""
    """Folder in which embeddings are cached; "" for no cache."""
    cache_key: str = ""
    """Everything that the embeddings depend on besides `flip`, the images, and what
    `cache.model_fingerprint` covers: precision, transform, other options of the model, other input
    files (see `cache.files_fingerprint`)."""
    model: nn.Module | None = None
    """The unwrapped model that `embed` calls; only needed with `cache`. Its weights identify the
    cached embeddings, which are moved to its device when they are read."""
    rerank: Reranking | None = None
    """Settings of re-ranking; None: no re-ranking."""
    extraction: Extraction = field(default_factory=Extraction)
    """How embeddings are extracted, by one or several processes."""

    def __post_init__(self) -> None:
        if self.cache and Path(self.cache).exists() and not Path(self.cache).is_dir():
            raise ValueError(
                f"{self.cache}: expected a folder for cached embeddings (test.cache), found a file"
            )
        if self.cache and self.model is None:
            raise ValueError(
                f"cache {self.cache}: expected the model that `embed` calls, got None; without its "
                "weights, embeddings of another checkpoint could be returned"
            )

    def embed_batch(self, batch: Batch) -> Tensor:
        """Embeddings [B, D] of a batch; with `flip`, averaged with those of its mirror images."""
        if not self.flip:
            return self.embed(batch)
        return (self.embed(batch).float() + self.embed(mirrored_batch(batch)).float()) / 2

    def evaluate(
        self,
        query_loader: DataLoader[Any],
        gallery_loader: DataLoader[Any],
        *,
        metric: str = "euclidean",
        normalize: bool = False,
        ranks: Sequence[int] = RANKS,
        cuhk03: bool = False,
    ) -> EvaluationResult:
        """Computes and logs the metrics of one target.

        Args:
            query_loader, gallery_loader: yield batch dicts in the order of their lists. Embeddings
                are only cached if `loader.dataset.data` is torchreid's list.
            metric: metric of the distances, "euclidean" (squared) or "cosine".
            normalize: L2-normalise the embeddings first (`test.normalize_feature`).
            ranks: ranks of the CMC that are logged, from 1; the CMC has at least 50 values.
            cuhk03: use the single-gallery-shot metric of CUHK03's classic split.
        Raises:
            ValueError: a loader is empty, an embedding is not finite, the metric is unknown, or no
                query has a match.
        """
        query = self._extract("query", query_loader, normalize)
        gallery = self._extract("gallery", gallery_loader, normalize)
        compute = evaluate_cuhk03 if cuhk03 else evaluate_ranking
        ids = query.pids, gallery.pids, query.camids, gallery.camids
        max_rank = max(_LEAST_MAX_RANK, *ranks)
        distmat = distance_matrix(query.features, gallery.features, metric)
        ranking = compute(distmat, *ids, max_rank=max_rank)
        logger.info(describe("Results", ranking, ranks))
        reranked = None
        if self.rerank is not None:
            del distmat  # for a large gallery, both matrices together may not fit in memory
            distmat = reranked_distances(query.features, gallery.features, metric, self.rerank)
            reranked = compute(distmat, *ids, max_rank=max_rank)
            logger.info(describe("Results with re-ranking", reranked, ranks))
        return EvaluationResult(ranking, reranked, distmat, query, gallery)

    def share_extraction(
        self, query_loader: DataLoader[Any], gallery_loader: DataLoader[Any]
    ) -> None:
        """Does this process's part of the extraction while another process evaluates."""
        for part, loader in (("query", query_loader), ("gallery", gallery_loader)):
            if not self.extraction.agree(False):
                self.extraction.extract(self.embed_batch, loader, part)

    def _extract(self, part: str, loader: DataLoader[Any], normalize: bool) -> Embeddings:
        """The embeddings of a loader's images, from the cache if it has them."""
        kept = FeatureCache(self.cache)
        path = None
        if self.cache and self.model is not None:
            path = self._cache_path(kept, self.model, part, loader)
        embeddings = kept.read(path) if path else None
        self.extraction.agree(embeddings is not None)
        if embeddings is None:
            logger.info("Extracting features from %s set ...", part)
            embeddings, seconds = self.extraction.extract(self.embed_batch, loader, part)
            count, width = embeddings.features.shape
            logger.info("Done, obtained %d-by-%d matrix, %.4f s/batch", count, width, seconds)
            if path:
                try:
                    kept.write(path, embeddings)
                except OSError as error:
                    logger.error("Features of %s set are not cached: %s", part, error)
        else:
            logger.info("Features of %s set from %s", part, path)
            embeddings = embeddings._replace(features=embeddings.features.to(_device(self.model)))
        return normalise(embeddings) if normalize else embeddings

    def _cache_path(
        self, kept: FeatureCache, model: nn.Module, part: str, loader: DataLoader[Any]
    ) -> Path | None:
        images = getattr(getattr(loader, "dataset", None), "data", None)
        if images is None:
            logger.warning(
                "Features of %s set are not cached in %s: its data set has no image list `data`",
                part,
                self.cache,
            )
            return None
        settings = {"flip": self.flip, "key": self.cache_key}
        return kept.path(model_fingerprint(model), images, settings)


def reranked_distances(query: Tensor, gallery: Tensor, metric: str, settings: Reranking) -> Tensor:
    """Re-ranked distances of features under a metric; k1 and k2 are reduced for few images.

    Args:
        query: float32 [Q, D].
        gallery: float32 [G, D], on the same device.
        metric: metric of the distances that are re-ranked, "euclidean" or "cosine".
        settings: settings of the re-ranking.
    Returns:
        float32 [Q, G].
    """
    # For vectors of norm 1 the squared Euclidean distance is twice the cosine distance, and
    # re-ranking does not depend on the scale of the distances.
    if metric == "cosine":
        query, gallery = l2_normalise(query), l2_normalise(gallery)
    num_images = len(query) + len(gallery)
    k1, k2 = fit_neighbours(num_images, settings.k1, settings.k2)
    if k1 < settings.k1:
        logger.info(
            "Re-ranking with k1 %d, not %d: query and gallery have only %d images",
            *(k1, settings.k1, num_images),
        )
    result = rerank(query, gallery, k1, k2, settings.lambda_value, form=settings.form)
    return torch.as_tensor(result)


def _device(model: nn.Module | None) -> torch.device:
    parameters = iter(()) if model is None else model.parameters()
    return next((parameter.device for parameter in parameters), torch.device("cpu"))
