"""The half of the engine that tests: torchreid's `test`, with results that are kept."""

import json
import logging
import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
import torchreid
import torchvision
from torch import Tensor
from torch.nn import functional as F

from magnifier_plugin.engine.precision import resolve_switch
from magnifier_plugin.evaluation.cache import FeatureCache, model_fingerprint
from magnifier_plugin.evaluation.distances import distance_matrix
from magnifier_plugin.evaluation.evaluator import Embeddings, extract, normalise
from magnifier_plugin.evaluation.ranking import evaluate_cuhk03, evaluate_ranking
from magnifier_plugin.evaluation.rerank import fit_neighbours
from magnifier_plugin.evaluation.rerank import rerank as rerank_features
from magnifier_plugin.evaluation.summary import describe, summarise
from magnifier_plugin.visualize.rankings import ranking_sheet, save_rankings
from magnifier_plugin.visualize.regions import save_sheet

RESULTS = "results.json"
logger = logging.getLogger(__name__)


class EvaluatingEngine(torchreid.engine.Engine):
    """torchreid's engine with mixed precision, edge cases of the metrics, and `results.json`.

    Args:
        datamanager: torchreid's or ours.
        model: moved to the device, and to channels-last if that is on.
        use_gpu: take a GPU if there is one.
        amp: bf16 mixed precision: "on", "off", or "auto" where the device computes in bf16.
        channels_last: likewise, the memory format.
        flip: average the embeddings of an image and its mirror image.
        cache: folder to keep the last test's embeddings in, so that testing the same weights again
            takes seconds; "" keeps none.
        rerank_during_training: re-rank in the tests during a training too.
        rerank_k1, rerank_k2, rerank_lambda: of k-reciprocal re-ranking, see `rerank`.
        rankings: draw the rankings of so many queries of each target in the last test.
        record: what to keep with the results and in checkpoints: configuration, seed.
    Raises:
        ValueError: a setting of re-ranking is out of its range, or the cache is no folder.
    """

    def __init__(
        self,
        datamanager: Any,
        model: torch.nn.Module,
        *,
        use_gpu: bool = True,
        amp: str = "auto",
        channels_last: str = "auto",
        flip: bool = False,
        cache: str | Path = "",
        rerank_during_training: bool = False,
        rerank_k1: int = 20,
        rerank_k2: int = 6,
        rerank_lambda: float = 0.3,
        rankings: int = 0,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        if rerank_k1 < 1 or rerank_k2 < 1 or not 0 <= rerank_lambda <= 1:
            raise ValueError(
                "re-ranking: expected k1 and k2 from 1 and lambda in 0..1, got rerank_k1 "
                f"{rerank_k1}, rerank_k2 {rerank_k2}, rerank_lambda {rerank_lambda}"
            )
        if cache and Path(cache).exists() and not Path(cache).is_dir():
            raise ValueError(f"{cache}: expected a folder to keep embeddings in (test.cache)")
        super().__init__(datamanager, use_gpu)
        self.device = torch.device("cuda" if self.use_gpu else "cpu")
        self.amp = resolve_switch(amp, self.device, "amp")
        last = resolve_switch(channels_last, self.device, "channels_last")
        self.memory_format = torch.channels_last if last else torch.contiguous_format
        self.model = model.to(self.device, memory_format=self.memory_format)
        self.register_model("model", self.model)
        self.record = dict(record or {})
        self.save_dir = Path("log")
        self.flip, self.cache = flip, cache
        self.rerank = False
        self.rerank_during_training = rerank_during_training
        self.rerank_k1, self.rerank_k2, self.rerank_lambda = rerank_k1, rerank_k2, rerank_lambda
        self.rankings = rankings
        self.pictures: list[Path] = []
        self.results: dict[str, dict[str, Any]] = {}
        self.history: list[dict[str, Any]] = []  # one entry an epoch that was trained

    def autocast(self) -> AbstractContextManager:
        """The context in which the model runs."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.amp)

    def to_device(self, images: Tensor) -> Tensor:
        """Images on the engine's device and in its memory format."""
        return images.to(self.device, memory_format=self.memory_format, non_blocking=True)

    def extract_features(self, input: Tensor) -> Tensor:
        """torchreid's hook: images [B, 3, H, W] → raw embeddings float [B, D].

        With `flip` the mean of an image's and its mirror image's.
        """
        images = self.to_device(input)
        with torch.inference_mode(), self.autocast():
            features = self.model(images).float()
            if self.flip:
                features = (features + self.model(images.flip(3)).float()) / 2
        return features

    def test(self, *args: Any, **options: Any) -> float:
        """torchreid's `test`; the numbers of every target are kept in `results` and on disk.

        Returns:
            rank-1 of the last target, as torchreid's.
        """
        self.results = {}
        # Loaders draw a seed; testing more or less often must not change what is trained.
        with torch.random.fork_rng(devices=[]):
            rank1 = super().test(*args, **options)
        self._write_results(Path(options.get("save_dir") or self.save_dir))
        return rank1

    def _evaluate(
        self,
        dataset_name: str = "",
        query_loader: Any = None,
        gallery_loader: Any = None,
        dist_metric: str = "euclidean",
        normalize_feature: bool = False,
        visrank: bool = False,
        visrank_topk: int = 10,
        save_dir: str = "",
        use_metric_cuhk03: bool = False,
        ranks: Sequence[int] = (1, 5, 10, 20),
        rerank: bool = False,
    ) -> tuple[float, float]:
        """torchreid's hook: test one target. Returns rank-1 and mAP, without re-ranking."""
        query = self._extract("query", query_loader, normalize_feature)
        gallery = self._extract("gallery", gallery_loader, normalize_feature)
        distmat = distance_matrix(query.features, gallery.features, dist_metric)
        evaluate = evaluate_cuhk03 if use_metric_cuhk03 else evaluate_ranking
        ids = (query.pids, gallery.pids, query.camids, gallery.camids)
        ranking = evaluate(distmat, *ids, max_rank=max(50, *ranks))
        logger.info(describe("Results", ranking, ranks))
        result = summarise(ranking, ranks)
        if rerank or self._reranks_now():
            del distmat  # of a large gallery the two would not fit side by side
            distmat = self._rerank(query.features, gallery.features, dist_metric)
            reranked = evaluate(distmat, *ids, max_rank=max(50, *ranks))
            logger.info(describe("Results with re-ranking", reranked, ranks))
            result["reranked"] = summarise(reranked, ranks)
        self.results[dataset_name] = result
        if visrank or (self.rankings and self._is_last_test()):
            self._draw(dataset_name, distmat.cpu().numpy(), Path(save_dir), visrank, visrank_topk)
        return float(ranking.cmc[0]), ranking.mAP

    def _extract(self, part: str, loader: Any, normalize: bool) -> Embeddings:
        """Embed a loader's images, or take what was kept of them."""
        cache, images = FeatureCache(self.cache), getattr(loader.dataset, "data", None)
        path = None
        if self.cache and images is not None and self._is_last_test():
            settings = {"flip": self.flip, "amp": self.amp, "transform": str(self._transform)}
            path = cache.path(model_fingerprint(self.model), images, settings)
        embeddings = cache.read(path) if path else None
        if embeddings is None:
            logger.info("Extracting features from %s set ...", part)
            embeddings, seconds = extract(
                self.extract_features, loader, self.parse_data_for_eval, description=part
            )
            count, width = embeddings.features.shape
            logger.info("Done, obtained %d-by-%d matrix, %.4f s/batch", count, width, seconds)
            if path:
                cache.write(path, embeddings)
        else:
            logger.info("Features of %s set from %s", part, path)
            embeddings = embeddings._replace(features=embeddings.features.to(self.device))
        return normalise(embeddings) if normalize else embeddings

    @property
    def _transform(self) -> Any:
        return getattr(self.datamanager, "transform_te", None)

    def _rerank(self, query: Tensor, gallery: Tensor, metric: str) -> Tensor:
        # Of vectors of length 1 the squared distance is twice the cosine distance, and re-ranking
        # does not see a factor.
        if metric == "cosine":
            query, gallery = F.normalize(query), F.normalize(gallery)
        num_images = len(query) + len(gallery)
        k1, k2 = fit_neighbours(num_images, self.rerank_k1, self.rerank_k2)
        if k1 < self.rerank_k1:
            logger.info("Re-ranking with k1 %d: there are %d images in all", k1, num_images)
        return rerank_features(query, gallery, k1, k2, self.rerank_lambda)

    def _draw(
        self, dataset_name: str, distmat: np.ndarray, folder: Path, visrank: bool, topk: int
    ) -> None:
        test_set = self.datamanager.fetch_test_loaders(dataset_name)
        if visrank:
            save_rankings(distmat, *test_set, folder / f"visrank_{dataset_name}", topk)
        if self.rankings:
            path = folder / f"rankings_{dataset_name}.png"
            save_sheet(ranking_sheet(distmat, *test_set, self.rankings, topk), path)
            self.pictures.append(path)

    def _reranks_now(self) -> bool:
        return self.rerank_during_training or (self.rerank and self._is_last_test())

    def _is_last_test(self) -> bool:
        return self.epoch + 1 == getattr(self, "max_epoch", self.epoch + 1)

    def _write_results(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        trained = self.history[-1]["epoch"] if self.history else None
        content = {"results": self.results, "epoch": trained, "versions": versions()}
        beside = folder / f".{RESULTS}.{os.getpid()}"
        beside.write_text(json.dumps(content | self.record, indent=2) + "\n", encoding="utf-8")
        beside.replace(folder / RESULTS)


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    modules = (torch, torchvision, torchreid, np, PIL)
    return {"python": platform.python_version()} | {m.__name__: m.__version__ for m in modules}
