"""The rendered pedestrians as a Market-1501 folder on disk, written once and reused.

    <root>/synthetic/market1501/Market-1501-v15.09.15/{bounding_box_train,query,bounding_box_test}
    <root>/synthetic/densepose/<name>_IUV.png     as DensePose writes it: R = V, G = U, B = I
    <root>/synthetic/parameters.json              options, cameras, identities, images
    <root>/synthetic/conditions.csv               per-image conditions, see conditions.py
    <root>/synthetic/keypoints.json               exact keypoints, see keypoints.py

torchreid's own `-s market1501 --root <root>/synthetic` reads the same images.
"""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from magnifier_plugin.files import absolute_path, make_folder
from magnifier_plugin.synthetic.camera import Camera
from magnifier_plugin.synthetic.conditions import (
    CONDITIONS,
    Visibility,
    measure_visibility,
    write_conditions,
)
from magnifier_plugin.synthetic.keypoints import KEYPOINTS, project, write_keypoints
from magnifier_plugin.synthetic.options import SyntheticOptions
from magnifier_plugin.synthetic.plan import (
    GALLERY,
    QUERY,
    TRAIN,
    Plan,
    Shot,
    make_plan,
)
from magnifier_plugin.synthetic.renderer import VERSION, render
from magnifier_plugin.synthetic.wardrobe import Wardrobe
from magnifier_plugin.text_files import read_json
from magnifier_plugin.workers import check_workers, cores, on_all_cores

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows: unique folder names and the final rename still separate processes
    fcntl = None

logger = logging.getLogger(__name__)

NAME = "synthetic"
MARKET = Path("market1501", "Market-1501-v15.09.15")
DENSEPOSE = Path("densepose")
PARAMETERS = Path("parameters.json")
_UNFINISHED = ".synthetic-"


def ensure_rendered(
    root: str | Path, options: SyntheticOptions | None = None, workers: int | None = None
) -> Path:
    """Renders the data set unless it exists.

    Even after an interruption, `<root>/synthetic` is either complete or absent: images are written
    to a hidden folder next to it, which is renamed at the end. If two processes start at the same
    time, one renders and the other waits for it.

    Args:
        root: the folder of data sets, torchreid's `--root`; it may begin with `~`, and is made if
            missing.
        options: what to render; None: use the data set that exists, or else the default options.
        workers: number of processes; None: one for each core. The files do not depend on it.
    Returns:
        `<root>/synthetic`, absolute.
    Raises:
        ValueError: the existing data set was rendered with other options, the folder was not
            written by this function, or workers is below 1.
        RuntimeError: a worker process was killed.
    """
    check_workers(workers)
    root = absolute_path(root)
    target = root / NAME
    if _is_rendered(target, options):
        return target
    make_folder(root)
    with _folder_lock(root) as locked:
        if locked:
            _remove_unfinished(root)
        if _is_rendered(target, options):  # by the process for which this one waited
            return target
        unfinished = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=root))
        try:
            _write(make_plan(options or SyntheticOptions()), unfinished / NAME, workers)
            _rename_finished(unfinished / NAME, target, options)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return target


def _is_rendered(target: Path, options: SyntheticOptions | None) -> bool:
    """Whether the data set exists; raises ValueError if it is damaged or has other options."""
    if not target.exists():
        return False
    file = target / PARAMETERS
    if not file.is_file():
        raise ValueError(
            f"{target}: expected it to contain {PARAMETERS}, found none, so it is not a rendered "
            "data set; choose another --root or move the folder away"
        )
    if options is None:
        return True
    found = read_json(file)
    if not isinstance(found, dict) or not isinstance(found.get("options"), dict):
        raise ValueError(
            f"{file}: expected the options of a rendered data set, found other content; "
            f"remove {target} to render it again"
        )
    defaults = asdict(SyntheticOptions())  # for options added after the folder was rendered
    found = {"renderer": found.get("renderer"), **defaults, **found["options"]}
    expected = {"renderer": VERSION, **asdict(options)}
    different = [
        f"{key} (expected {expected.get(key)}, found {found.get(key)})"
        for key in {**expected, **found}
        if expected.get(key) != found.get(key)
    ]
    if different:
        raise ValueError(
            f"{file}: rendered with other options: {', '.join(different)}; "
            f"choose another --root, or remove {target} to render it again"
        )
    return True


@contextmanager
def _folder_lock(root: Path) -> Iterator[bool]:
    """Locks a folder, waiting for other processes; yields False if it cannot be locked."""
    if fcntl is None:
        yield False
        return
    handle = os.open(root, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            locked = True
        except OSError:  # some network file systems cannot lock folders
            locked = False
        yield locked
    finally:
        os.close(handle)


def _remove_unfinished(root: Path) -> None:
    """Removes the unfinished folders of killed processes; the folder must be locked."""
    for leftover in root.glob(f"{_UNFINISHED}*"):
        logger.info("removing %s, left by an interrupted rendering", leftover)
        shutil.rmtree(leftover)


def _rename_finished(finished: Path, target: Path, options: SyntheticOptions | None) -> None:
    """Renames the finished folder, unless another process was faster; then that one's is kept."""
    try:
        finished.rename(target)
    except OSError:
        if not _is_rendered(target, options):
            raise


class _Task(NamedTuple):
    """One image to render."""

    shot: Shot
    wardrobe: Wardrobe
    camera: Camera
    size: tuple[int, int]
    """Height and width, pixels."""
    target: Path
    """The folder to write to: the unfinished one, which later becomes `<root>/synthetic`."""


def _write(plan: Plan, target: Path, workers: int | None) -> None:
    """Renders a plan into a folder."""
    for folder in (*(MARKET / name for name in (TRAIN, QUERY, GALLERY)), DENSEPOSE):
        (target / folder).mkdir(parents=True)
    size, count = (plan.options.height, plan.options.width), len(plan.shots)
    tasks = [
        _Task(
            shot,
            plan.identities[shot.pid - 1].wardrobe,
            plan.cameras[shot.camera - 1],
            size,
            target,
        )
        for shot in plan.shots
    ]
    workers = min(workers or cores(), count)
    logger.info("rendering %d images with %d processes", count, workers)
    # An image takes some 20 ms; small batches keep all cores busy until the end.
    batch = max(1, min(16, count // (4 * workers)))
    images = on_all_cores(_write_image, tasks, workers, batch)
    done = tqdm(images, total=count, desc="rendering pedestrians", unit="image", disable=None)
    seen, points = zip(*done, strict=True)
    people = (plan.identities[shot.pid - 1] for shot in plan.shots)
    places = [Path(MARKET.name, shot.folder, shot.name).as_posix() for shot in plan.shots]
    write_conditions(target / CONDITIONS, list(zip(places, plan.shots, people, seen, strict=True)))
    write_keypoints(target / KEYPOINTS, zip(places, points, strict=True))
    parameters = _json_by_lines({"renderer": VERSION, **plan.to_dict()})
    (target / PARAMETERS).write_text(parameters, encoding="utf-8")


def _json_by_lines(parameters: dict) -> str:
    """JSON with one line for each camera, identity and image, to be readable in an editor."""
    entries = []
    for key, value in parameters.items():
        text = json.dumps(value)
        if isinstance(value, tuple):
            text = "[\n" + ",\n".join(f"  {json.dumps(item)}" for item in value) + "\n ]"
        entries.append(f' "{key}": {text}')
    return "{\n" + ",\n".join(entries) + "\n}\n"


def _write_image(task: _Task) -> tuple[Visibility, np.ndarray]:
    """Renders one image and writes JPEG and IUV; returns its visibility and keypoints."""
    shot = task.shot
    photo, iuv = render(shot.scene, task.wardrobe, task.camera, task.size)
    photo_file = task.target / MARKET / shot.folder / shot.name
    Image.fromarray(photo).save(photo_file, quality=task.camera.quality)
    # Level 1 compresses these smooth maps as well as level 6, in a third of the time.
    iuv_file = task.target / DENSEPOSE / f"{shot.name.partition('.')[0]}_IUV.png"
    Image.fromarray(iuv[..., ::-1].copy()).save(iuv_file, compress_level=1)
    person = shot.scene, task.wardrobe, task.camera, iuv
    return measure_visibility(*person), project(*person)
