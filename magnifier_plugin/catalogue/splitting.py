"""Splitting a list of images into training, query and gallery by identity."""

import dataclasses
import random
from collections import defaultdict
from collections.abc import Sequence

from magnifier_plugin.catalogue.image_list import (
    GALLERY,
    QUERY,
    TRAIN,
    ImageList,
    ListedImage,
    checked_list,
    id_order,
)
from magnifier_plugin.wording import many


def split_identities(images: ImageList, share: float, seed: int) -> ImageList:
    """Draws training identities; for each other identity, draws queries and leaves the gallery.

    The queries of a test identity are one random image of each camera that has two or more images,
    or a single image if no camera has; so a query's identity always remains in the gallery. An
    identity seen by only one camera has no query. Without cameras one image of each identity is a
    query; if an identity has only one image, it goes to the gallery.

    Args:
        images: those of all identities; their splits are ignored.
        share: fraction of the identities for training, 0..1; strictly between 0 and 1, training and
            testing each get at least one identity.
        seed: determines the draw, identically on every machine.
    """
    by_pid: defaultdict[str, list[ListedImage]] = defaultdict(list)
    unique = {image.path: image for image in images.images}
    for image in unique.values():
        by_pid[image.pid].append(image)
    draw = random.Random(seed)
    pids = sorted(by_pid, key=id_order)
    draw.shuffle(pids)
    count = round(share * len(pids))
    if 0 < share < 1 and len(pids) > 1:
        count = min(max(count, 1), len(pids) - 1)
    trained = set(pids[:count])
    queries = {pid: _queries(by_pid[pid], draw) for pid in pids[count:]}
    chosen = {image.path for found in queries.values() for image in found}
    split = [
        image._replace(
            split=TRAIN if image.pid in trained else QUERY if image.path in chosen else GALLERY
        )
        for image in unique.values()
    ]
    checked = checked_list(images.source, split, images.problems, images.conditions)
    notes = list(images.notes)
    if without := sum(not found for found in queries.values()):
        noun = many(without, "test identity")
        notes.append(f"{noun} without a query: no second image, or none from another camera")
    return dataclasses.replace(checked, notes=notes)


def _queries(images: Sequence[ListedImage], draw: random.Random) -> list[ListedImage]:
    """The queries among the images of one identity."""
    by_camera: defaultdict[str, list[ListedImage]] = defaultdict(list)
    for image in sorted(images):
        by_camera[image.camid].append(image)
    unknown = "" in by_camera
    if len(images) < 2 or (len(by_camera) == 1 and not unknown):
        return []
    several = [found for found in by_camera.values() if len(found) > 1]
    return [draw.choice(found) for found in several or [list(images)]]
