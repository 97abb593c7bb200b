"""The conditions of every rendered image, written as `<root>/synthetic/conditions.csv`.

`evaluation.conditions` reads it; paths are relative to the data set's folder, `market1501`.
"""

import csv
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from magnifier_plugin.synthetic.camera import Camera, View, look
from magnifier_plugin.synthetic.person import draw_body
from magnifier_plugin.synthetic.plan import QUERY, Identity, Shot
from magnifier_plugin.synthetic.renderer import Scene
from magnifier_plugin.synthetic.wardrobe import Wardrobe

CONDITIONS = Path("conditions.csv")
COLUMNS = (
    "path",
    "occluded",  # yes, no
    "occluded_by",  # pole, box, pedestrian, frame, nothing
    "visible",  # fraction of the body's pixels that are visible, 0..1
    "cut",  # yes, no: whether a part of the body is outside the image
    "twin",  # pid of the near-twin, empty if there is none
    "twin_detail",  # the garment detail in which the twin differs, empty if there is none
    "heading",  # degrees, 0 faces the camera, 90 walks to the image's right, 180 shows the back
    "turned",  # degrees from the most similar heading of a correct match, in the bins of TURNS
)
TURNS = (0, 30, 60, 90, 180)


class Visibility(NamedTuple):
    """How much of a person an image shows."""

    visible: float
    """Fraction of the body's pixels that are inside the image and not hidden, 0..1."""
    cut: bool
    """Whether a part of the body is outside the image."""


def measure_visibility(
    scene: Scene, wardrobe: Wardrobe, camera: Camera, iuv: np.ndarray
) -> Visibility:
    """Measures how much of the person a rendered image shows.

    Pixels that the person's own bag or hair hides do not count as body. If an obstacle or the
    image's edge may hide some of the body, it is drawn again, without colours.

    Args:
        scene, wardrobe, camera: as in `renderer.render`.
        iuv: uint8 [H, W, 3], the image's labels.
    """
    labelled = iuv[..., 0] > 0
    edge = np.concatenate([labelled[0], labelled[-1], labelled[:, 0], labelled[:, -1]])
    if scene.obstacle is None and not edge.any():
        return Visibility(1.0, False)
    height, width = labelled.shape
    view = look(camera, wardrobe.build.height, (height, width), scene.zoom, scene.shift)
    # No person reaches farther beyond the image's edge than the image's height.
    body = draw_body(wardrobe, scene.pose, scene.heading, camera, _wider(view, height))
    total = int(np.count_nonzero(body))
    inside = int(np.count_nonzero(body[height:-height, height:-height]))
    seen = int(np.count_nonzero(labelled))
    return Visibility(min(1.0, seen / max(total, 1)), inside < total)


def _wider(view: View, margin: int) -> View:
    """The plane extended by `margin` samples on each side."""
    step = 1 / view.scale
    before = -step * np.arange(margin, 0, -1)
    after = step * np.arange(1, margin + 1)
    x = np.concatenate([view.x[0] + before, view.x, view.x[-1] + after])
    y = np.concatenate([view.y[0] - before, view.y, view.y[-1] - after])
    return view._replace(x=x.astype(np.float32), y=y.astype(np.float32))


def turns(shots: Sequence[Shot]) -> list[str]:
    """How far each image's heading is from the most similar one of a correct match.

    Correct matches are the same person's images from other cameras, without queries.

    Args:
        shots: all images of a data set.
    Returns:
        A bin of `TURNS`, such as "30–60" degrees; "" if there is no match.
    """
    matches = defaultdict(list)
    for shot in shots:
        if shot.folder != QUERY:
            matches[shot.pid].append(shot)
    found = []
    for shot in shots:
        others = [other for other in matches[shot.pid] if other.camera != shot.camera]
        apart = [abs(shot.scene.heading - other.scene.heading) % 360 for other in others]
        if apart:
            least = min(min(angle, 360 - angle) for angle in apart)
            place = min(bisect_right(TURNS, least), len(TURNS) - 1)
            found.append(f"{TURNS[place - 1]}–{TURNS[place]}")
        else:
            found.append("")
    return found


def write_conditions(
    path: Path,
    images: Sequence[tuple[str, Shot, Identity, Visibility]],
) -> None:
    """Writes the conditions of images.

    Args:
        path: the CSV file.
        images: all images of the data set: the path in it, the parameters, the person shown, and
            how much of the person is shown.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        turned = turns([shot for _, shot, _, _ in images])
        for (image, shot, person, visibility), turn in zip(images, turned, strict=True):
            obstacle = shot.scene.obstacle
            writer.writerow(
                (
                    image,
                    _yes_no(obstacle is not None),
                    obstacle.kind if obstacle else "nothing",
                    f"{visibility.visible:.3f}",
                    _yes_no(visibility.cut),
                    person.twin or "",
                    _describe_detail(person),
                    shot.scene.heading,
                    turn,
                )
            )


def _describe_detail(person: Identity) -> str:
    """The detail in which a person's twin differs; for a band, the region where it is worn."""
    if person.detail == "band_colour":
        return f"{person.wardrobe.band} band"
    return person.detail or ""


def _yes_no(value: bool) -> str:
    return "yes" if value else "no"
