"""Label maps from keypoints, compared with the exact label maps of rendered people.

Nothing occludes the people. The keypoints are the renderer's exact ones, and the same points moved
at random by the error of annotators: COCO measured at each joint how far its annotators disagree,
in units of the square root of the person's area (the sigmas of its metric OKS; those of feet are
COCO-WholeBody's). IoU is computed over the pixels of all images together; an unknown pixel counts
as wrong. COCO's 17 points do not include feet, whose pixels are then unknown, so the mean excludes
feet.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from benchmarks.measuring import machine
from magnifier_plugin.annotators.coco import read_results
from magnifier_plugin.annotators.densepose import SUFFIX, read_iuv, to_regions
from magnifier_plugin.annotators.joints import COCO
from magnifier_plugin.annotators.keypoint_files import Person, from_coco
from magnifier_plugin.annotators.keypoints import annotate
from magnifier_plugin.images import read_image, write_png
from magnifier_plugin.regions import BODY_REGIONS, NUM_REGIONS, REGIONS
from magnifier_plugin.synthetic.folder import DENSEPOSE, MARKET, ensure_rendered
from magnifier_plugin.synthetic.keypoints import KEYPOINTS
from magnifier_plugin.synthetic.options import SyntheticOptions
from magnifier_plugin.visualize.regions import overlay

SHOWN = 6  # people in the picture
FOOT = REGIONS.index("foot")
# Sigmas of the joints, in the order of JOINTS.
_FACE = (0.026, 0.025, 0.025, 0.035, 0.035)
_LIMBS = (0.079, 0.072, 0.062, 0.107, 0.087, 0.089)
_FEET = (0.068, 0.066, 0.066)
SIGMAS = np.array([*_FACE, *np.repeat(_LIMBS, 2), *_FEET, *_FEET])
WITHOUT_FEET = [region for region in BODY_REGIONS if region != FOOT]


class Case(NamedTuple):
    """A row of the table."""

    title: str
    feet: bool
    """Whether there are keypoints of the feet."""
    error: float = 0.0
    """Mean distance that points are moved, as a multiple of the error of COCO's annotators."""


CASES = (
    Case("COCO, 17 points", feet=False),
    Case("moved by half the error of COCO's annotators", feet=False, error=0.5),
    Case("moved by the full error", feet=False, error=1.0),
    Case("OpenPose, 25 points", feet=True),
    Case("moved by half the error", feet=True, error=0.5),
)


def run(args: argparse.Namespace) -> None:
    """Print the table; draw the picture if it is asked for."""
    with tempfile.TemporaryDirectory() as root:
        options = SyntheticOptions(
            identities=args.identities,
            images=1,
            twins=0.0,
            occlusion=0.0,
            height=args.height,
            width=args.width,
            seed=args.seed,
        )
        folder = ensure_rendered(root, options)
        people = list(read_people(folder))
        if args.picture:
            draw_picture(Path(args.picture), folder, people)
    names = [REGIONS[region] for region in BODY_REGIONS]
    print(f"{len(people)} images, {args.height} × {args.width}\n")
    print(f"| keypoints | {' | '.join(names)} | mean without feet | images/s on one core |")
    print("|---|" + "---:|" * (len(names) + 2))
    for case in CASES:
        ious, rate = measure(people, case)
        cells = [f"{ious[r]:.2f}" if r != FOOT or case.feet else "none" for r in BODY_REGIONS]
        mean = f"{ious[WITHOUT_FEET].mean():.2f}"
        print(f"| {case.title} | {' | '.join(cells)} | {mean} | {rate:,.0f} |")
    print(f"\n{machine('cpu')}")


def read_people(folder: Path) -> Iterator[tuple[Person, np.ndarray]]:
    """Keypoints and exact label map of each image."""
    for result in read_results(folder / KEYPOINTS, "keypoint"):
        iuv = read_iuv(folder / DENSEPOSE / f"{Path(result['image_id']).stem}{SUFFIX}")
        yield from_coco(result), to_regions(iuv)


def draw_picture(path: Path, folder: Path, people: list[tuple[Person, np.ndarray]]) -> None:
    """Draw some people with their exact label maps, and below with those from COCO's points."""
    images = read_results(folder / KEYPOINTS, "keypoint")
    columns = []
    for place in np.linspace(0, len(people) - 1, min(SHOWN, len(people))).astype(int):
        person, exact = people[place]
        photo = np.asarray(read_image(folder / MARKET.parent / images[place]["image_id"]))
        drawn = annotate([move(person, CASES[0], 0, np.random.default_rng(0))], exact.shape)
        if drawn is not None:
            columns.append(np.concatenate([overlay(photo, exact), overlay(photo, drawn.labels)]))
    picture = Image.fromarray(np.concatenate(columns, axis=1))
    # With a palette the file has a third of the size; MAXCOVERAGE keeps rare colours, as of feet.
    write_png(path, picture.quantize(256, Image.Quantize.MAXCOVERAGE))


def measure(people: list[tuple[Person, np.ndarray]], case: Case) -> tuple[np.ndarray, float]:
    """IoU of each region, float [8], and images per second of CPU time."""
    rng = np.random.default_rng(0)
    confusion, seconds = np.zeros((NUM_REGIONS, NUM_REGIONS + 1)), 0.0
    for person, exact in people:
        moved = move(person, case, int(np.count_nonzero(exact)), rng)
        start = time.process_time()
        annotation = annotate([moved], exact.shape)
        seconds += time.process_time() - start
        found = np.full_like(exact, NUM_REGIONS) if annotation is None else annotation.labels
        pairs = exact * np.intp(NUM_REGIONS + 1) + np.minimum(found, NUM_REGIONS)
        confusion += np.bincount(pairs.ravel(), minlength=confusion.size).reshape(confusion.shape)
    both = np.diag(confusion)
    either = confusion.sum(axis=1) + confusion[:, :NUM_REGIONS].sum(axis=0) - both
    return both / either, len(people) / seconds


def move(person: Person, case: Case, area: int, rng: np.random.Generator) -> Person:
    """A person's keypoints with the error and the joints of a case.

    Args:
        person: all of the renderer's keypoints.
        case: the joints that are kept, and how far they are moved.
        area: pixels that the person covers.
        rng: generator of the random distances.
    """
    points = person.points.copy()
    if not case.feet:
        points[len(COCO) :] = 0
    # A sigma is the root mean square of the distance, in x and y together.
    scale = case.error * np.sqrt(area / 2) * SIGMAS[:, None]
    points[:, :2] += rng.normal(size=(len(points), 2)) * scale
    return Person(points, person.score)
