"""The dumps of detectron2's DensePose (`apply_net.py dump`), all three kinds there have been.

A dump is a list with a dict for each image: `file_name`, `scores`, `pred_boxes_XYXY` and
`pred_densepose`, one chart for each person. They are read without detectron2, and none of their
code is run (`unpickler`):
- since 2022-10-31 a `torch.save` archive of chart results; it is mapped, not read;
- from 2020-10 to then a plain pickle of the same: the whole of it is in memory while converting;
- from 2019-10 to 2020-10 a plain pickle of `DensePoseResult`, whose charts are base64 PNGs.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from magnifier_plugin.annotators.densepose import label_set_definition, label_set_name
from magnifier_plugin.annotators.detections import (
    MIN_SCORE,
    Chart,
    DetectedPeople,
    Detection,
    FloatChart,
    PngChart,
)
from magnifier_plugin.annotators.unpickler import load_untrusted


class ChartResult:
    """Stands for detectron2's chart results: `labels` int64 [h, w], `uv` float [2, h, w]."""


class QuantizedResult:
    """Stands for the first `DensePoseResult`: `results`, a list of ((3, h, w), base64 PNG)."""


class Embedding:
    """Stands for what CSE models write: a surface embedding, no parts."""


_MODULE = "densepose.structures"
_CLASSES = {
    f"{_MODULE}.chart_result.DensePoseChartResultWithConfidences": ChartResult,
    f"{_MODULE}.chart_result.DensePoseChartResult": ChartResult,
    f"{_MODULE}.DensePoseResult": QuantizedResult,
    f"{_MODULE}.cse.DensePoseEmbeddingPredictorOutput": Embedding,
}


class DumpFile:
    """One dump of detectron2's DensePose.

    Args:
        path: the file that `apply_net.py dump --output` wrote.
        hands: the region that hands count as, "lower arm" or "background".
        min_score: detections below this score, 0..1, are left out.
    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such dump, is damaged, names anything but a dump's classes
            ("refused"), or comes from a CSE model.
    """

    name = "densepose-dump"
    has_iuv = True
    folders = ()

    def __init__(
        self,
        path: str | os.PathLike[str],
        hands: str = "lower arm",
        min_score: float = MIN_SCORE,
    ):
        self.path, self.hands, self.min_score = Path(path), hands, min_score
        self.label_set = label_set_name(hands)
        self.definition = label_set_definition(hands)
        self._entries = load_untrusted(path, _CLASSES)
        if not isinstance(self._entries, list):
            raise ValueError(
                f"{path}: holds a {type(self._entries).__name__}, expected the list that "
                "detectron2's `apply_net.py dump` writes"
            )

    def __iter__(self) -> Iterator[DetectedPeople]:
        for number, entry in enumerate(self._entries):
            try:
                name, people = str(entry["file_name"]), tuple(self._people(entry))
            except (LookupError, TypeError, AttributeError, RuntimeError) as error:
                raise ValueError(
                    f"{self.path}: entry {number} lacks what a dump has ({error!r}), expected "
                    "file_name, scores, pred_boxes_XYXY and pred_densepose"
                ) from error
            if people:
                yield DetectedPeople(name, people, self.hands)

    def _people(self, entry: dict[str, Any]) -> Iterator[Detection]:
        scores = entry["scores"].tolist() if "scores" in entry else []
        if not scores:  # nobody was found, then the other keys may be missing too
            return
        boxes = entry["pred_boxes_XYXY"].tolist()
        charts = self._charts(entry["pred_densepose"])
        if not len(scores) == len(boxes) == len(charts):
            raise LookupError(f"{len(scores)} scores, {len(boxes)} boxes, {len(charts)} charts")
        for score, (x, y, _, _), chart in zip(scores, boxes, charts, strict=True):
            if score >= self.min_score:
                yield Detection(x, y, score, chart)

    def _charts(self, found: Any) -> list[Chart]:
        if isinstance(found, QuantizedResult):
            return [PngChart(tuple(shape), png) for shape, png in found.results]
        if isinstance(found, Embedding) or any(isinstance(one, Embedding) for one in found):
            raise ValueError(
                f"{self.path}: comes from a CSE model, which writes embeddings and no parts; run "
                "a chart model such as densepose_rcnn_R_50_FPN_s1x"
            )
        # numpy arrays of the same memory: a tensor would cross to a worker by a file of its own.
        return [FloatChart(one.labels.numpy(), one.uv.numpy()) for one in found]
