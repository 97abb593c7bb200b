"""The files that torchreid reads of each of its data sets, and checks that they exist.

torchreid tries to download a missing data set from addresses that died years ago, and searches
whole paths, not only file names, for identities. Both faults are avoided by checking beforehand.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from magnifier_plugin.catalogue.names import dataset_class, plain_name, registered_datasets
from magnifier_plugin.files import absolute_path

# torchreid accepts Market-1501 with and without this folder.
OPTIONAL_FOLDER = "Market-1501-v15.09.15"
WHERE_TO_GET = "https://kaiyangzhou.github.io/deep-person-reid/datasets.html"


@dataclass(frozen=True)
class Layout:
    """The files and folders that torchreid reads in a data set's folder."""

    inner: str
    """The subfolder that contains them, as the archive unpacks it; "" if there is none."""
    required: tuple[str, ...]
    """Paths relative to `inner`."""

    def missing(self, dataset_dir: Path) -> Path | None:
        """The first required path that does not exist; None if all exist."""
        wanted = (dataset_dir / self.inner / path for path in self.required)
        return next((path for path in wanted if not path.exists()), None)

    def __str__(self) -> str:
        return str(Path(self.inner, f"{{{','.join(self.required)}}}"))


@dataclass(frozen=True)
class MarketNames:
    """Market-1501's file names: `0002_c1s1_000451_03.jpg` is identity 2 seen by camera 1."""

    cameras: int
    """Highest camera number."""
    identities: int | None = None
    """Highest identity number; None: no limit."""


_MARKET_FOLDERS = ("bounding_box_train", "query", "bounding_box_test")
_MSMT17_LISTS = ("list_train.txt", "list_val.txt", "list_query.txt", "list_gallery.txt")
# The possible layouts of each data set, the usual one first.
LAYOUTS = {
    "market1501": (Layout(OPTIONAL_FOLDER, _MARKET_FOLDERS), Layout("", _MARKET_FOLDERS)),
    "dukemtmcreid": (Layout("DukeMTMC-reID", _MARKET_FOLDERS),),
    "cuhk03": (
        Layout(
            "",
            (
                "cuhk03_release/cuhk-03.mat",
                "cuhk03_new_protocol_config_detected.mat",
                "cuhk03_new_protocol_config_labeled.mat",
            ),
        ),
    ),
    "msmt17": (
        Layout("MSMT17_V1", ("train", "test", *_MSMT17_LISTS)),
        Layout("MSMT17_V2", ("mask_train_v2", "mask_test_v2", *_MSMT17_LISTS)),
    ),
    "occluded_duke": (Layout("", _MARKET_FOLDERS),),
    "occluded_reid": (Layout("", ("occluded_body_images", "whole_body_images")),),
    "partial_reid": (Layout("", ("partial_body_images", "whole_body_images")),),
    "partial_ilids": (Layout("", ("partial_body_images", "whole_body_images")),),
    "p_dukemtmc": (
        Layout(
            "",
            tuple(
                f"{part}/{body}_body_images"
                for part in ("train", "test")
                for body in ("whole", "occluded")
            ),
        ),
    ),
}
_WITHDRAWN = {
    "dukemtmcreid": "Its authors withdrew it: there is no download.",
    **dict.fromkeys(
        ("occluded_duke", "p_dukemtmc"),
        "It was made from DukeMTMC, which its authors withdrew: there is no download.",
    ),
}
MARKET_NAMES = {
    "market1501": MarketNames(cameras=6, identities=1501),
    "dukemtmcreid": MarketNames(cameras=8),
}
# torchreid's own pattern, for which it searches the whole path.
_IDENTITY_AND_CAMERA = re.compile(r"([-\d]+)_c(\d)")
_INTEGER = re.compile(r"-?\d+")
_JUNK = -1


def require_dataset(name: str, root: str | os.PathLike[str]) -> None:
    """Checks that a data set is where torchreid expects it.

    Args:
        name: its registered name, with or without `_masked`.
        root: the folder of all data sets.
    Raises:
        FileNotFoundError: a folder or file is missing.
        ValueError: the name is unknown, or torchreid cannot read the names of files or folders.
    """
    name = plain_name(name)  # `NAME_masked` is registered as a function, which has no folder
    folder = getattr(dataset_class(name), "dataset_dir", None)
    if isinstance(folder, str):
        require_folder(name, absolute_path(root) / folder)


def require_folder(name: str, dataset_dir: Path) -> None:
    """Like `require_dataset`, but takes the data set's own folder."""
    if not dataset_dir.is_dir():
        raise missing_data(name, dataset_dir, dataset_dir)
    layouts = LAYOUTS.get(name, ())
    missing = [layout.missing(dataset_dir) for layout in layouts]
    paths = [path for path in missing if path is not None]
    if paths and len(paths) == len(layouts):
        raise missing_data(name, paths[0], dataset_dir)
    if name in MARKET_NAMES:
        _check_market_names(name, dataset_dir / layouts[missing.index(None)].inner)


def missing_data(
    name: str, path: str | os.PathLike[str], dataset_dir: Path | None = None
) -> FileNotFoundError:
    """The error for a missing file or folder of a data set.

    Args:
        name: the data set's name in torchreid.
        path: what is missing.
        dataset_dir: the data set's own folder, if its usual content is not all there.
    """
    message = f"{name}: looked for {path}, which does not exist. "
    if name in LAYOUTS and dataset_dir:
        message += f"Expected in {dataset_dir}: {LAYOUTS[name][0]}. "
    if name in _WITHDRAWN:
        return FileNotFoundError(message + _WITHDRAWN[name])
    if name == "synthetic" and dataset_dir:
        return FileNotFoundError(
            f"{message}Render it with: python scripts/render_pedestrians.py --root "
            f"{dataset_dir.parents[1]}, or set data.root to the root that it was rendered into."
        )
    source = "Nothing is downloaded"
    if str(getattr(registered_datasets().get(name), "__module__", "")).startswith("torchreid."):
        source += f": {WHERE_TO_GET} says where data sets come from"
    return FileNotFoundError(
        f"{message}{source}; if it is elsewhere, set data.root to the folder that contains it."
    )


def _check_market_names(name: str, folder: Path) -> None:
    """Refuses names from which torchreid would read no identity and camera, or wrong ones."""
    misleading = _IDENTITY_AND_CAMERA.search(f"{folder}/")
    if misleading:
        raise ValueError(
            f"{name}: {folder}: torchreid searches the whole path for identity and camera, and "
            f"would read them from {misleading.group()!r} in this folder's path; rename the folder"
        )
    for part in _MARKET_FOLDERS:
        names = sorted(path.name for path in (folder / part).glob("*.jpg"))
        if not names:
            raise ValueError(f"{name}: {folder / part}: expected *.jpg images, found none")
        for image in names:
            _check_market_name(name, folder / part / image)


def _check_market_name(name: str, image: Path) -> None:
    found = _IDENTITY_AND_CAMERA.search(image.name)
    rules = MARKET_NAMES[name]
    if found and _INTEGER.fullmatch(found[1]):
        identity, camera = int(found[1]), int(found[2])
        highest = identity if rules.identities is None else rules.identities
        if _JUNK <= identity <= highest and 1 <= camera <= rules.cameras:
            return
    limit = "" if rules.identities is None else f"identity at most {rules.identities}, "
    raise ValueError(
        f"{image}: expected a name such as 0002_c1s1_000451_03.jpg ({limit}camera 1 to "
        f"{rules.cameras}), from which torchreid reads identity and camera"
    )
