"""The half of the engine that tests: torchreid's `test`, with results that are kept."""

import json
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

from magnifier_plugin.engine.precision import resolve_switch
from magnifier_plugin.evaluation.distances import distance_matrix
from magnifier_plugin.evaluation.evaluator import Embeddings, extract, normalise
from magnifier_plugin.evaluation.ranking import Ranking, evaluate_cuhk03, evaluate_ranking
from magnifier_plugin.visualize.rankings import ranking_sheet, save_rankings
from magnifier_plugin.visualize.regions import save_sheet

RESULTS = "results.json"


class EvaluatingEngine(torchreid.engine.Engine):
    """torchreid's engine with mixed precision, edge cases of the metrics, and `results.json`.

    Args:
        datamanager: torchreid's or ours.
        model: moved to the device, and to channels-last if that is on.
        use_gpu: take a GPU if there is one.
        amp: bf16 mixed precision: "on", "off", or "auto" where the device computes in bf16.
        channels_last: likewise, the memory format.
        rankings: draw the rankings of so many queries of each target in the last test.
        record: what to keep with the results and in checkpoints: configuration, seed.
    """

    def __init__(
        self,
        datamanager: Any,
        model: torch.nn.Module,
        *,
        use_gpu: bool = True,
        amp: str = "auto",
        channels_last: str = "auto",
        rankings: int = 0,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(datamanager, use_gpu)
        self.device = torch.device("cuda" if self.use_gpu else "cpu")
        self.amp = resolve_switch(amp, self.device, "amp")
        last = resolve_switch(channels_last, self.device, "channels_last")
        self.memory_format = torch.channels_last if last else torch.contiguous_format
        self.model = model.to(self.device, memory_format=self.memory_format)
        self.register_model("model", self.model)
        self.record = dict(record or {})
        self.save_dir = Path("log")
        self.rerank = False
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
        """torchreid's hook: images [B, 3, H, W] → raw embeddings float [B, D]."""
        with torch.inference_mode(), self.autocast():
            return self.model(self.to_device(input))

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
        print_ranking("** Results **", ranking, ranks)
        result = summarise(ranking, ranks)
        if rerank or (self.rerank and self._is_last_test()):
            distmat = self._rerank(query, gallery, distmat, dist_metric)
            reranked = evaluate(distmat, *ids, max_rank=max(50, *ranks))
            print_ranking("** Results with re-ranking **", reranked, ranks)
            result["reranked"] = summarise(reranked, ranks)
        self.results[dataset_name] = result
        if visrank or (self.rankings and self._is_last_test()):
            self._draw(dataset_name, distmat.cpu().numpy(), Path(save_dir), visrank, visrank_topk)
        return float(ranking.cmc[0]), ranking.mAP

    def _extract(self, part: str, loader: Any, normalize: bool) -> Embeddings:
        print(f"Extracting features from {part} set ...")
        embeddings, seconds = extract(
            self.extract_features, loader, self.parse_data_for_eval, description=part
        )
        count, width = embeddings.features.shape
        print(f"Done, obtained {count}-by-{width} matrix, {seconds:.4f} sec/batch")
        return normalise(embeddings) if normalize else embeddings

    def _rerank(
        self, query: Embeddings, gallery: Embeddings, distmat: Tensor, metric: str
    ) -> Tensor:
        among_query = distance_matrix(query.features, query.features, metric)
        among_gallery = distance_matrix(gallery.features, gallery.features, metric)
        arrays = (matrix.cpu().numpy() for matrix in (distmat, among_query, among_gallery))
        return torch.from_numpy(torchreid.utils.re_ranking(*arrays))

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

    def _is_last_test(self) -> bool:
        return self.epoch + 1 == getattr(self, "max_epoch", self.epoch + 1)

    def _write_results(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        trained = self.history[-1]["epoch"] if self.history else None
        content = {"results": self.results, "epoch": trained, "versions": versions()}
        beside = folder / f".{RESULTS}.{os.getpid()}"
        beside.write_text(json.dumps(content | self.record, indent=2) + "\n", encoding="utf-8")
        beside.replace(folder / RESULTS)


def summarise(ranking: Ranking, ranks: Sequence[int]) -> dict[str, Any]:
    """A ranking's numbers as JSON takes them, shares in 0..1."""
    return {
        "mAP": ranking.mAP,
        "mINP": ranking.mINP,
        **{f"rank-{rank}": float(ranking.cmc[rank - 1]) for rank in ranks},
        "queries": ranking.num_valid,
        "queries_without_match": {
            "identity_absent": ranking.num_absent,
            "same_camera_only": ranking.num_same_camera,
        },
    }


def print_ranking(title: str, ranking: Ranking, ranks: Sequence[int]) -> None:
    """Print mAP, mINP and CMC in torchreid's words."""
    print(title)
    print(f"mAP: {ranking.mAP:.1%}")
    print(f"mINP: {ranking.mINP:.1%}")
    print("CMC curve")
    for rank in ranks:
        print(f"Rank-{rank:<3}: {ranking.cmc[rank - 1]:.1%}")
    if left_out := ranking.num_absent + ranking.num_same_camera:
        print(
            f"{left_out} queries without a match left out: {ranking.num_absent} identities absent "
            f"from the gallery, {ranking.num_same_camera} in the query's own camera only"
        )


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    modules = (torch, torchvision, torchreid, np, PIL)
    return {"python": platform.python_version()} | {m.__name__: m.__version__ for m in modules}
