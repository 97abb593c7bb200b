"""The pictures of a test, drawn after the results and the model are saved."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from torch import Tensor

from magnifier_plugin.catalogue.names import ImageRecord
from magnifier_plugin.visualize.rankings import save_ranking_sheet, save_rankings

logger = logging.getLogger(__name__)

Lists = tuple[Sequence[ImageRecord], Sequence[ImageRecord]]


class Pictures:
    """Pictures of rankings, planned during a test and drawn later."""

    def __init__(self) -> None:
        self.drawn: list[Path] = []
        """Files of the drawn sheets."""
        self._planned: list[Callable[[], Path | None]] = []

    def plan_rankings(self, distmat: Tensor, lists: Lists, folder: Path, topk: int) -> None:
        """Plan one picture per query, like torchreid's `visrank`.

        Args:
            distmat: float [Q, G].
            lists: torchreid's lists of the Q queries and G gallery images.
            folder: the folder of the pictures.
            topk: gallery images per picture.
        """
        self._planned.append(partial(save_rankings, distmat.cpu().numpy(), *lists, folder, topk))

    def plan_sheet(self, distmat: Tensor, lists: Lists, path: Path, count: int, topk: int) -> None:
        """Plan one picture with the rankings of several queries.

        Args:
            distmat, lists, topk: as in `plan_rankings`.
            path: the file of the picture.
            count: number of queries in it.
        """
        arguments = (distmat.cpu().numpy(), *lists, path, count, topk)
        self._planned.append(partial(save_ranking_sheet, *arguments))

    def draw(self) -> None:
        """Draw the planned pictures; if one cannot be written, log it and go on."""
        planned, self._planned = self._planned, []
        for picture in planned:
            try:
                path = picture()
            except OSError as error:
                logger.error("Not drawn: %s", error)
                continue
            if path is not None:
                self.drawn.append(path)
