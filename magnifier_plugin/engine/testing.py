"""Testing a model on every target: torchreid's log, `results.json`, pictures of rankings."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from magnifier_plugin.data.inputs import declare_inputs, declared_keys, take_inputs
from magnifier_plugin.engine.conditions import query_scores, read_target_conditions
from magnifier_plugin.engine.pictures import Pictures
from magnifier_plugin.engine.precision import Precision
from magnifier_plugin.engine.provenance import versions
from magnifier_plugin.engine.results_file import RESULTS, write_results
from magnifier_plugin.engine.sharded_extraction import ShardedExtraction
from magnifier_plugin.engine.step import TrainingStep
from magnifier_plugin.evaluation.cache import files_fingerprint
from magnifier_plugin.evaluation.conditions import (
    describe_conditions,
    describe_twin_share,
    metrics_by_condition,
    twin_share,
)
from magnifier_plugin.evaluation.evaluator import EvaluationResult, Evaluator, Reranking
from magnifier_plugin.evaluation.query_file import QUERIES, QueryScores, write_queries
from magnifier_plugin.evaluation.summary import summarise

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TestOptions:
    """How an engine tests, in addition to torchreid's arguments of `test`."""

    __test__ = False  # not a test class for pytest, despite its name

    amp: str = "off"
    """Mixed precision in the last test, one of `precision.AMP`. Tests during training use the
    precision of training."""
    flip: bool = False
    """Average the embeddings of each image and its mirror image."""
    cache: str | Path = ""
    """Folder in which the last test's embeddings are cached, so that testing the same weights again
    takes seconds; "" for no cache."""
    reranking: Reranking = field(default_factory=Reranking)
    """Parameters of k-reciprocal re-ranking."""
    rerank_during_training: bool = False
    """Re-rank in every test, also during training, even if `rerank` is False."""
    conditions: str | Path = ""
    """CSV of per-image conditions to group queries by, see `evaluation.conditions`; "" for the data
    set's own conditions, if it has any, as the rendered one does."""
    rankings: int = 0
    """Draw the rankings of this many queries of each target in the last test."""

    def __post_init__(self) -> None:
        if self.cache and Path(self.cache).exists() and not Path(self.cache).is_dir():
            raise ValueError(
                f"{self.cache}: expected a folder for cached embeddings (test.cache), found a file"
            )


class Tester:
    """Tests a model on the targets of a data manager.

    Args:
        datamanager: torchreid's or ours.
        step: the training step. Its model returns raw embeddings [B, D] in evaluation mode; its
            processes share the extraction, and the first one evaluates and writes.
        options: see `TestOptions`.
        record: entries for `results.json`, such as configuration and seed.
    Raises:
        FileNotFoundError: the file of conditions is missing.
        ValueError: options.amp is not one of `AMP`, or the file of conditions is invalid or lists
            no query image of any target.
    """

    def __init__(
        self,
        datamanager: Any,
        step: TrainingStep,
        options: TestOptions,
        record: Mapping[str, Any],
    ) -> None:
        self.datamanager, self.step, self.model = datamanager, step, step.model
        self.options, self.record = options, record
        self.training_precision = step.precision
        self.precision = step.precision.with_amp(options.amp)
        self.conditions = read_target_conditions(datamanager, options.conditions)
        self.inputs = declared_keys(self.model, "test_inputs")
        self.results: dict[str, dict[str, Any]] = {}
        """Target → results of the last test, from `evaluation.summary.summarise`; if conditions are
        known, also "conditions", from `evaluation.conditions.metrics_by_condition`."""
        self.queries: dict[str, QueryScores] = {}
        """Target → results of each query of the last test."""
        self.pictures = Pictures()
        """Pictures of the last test; not yet drawn when it ends."""
        self.written: Path | None = None
        """The file of the last test's results."""
        self._failure: OSError | None = None

    def declare_inputs(self) -> None:
        """Make the samples of query and gallery include the inputs that the model declares.

        Raises:
            ValueError: a data set cannot make one of them.
            FileNotFoundError: too many of the files needed for an input are missing.
        """
        for loaders in self.datamanager.test_loader.values():
            for loader in loaders.values():
                declare_inputs(loader.dataset, self.inputs, mirrored=self.options.flip)

    def embed(self, batch: Mapping[str, Any], precision: Precision | None = None) -> Tensor:
        """Test batch → raw embeddings float [B, D], by default in the last test's precision."""
        self.step.threads.adapt()
        precision = precision or self.precision
        targets = precision.targets(take_inputs(batch, self.inputs))
        with torch.inference_mode(), precision.autocast():
            features: Tensor = self.model(precision.images(batch["img"]), **targets)
        return features.float()

    def test(
        self,
        *,
        last: bool = True,
        epoch: int | None = None,
        dist_metric: str = "euclidean",
        normalize_feature: bool = False,
        visrank: bool = False,
        visrank_topk: int = 10,
        save_dir: str | Path = "log",
        use_metric_cuhk03: bool = False,
        ranks: Sequence[int] = (1, 5, 10, 20),
        rerank: bool = False,
    ) -> None:
        """Test every target. Results are in `results` and `results.json`, those of each query in
        `queries` and `queries.csv`.

        Pictures are only planned: the caller draws them after the results and the model are saved.

        Args:
            last: whether it is the last or only test of a run, which is cached and drawn.
            epoch: number of trained epochs, for `results.json`.
            rerank: re-rank if this is the last test; see also `rerank_during_training`.
            dist_metric, normalize_feature, visrank, visrank_topk, save_dir, use_metric_cuhk03,
                ranks: as in torchreid's `Engine.test`.
        """
        folder, options = Path(save_dir), self.options
        precision = self.precision if last else self.training_precision
        evaluator = self._evaluator(precision, rerank, last)
        self.results, self.queries, self.pictures = {}, {}, Pictures()
        self.model.eval()
        if not self.step.processes.is_first:
            for loaders in self.datamanager.test_loader.values():
                evaluator.share_extraction(loaders["query"], loaders["gallery"])
            return
        for name, loaders in self.datamanager.test_loader.items():
            domain = "source" if name in self.datamanager.sources else "target"
            logger.info("##### Evaluating %s (%s) #####", name, domain)
            result = evaluator.evaluate(
                loaders["query"],
                loaders["gallery"],
                metric=dist_metric,
                normalize=normalize_feature,
                cuhk03=use_metric_cuhk03,
                ranks=ranks,
            )
            shown = sorted({1, *ranks})  # torchreid's `test` returns rank-1
            self.results[name] = summarise(result.ranking, shown)
            if result.reranked is not None:
                self.results[name]["reranked"] = summarise(result.reranked, shown)
            self._group(name, result, dist_metric)
            lists = self.datamanager.fetch_test_loaders(name)
            if visrank:
                place = folder / f"visrank_{name}"
                self.pictures.plan_rankings(result.distmat, lists, place, visrank_topk)
            if last and options.rankings:
                path = folder / f"rankings_{name}.png"
                shape = options.rankings, visrank_topk
                self.pictures.plan_sheet(result.distmat, lists, path, *shape)
        self._write(folder, epoch, precision)

    def raise_failure(self) -> None:
        """Raise the OSError of the last test if its results could not be written."""
        if self._failure is not None:
            raise self._failure

    def _evaluator(self, precision: Precision, rerank: bool, last: bool) -> Evaluator:
        options = self.options
        reranks = options.rerank_during_training or (rerank and last)
        return Evaluator(
            partial(self.embed, precision=precision),
            flip=options.flip,
            cache=options.cache if last else "",
            cache_key=self._cache_key() if last and options.cache else "",
            model=self.model,
            rerank=options.reranking if reranks else None,
            extraction=ShardedExtraction(self.step.processes),
        )

    def _group(self, name: str, result: EvaluationResult, metric: str) -> None:
        """Store the results of each query, and the results grouped by condition."""
        loader, conditions = self.datamanager.test_loader[name]["query"], self.conditions.get(name)
        images = [record[0] for record in self.datamanager.fetch_test_loaders(name)[0]]
        self.queries[name] = scores = query_scores(
            loader.dataset, images, result, conditions, metric
        )
        if conditions is None:
            return
        precision, is_twin = scores.average_precision, scores.first_hit_is_twin
        groups = metrics_by_condition(conditions.labels, precision, scores.first_match)
        self.results[name]["conditions"] = groups
        logger.info("%s", describe_conditions(groups))
        if is_twin is not None:
            share = twin_share(conditions, is_twin, precision)
            self.results[name]["first_hit_is_twin"] = share
            logger.info("%s", describe_twin_share(share))

    def _cache_key(self) -> str:
        """Everything that embeddings depend on except weights, images and flipping."""
        loaders = [x for pair in self.datamanager.test_loader.values() for x in pair.values()]
        parts = [str(self.precision), str(self.datamanager.transform_te)]
        for dataset in (loader.dataset for loader in loaders if self.inputs):
            files = [file for files in dataset.files.values() for file in files.values() if file]
            parts += [str(dataset.input_options), files_fingerprint(files)]
        return "; ".join(parts)

    def _write(self, folder: Path, epoch: int | None, precision: Precision) -> None:
        """Write the results; a failure is raised later, after the best model is saved."""
        content = {
            "results": self.results,
            "epoch": epoch,
            "precision": str(precision),
            "versions": versions(),
            **self.record,
        }
        self._failure = None
        try:
            prefix = write_results(folder, content)
            write_queries(folder / f"{prefix}{QUERIES}", self.queries)
            self.written = folder / f"{prefix}{RESULTS}"
        except OSError as error:
            self._failure = error
            logger.error(
                "%s: not written (%s); the numbers are in this log", folder / RESULTS, error
            )
