"""The plan of a data set: its identities, its cameras and the parameters of every image.

Nothing is rendered here. Even for a million images the plan is cheap; it is saved as JSON with the
images.
"""

from dataclasses import asdict, dataclass, replace

import numpy as np

from magnifier_plugin.regions import BODY_REGIONS, REGIONS
from magnifier_plugin.synthetic.camera import Camera, random_cameras
from magnifier_plugin.synthetic.obstacle import KINDS, random_obstacle
from magnifier_plugin.synthetic.options import SyntheticOptions
from magnifier_plugin.synthetic.pose import random_pose
from magnifier_plugin.synthetic.renderer import Scene
from magnifier_plugin.synthetic.wardrobe import (
    Wardrobe,
    band_twin,
    near_twin,
    random_wardrobe,
    with_band,
)

TRAIN, QUERY, GALLERY = "bounding_box_train", "query", "bounding_box_test"
# Separate random streams of one seed, so that, for example, more cameras do not change the clothes.
_CAMERAS, _WARDROBE, _HIDDEN, _SCENE, _PIXELS, _BAND = range(6)


@dataclass(frozen=True)
class Identity:
    """A person of the data set."""

    pid: int
    """Numbered from 1."""
    training: bool
    """Whether the identity is for training; otherwise it is for testing."""
    wardrobe: Wardrobe
    twin: int | None = None
    """The pid of the near-twin; None if there is none."""
    detail: str | None = None
    """The field of the wardrobes in which the twins differ; None without a twin."""


@dataclass(frozen=True)
class Shot:
    """One image to render."""

    name: str
    """The file's name."""
    folder: str
    """One of Market-1501's three folders."""
    pid: int
    camera: int
    """Numbered from 1."""
    scene: Scene


@dataclass(frozen=True)
class Plan:
    """A whole data set."""

    options: SyntheticOptions
    cameras: tuple[Camera, ...]
    """In the order of their index."""
    identities: tuple[Identity, ...]
    """In the order of their pid."""
    shots: tuple[Shot, ...]
    """The images."""

    def to_dict(self) -> dict:
        """The plan as plain types for JSON."""
        return asdict(self)


def _rng(options: SyntheticOptions, *stream: int) -> np.random.Generator:
    return np.random.default_rng((options.seed, *stream))


def _nearest(value: float) -> int:
    """The nearest integer; halves are rounded up, unlike with Python's round(), where 0.5 is 0."""
    return int(np.floor(value + 0.5))


def _pairs(options: SyntheticOptions, people: int) -> int:
    """The number of twin pairs among `people` people."""
    return min(_nearest(options.twins * people / 2), people // 2)


def _halves(options: SyntheticOptions) -> tuple[tuple[int, int], tuple[int, int]]:
    """(people, twin pairs) for training and for testing; no pair is divided between the two.

    Training gets half of the people, rounded down, or one person fewer if the pairs would not fit
    otherwise. If `train_identities` is given, training and testing each get the fraction `twins`
    of twins.
    """
    if (training := options.train_identities) is not None:
        test = options.identities - training
        return (training, _pairs(options, training)), (test, _pairs(options, test))
    people, pairs = options.identities, _pairs(options, options.identities)
    training = people // 2
    if pairs > training // 2 + (people - training) // 2:
        training -= 1
    first = min(pairs // 2, training // 2)
    first = max(first, pairs - (people - training) // 2)
    return (training, first), (people - training, pairs - first)


def _identities(options: SyntheticOptions) -> tuple[Identity, ...]:
    """All identities with their clothes; the members of a twin pair have consecutive pids."""
    identities: list[Identity] = []
    bands = options.twin_details == "regions"
    twin = band_twin if bands else near_twin
    for training, (people, pairs) in zip((True, False), _halves(options), strict=True):
        for place in range(people):
            pid = len(identities) + 1
            rng = _rng(options, _WARDROBE, pid)
            if place < 2 * pairs and place % 2:
                first = identities[-1]
                wardrobe, detail = twin(first.wardrobe, rng)
                identities[-1] = replace(first, twin=pid, detail=detail)
                identities.append(Identity(pid, training, wardrobe, first.pid, detail))
                continue
            wardrobe = random_wardrobe(rng)
            if bands:  # regions alternate, over pairs and then over people without a twin
                turn = place // 2 if place < 2 * pairs else place
                region = REGIONS[BODY_REGIONS[turn % len(BODY_REGIONS)]]
                wardrobe = with_band(wardrobe, region, _rng(options, _BAND, pid))
            identities.append(Identity(pid, training, wardrobe))
    return tuple(identities)


def _scene(
    options: SyntheticOptions, person: Identity, camera: Camera, index: int, kind: str | None
) -> Scene:
    """An image's parameters, drawn with a generator seeded by (seed, pid, camera, index)."""
    key = (person.pid, camera.index, index)
    rng = _rng(options, _SCENE, *key)
    # People walk along the street in both directions; some cross it.
    spread = 14 if rng.random() < 0.8 else 70
    heading = (camera.heading + 180 * rng.integers(2) + rng.normal(0, spread)) % 360
    stride = 0.6 if person.wardrobe.bottom == "skirt" else 1.05
    pose = random_pose(rng, stride)
    # A detector's box never fits exactly.
    zoom, shift = rng.uniform(0.9, 1.06), rng.normal(0, (0.016, 0.014))
    obstacle = None if kind is None else random_obstacle(kind, rng)
    if kind == "frame" and rng.random() < 0.6:  # the legs are outside; below, one side is
        zoom = rng.uniform(1.3, 1.75)
        shift = np.array([shift[0], 0.43 * (zoom - 1) + 0.03])
    elif kind == "frame":
        side = rng.choice((-1, 1)) * rng.uniform(0.36, 0.5) * options.width / options.height
        shift = np.array([side, shift[1]])
    return Scene(
        pose=pose,
        heading=round(float(heading), 1),
        zoom=round(float(zoom), 3),
        shift=(round(float(shift[0]), 4), round(float(shift[1]), 4)),
        obstacle=obstacle,
        seed=(options.seed, _PIXELS, *key),
    )


def _folder(options: SyntheticOptions, person: Identity, camera: int, index: int) -> str:
    """The folder of an image, one of Market-1501's three.

    A test identity's first image in each camera is a query, and the rest is gallery. With one image
    per camera the gallery would be empty: then one camera, which changes from identity to identity,
    provides the query, and the other cameras provide the gallery.
    """
    if person.training:
        return TRAIN
    if options.images == 1:
        return QUERY if camera == person.pid % options.cameras + 1 else GALLERY
    return QUERY if index == 0 else GALLERY


def make_plan(options: SyntheticOptions) -> Plan:
    """Plans a data set.

    Args:
        options: what to render.
    Returns:
        The plan; the same options always give the same plan.
    """
    cameras = random_cameras(_rng(options, _CAMERAS), options.cameras)
    people = _identities(options)
    total = len(people) * len(cameras) * options.images
    order = _rng(options, _HIDDEN).permutation(total)[: _nearest(options.occlusion * total)]
    kinds = {int(image): KINDS[i % len(KINDS)] for i, image in enumerate(order)}
    shots: list[Shot] = []
    for person in people:
        for camera in cameras:
            for index in range(options.images):
                kind = kinds.get(len(shots))
                frame = 25 * (index + 1)
                name = f"{person.pid:04d}_c{camera.index}s1_{frame:06d}_{index + 1:02d}.jpg"
                folder = _folder(options, person, camera.index, index)
                scene = _scene(options, person, camera, index, kind)
                shots.append(Shot(name, folder, person.pid, camera.index, scene))
    return Plan(options, cameras, people, tuple(shots))
