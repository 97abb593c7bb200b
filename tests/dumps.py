"""Dumps in the three formats of detectron2's DensePose, made with stand-in classes."""

import base64
import io
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from PIL import Image

CHART = "densepose.structures.chart_result.DensePoseChartResultWithConfidences"
FIRST = "densepose.structures.DensePoseResult"
# The year from which DensePose wrote each format.
ERAS = (2022, 2020, 2019)
EMBEDDING = "densepose.structures.cse.DensePoseEmbeddingPredictorOutput"


@contextmanager
def stand_in(full_name: str) -> Iterator[type]:
    """Within the context, a class that pickle stores under this full name."""
    module, _, name = full_name.rpartition(".")
    before = dict(sys.modules)
    for depth in range(1, module.count(".") + 2):
        package = ".".join(module.split(".")[:depth])
        sys.modules[package] = ModuleType(package)
    cls = type(name, (), {"__module__": module})
    setattr(sys.modules[module], name, cls)
    try:
        yield cls
    finally:
        for added in set(sys.modules) - set(before):
            del sys.modules[added]


def make_iuv(height: int, width: int, part: int) -> np.ndarray:
    """A person whose box is filled with one part, except for a border without any."""
    iuv = np.zeros((height, width, 3), dtype=np.uint8)
    iuv[1:-1, 1:-1] = (part, 51, 255)  # U 0.2, V 1.0
    return iuv


def at(size: tuple[int, int], x: int, y: int, iuv: np.ndarray) -> np.ndarray:
    """An IUV at its position in an image, by plain indexing."""
    canvas = np.zeros((*size, 3), dtype=np.uint8)
    canvas[y : y + iuv.shape[0], x : x + iuv.shape[1]] = iuv
    return canvas


def entry(name: str, boxes: list, scores: list[float], densepose: object) -> dict:
    return {
        "file_name": name,
        "scores": torch.tensor(scores),
        "pred_boxes_XYXY": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "pred_densepose": densepose,
    }


def _corners(x: float, y: float, iuv: np.ndarray) -> list[float]:
    return [x, y, x + iuv.shape[1], y + iuv.shape[0]]


def dump(path: Path, people: dict[str, list], era: int) -> Path:
    """Writes a dump.

    Args:
        people: image name → list of (x, y, score, iuv).
        era: 2022, 2020 or 2019.
    """
    with stand_in(FIRST if era == 2019 else CHART) as cls:
        entries = []
        for name, found in people.items():
            boxes = [_corners(x, y, iuv) for x, y, _, iuv in found]
            charts = [_chart(cls, iuv) for _, _, _, iuv in found]
            if era == 2019:
                charts, cls_result = cls(), [encode(iuv) for _, _, _, iuv in found]
                charts.results, charts.boxes_xywh = cls_result, boxes
            entries.append(entry(name, boxes, [score for _, _, score, _ in found], charts))
        if era == 2022:
            torch.save(entries, path)
        else:
            path.write_bytes(pickle.dumps(entries))
    return path


def _chart(cls: type, iuv: np.ndarray) -> object:
    chart = cls()
    chart.labels = torch.from_numpy(iuv[..., 0].astype(np.int64))
    # Not clamped: DensePose's regression goes slightly beyond 0..1.
    uv = torch.from_numpy(iuv[..., 1:].astype(np.float32)).permute(2, 0, 1) / 255
    chart.uv = torch.where(uv >= 1, 1.3, uv + 1e-4)
    chart.uv[:, chart.labels == 0] = 0.7  # nor does it end at the body's outline
    chart.sigma_1 = None
    return chart


def encode(iuv: np.ndarray) -> tuple[tuple[int, ...], str]:
    """A chart in the format of COCO results and the first dumps: its shape, its PNG in base64."""
    content = io.BytesIO()
    iuv = np.where(iuv[..., :1] == 0, np.uint8([0, 180, 180]), iuv)
    Image.fromarray(iuv).save(content, format="PNG")
    return (3, *iuv.shape[:2]), base64.encodebytes(content.getvalue()).decode()
