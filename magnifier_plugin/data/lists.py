"""torchreid's lists of images, in the same order on every machine."""

from collections.abc import Sequence
from typing import Any

from magnifier_plugin.catalogue.names import ImageRecord
from magnifier_plugin.catalogue.numbering import SAME_CAMERA, drop_cameras


def tested_lists(plain: Any, same_camera: str) -> tuple[list[ImageRecord], list[ImageRecord]]:
    """The query and gallery lists of a data set.

    Args:
        plain: torchreid's data set.
        same_camera: "drop" or "keep", as in `options.DataOptions`.
    Raises:
        ValueError: same_camera is unknown.
    """
    if same_camera not in SAME_CAMERA:
        raise ValueError(f"same_camera: expected {' or '.join(SAME_CAMERA)}, got {same_camera!r}")
    lists = plain.query, plain.gallery
    return drop_cameras(*lists) if same_camera == "keep" else lists


def in_stable_order(train: Sequence[ImageRecord]) -> list[ImageRecord]:
    """The list sorted by path, with identities numbered in that order.

    torchreid lists folders in the file system's order and numbers identities in the order of a
    Python set, so two machines may train on different lists. On the full Market-1501 the numbers
    are those of torchreid.
    """
    ordered = sorted(train)
    numbers = {pid: n for n, pid in enumerate(dict.fromkeys(pid for _, pid, *_ in ordered))}
    return [(path, numbers[pid], camid, dsetid) for path, pid, camid, dsetid in ordered]
