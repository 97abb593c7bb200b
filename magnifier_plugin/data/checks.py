"""Checks of a data set before it is trained or tested on."""

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from magnifier_plugin.catalogue.inspection import check_lists
from magnifier_plugin.catalogue.names import ImageRecord
from magnifier_plugin.catalogue.opening import original_ids
from magnifier_plugin.masks.checking import check_manifest, manifest_folder

logger = logging.getLogger(__name__)


def default_label_set() -> str:
    """The label set to expect if none is given: `$MAGNIFIER_LABEL_SET`, else densepose."""
    return os.environ.get("MAGNIFIER_LABEL_SET") or "densepose"


def check_label_set(files: Iterable[Path | None], label_set: str) -> None:
    """Check that label maps belong to the expected label set.

    Args:
        files: the label maps of one data set; None for images that have none.
        label_set: the expected label set.
    Raises:
        ValueError: they belong to another label set, or to another version of it.
    """
    labels = [file for file in files if file]
    if not labels:
        return
    try:
        check_manifest(manifest_folder(labels) or labels[0].parent, label_set)
    except ValueError as error:
        raise ValueError(
            f"{error} (with torchreid's own data manager $MAGNIFIER_LABEL_SET sets the label set)"
        ) from error


def report_problems(
    name: str,
    dataset: Any,
    train: Sequence[ImageRecord],
    query: Sequence[ImageRecord],
    gallery: Sequence[ImageRecord],
) -> None:
    """Log the problems found in a data set's lists.

    Args:
        name: name of the data set, for the messages.
        dataset: torchreid's data set, from which messages take the original identities.
        train: its training images, with identities numbered from 0.
        query, gallery: its test images.
    Raises:
        ValueError: no query has a match in the gallery.
    """
    lists = check_lists(
        *(train, query, gallery),
        compare_names=not (dataset.combineall or getattr(dataset, "identities_compared", False)),
        original_ids=original_ids(dataset),
    )
    if len(lists.absent) + len(lists.same_camera) == len(query):
        raise ValueError(f"{name}: {'; '.join(problem.text for problem in lists.problems)}")
    for problem in lists.problems:
        logger.warning("%s: %s", name, problem.text)
