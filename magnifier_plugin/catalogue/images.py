"""The image files below a folder, and what their names say."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

from magnifier_plugin.annotators.densepose import PEOPLE_SUFFIX
from magnifier_plugin.annotators.densepose import SUFFIX as IUV_SUFFIX
from magnifier_plugin.files import absolute_path
from magnifier_plugin.folders import walk

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".tif", ".tiff", ".webp"})
_ANNOTATION_ENDINGS = (IUV_SUFFIX, PEOPLE_SUFFIX)
# As in Market-1501: 0002_c1s1_000451_03.jpg is identity 2 seen by camera 1.
_MARKET_NAME = re.compile(r"(-?[0-9]+)_c([0-9]+)")
# Anywhere in a name: _c3, c3s1, cam3.
_CAMERA = re.compile(r"(?:^|[^a-z0-9])c(?:am)?([0-9]+)(?=s[0-9]+|[^a-z0-9]|$)", re.IGNORECASE)


def market_ids(name: str) -> tuple[str, str] | None:
    """Identity and camera in a file name that begins like Market-1501's; None for other names."""
    found = _MARKET_NAME.match(name)
    return (found[1], found[2]) if found else None


def camera_of(name: str) -> str:
    """The camera in a file name, given anywhere as `_c3`, `c3s1` or `cam3`; "" if there is none."""
    found = _CAMERA.search(PurePath(name).stem)
    return found[1] if found else ""


def list_images(
    folder: str | os.PathLike[str], skip: Sequence[str | os.PathLike[str]] = ()
) -> list[Path]:
    """All image files at any depth below a folder, sorted.

    Args:
        folder: the folder.
        skip: folders inside it to leave out, such as those of annotations.
    Returns:
        Absolute paths; hidden files and DensePose's own PNGs are left out. Symbolic links are
        followed, except one to a folder that contains it.
    Raises:
        FileNotFoundError: there is no such folder, or it is a file.
        ValueError: it contains no images.
    """
    folder = absolute_path(folder)
    if not folder.is_dir():
        found = "found a file" if folder.exists() else "found no such folder"
        raise FileNotFoundError(f"{folder}: expected a folder of images, {found}")
    images = sorted(images_below(folder, skip))
    if not images:
        raise ValueError(
            f"{folder}: no images found, expected files such as 0002_c1s1_000451_03.jpg"
        )
    return images


def images_below(folder: Path, skip: Sequence[str | os.PathLike[str]] = ()) -> Iterator[Path]:
    """The images that `list_images` lists, in any order; none if there is no such folder."""
    skipped = {absolute_path(path) for path in skip}
    for where, folders, names in walk(folder):
        folders[:] = [f for f in folders if f[0] != "." and Path(where, f) not in skipped]
        yield from (Path(where, name) for name in names if _is_image(name))


def images_in(folder: Path) -> list[Path]:
    """The images directly in a folder, sorted; none if there is no such folder."""
    try:
        return sorted(path for path in folder.iterdir() if _is_image(path.name))
    except (OSError, ValueError):  # also a name that no folder can have
        return []


def _is_image(name: str) -> bool:
    return (
        not name.startswith(".")
        and not name.endswith(_ANNOTATION_ENDINGS)
        and PurePath(name).suffix.lower() in IMAGE_SUFFIXES
    )
