"""The dumps of detectron2's DensePose (`apply_net.py dump`), in all three of its formats.

A dump is a list with a dict for each image: `file_name`, `scores`, `pred_boxes_XYXY` and
`pred_densepose`, one chart for each person. Dumps are read without detectron2, and no code in them
is run (see `unpickler`):
- since 2022-10-31, a `torch.save` archive of chart results, which is memory-mapped;
- from 2020-10 until then, a plain pickle of chart results, which stays in memory while converting;
- from 2019-10 to 2020-10, a plain pickle of `DensePoseResult`, whose charts are base64 PNGs.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

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
from magnifier_plugin.wording import one_line

# More people than DensePose detects in one image (100 by default).
MAX_PEOPLE = 1000


class ChartResult:
    """Stands in for detectron2's chart results: `labels` [h, w], `uv` [2, h, w]."""


class QuantizedResult:
    """Stands in for the first `DensePoseResult`: `results` [((3, h, w), base64 PNG), …]."""


class Embedding:
    """Stands in for the output of CSE models, which is a surface embedding without parts."""


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
        min_score: detections with a lower score, 0..1, are left out.
    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not such a dump, is damaged, or names anything but a dump's classes
            ("refused"). While iterating: an entry is malformed, or comes from a CSE model.
    """

    name = "densepose-dump"
    has_iuv = True
    folders: tuple[Path, ...] = ()

    def __init__(
        self,
        path: str | os.PathLike[str],
        hands: str = "lower arm",
        min_score: float = MIN_SCORE,
    ):
        self.path, self.hands, self.min_score = Path(path), hands, min_score
        self.files = (self.path,)
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
                name, people = _name(entry), tuple(_people(entry))
            except _EmbeddingsFoundError:
                raise ValueError(
                    f"{self.path}: comes from a CSE model, which writes embeddings, not parts; "
                    "run a chart model such as densepose_rcnn_R_50_FPN_s1x"
                ) from None
            # A malformed entry can raise anything, depending on the types that it contains.
            except Exception as error:
                raise ValueError(
                    f"{self.path}: entry {number} is not a DensePose result "
                    f"({type(error).__name__}: {one_line(error)}), expected file_name, scores, "
                    "pred_boxes_XYXY and pred_densepose"
                ) from error
            people = tuple(person for person in people if person.score >= self.min_score)
            if people:
                yield DetectedPeople(name, people, self.hands)


class _EmbeddingsFoundError(Exception):
    """An entry holds the embeddings of a CSE model."""


def _name(entry: dict[str, Any]) -> str:
    name = entry["file_name"]
    if not isinstance(name, str):
        raise TypeError(f"file_name is a {type(name).__name__}")
    return name


def _people(entry: dict[str, Any]) -> Iterator[Detection]:
    # If no person was found, the other keys may be missing as well.
    number = len(entry["scores"]) if "scores" in entry else 0
    if not number:
        return
    if number > MAX_PEOPLE:
        raise ValueError(f"{number:,} scores, expected at most {MAX_PEOPLE:,}")
    scores, boxes = entry["scores"], entry["pred_boxes_XYXY"]
    if scores.shape != (number,) or boxes.shape != (number, 4):
        raise ValueError(f"scores {list(scores.shape)} and boxes {list(boxes.shape)}")
    charts = _charts(entry["pred_densepose"])
    for score, (x, y, _, _), chart in zip(scores.tolist(), boxes.tolist(), charts, strict=True):
        yield Detection(x, y, score, chart)


def _charts(found: Any) -> list[Chart]:
    if isinstance(found, QuantizedResult):
        return [PngChart(tuple(map(int, shape)), png) for shape, png in vars(found)["results"]]
    if isinstance(found, Embedding) or any(isinstance(one, Embedding) for one in found):
        raise _EmbeddingsFoundError
    return [FloatChart(_array(one.labels), _array(one.uv)) for one in found]


def _array(tensor: Any) -> np.ndarray:
    """A tensor's memory as an array, which can be pickled for a worker without a shared file.

    Raises:
        ValueError: the tensor claims more bytes than its storage has, because a stride is 0 or too
            small; the copy that pickling makes could need any amount of memory.
    """
    size = tensor.numel() * tensor.element_size()
    if size > tensor.untyped_storage().nbytes():
        raise ValueError(
            f"refused, a tensor {list(tensor.shape)} claims {size:,} bytes, but its storage has "
            f"{tensor.untyped_storage().nbytes():,}"
        )
    array: np.ndarray = tensor.numpy()
    return array
