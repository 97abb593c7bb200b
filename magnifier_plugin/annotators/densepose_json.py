"""DensePose's results in the COCO format: one flat JSON list of detections for a whole data set.

A detection has `image_id`, `score`, `bbox` [x, y, w, h], `uv_shape` [3, h, w] and `uv_data`, the
base64 of a PNG with I in red, U in green and V in blue: the opposite order of `_IUV.png`. Only the
COCO annotations say which file an `image_id` refers to (`images[].id`, `images[].file_name`). Both
files are read completely and stay in memory while converting.
"""

import math
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from magnifier_plugin.annotators.coco import (
    annotated_size,
    read_images,
    read_results,
    refuse_unknown_images,
)
from magnifier_plugin.annotators.densepose import label_set_definition, label_set_name
from magnifier_plugin.annotators.detections import MIN_SCORE, DetectedPeople, Detection, PngChart
from magnifier_plugin.wording import one_line


class ResultsFile:
    """A JSON file of DensePose results and the COCO annotations that name its images.

    Args:
        path: the results.
        annotations: the COCO annotations, for `images[].id` and `images[].file_name`; if they give
            `height` and `width` too, these must be the image's.
        hands: the region that hands count as, "lower arm" or "background".
        min_score: detections with a lower score, 0..1, are left out.
    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: a file is not JSON or is malformed, or the two files are swapped.
    """

    name = "densepose-json"
    has_iuv = True
    folders: tuple[Path, ...] = ()

    def __init__(
        self,
        path: str | os.PathLike[str],
        annotations: str | os.PathLike[str],
        hands: str = "lower arm",
        min_score: float = MIN_SCORE,
    ):
        self.path, self.hands = Path(path), hands
        self.files = (self.path, Path(annotations))
        self.label_set = label_set_name(hands)
        self.definition = label_set_definition(hands)
        self._images = read_images(Path(annotations))
        self._people = defaultdict(list)
        for number, result in enumerate(read_results(self.path, "DensePose")):
            image, person = self._detection(number, result)
            if person.score >= min_score:
                self._people[image].append(person)
        refuse_unknown_images(Path(annotations), self.path, self._images, self._people)

    def __iter__(self) -> Iterator[DetectedPeople]:
        for image, people in self._people.items():
            name, size = self._images[image]["file_name"], annotated_size(self._images[image])
            yield DetectedPeople(name, tuple(people), self.hands, size)

    def _detection(self, number: int, result: Any) -> tuple[int | str, Detection]:
        try:
            image = result["image_id"]
            if not isinstance(image, int | str):
                raise TypeError(f"image_id is a {type(image).__name__}")
            x, y, _, _ = map(float, result["bbox"])
            score = float(result["score"])
            if not math.isfinite(score):  # would be left out without a word, or always chosen
                raise ValueError(f"score {score}")
            chart = PngChart(tuple(map(int, result["uv_shape"])), str(result["uv_data"]))
            return image, Detection(x, y, score, chart)
        except (LookupError, TypeError, ValueError, ArithmeticError) as error:
            raise ValueError(
                f"{self.path}: detection {number} is not a DensePose result "
                f"({type(error).__name__}: {one_line(error)}), expected image_id, score, "
                "bbox [x, y, w, h], uv_shape and uv_data"
            ) from error
