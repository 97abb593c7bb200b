"""Lists of images, read from the names of folders and files."""

from collections.abc import Sequence
from pathlib import Path

from magnifier_plugin.catalogue.image_list import (
    GALLERY,
    QUERY,
    SPLITS,
    TRAIN,
    Findings,
    ImageList,
    ListedImage,
    checked_list,
    plain_id,
)
from magnifier_plugin.catalogue.images import camera_of, images_below, list_images, market_ids
from magnifier_plugin.catalogue.layouts import OPTIONAL_FOLDER
from magnifier_plugin.catalogue.problems import DatasetProblem
from magnifier_plugin.wording import many, name_examples

# Names of each split's folder.
FOLDERS = {
    TRAIN: ("train", "bounding_box_train"),
    QUERY: ("query",),
    GALLERY: ("gallery", "bounding_box_test"),
}
_NAMED = 5  # number of folders that an error names


def read_folder(folder: Path) -> ImageList:
    """Reads a folder with train, query and gallery; mistakes are collected in `problems`.

    Each of the three holds folders named by identity, with images at any depth, or images with
    Market-1501's names. A file's name may give the camera as `_c3`, `c3s1` or `cam3`.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: expected a folder of images, found no such folder")
    inner = folder / OPTIONAL_FOLDER
    top = inner if inner.is_dir() else folder
    places = {
        split: [top / name for name in names if (top / name).is_dir()]
        for split, names in FOLDERS.items()
    }
    if not any(places.values()):
        return ImageList(folder, [], problems=[_missing_split(folder)])
    problems = [
        DatasetProblem(True, f"{split}: both {found[0].name} and {found[1].name} exist")
        for split, found in places.items()
        if len(found) > 1
    ]
    findings, images = Findings(), []
    for split in SPLITS:
        for place in places[split]:
            images += _read_split(place, split, findings, problems)
    found = checked_list(folder, images, [*findings.problems("image"), *problems])
    found.notes.extend(_other_folders(top))
    return found


def read_identities(folder: Path) -> ImageList:
    """Reads a folder without a split: `<pid>/*`, or images with Market-1501's names.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it contains no images, or it already has a split.
    """
    tops = folder, folder / OPTIONAL_FOLDER
    splits = {name for names in FOLDERS.values() for name in names}
    there = {name for name in splits if any((top / name).is_dir() for top in tops)}
    if there:
        raise ValueError(
            f"{folder}: already has a split, in {', '.join(sorted(there))}; expected one folder "
            "for each identity, or names such as 0002_c1s1_000451_03.jpg"
        )
    findings = Findings()
    images = _read_images(folder, list_images(folder), "", findings)
    return checked_list(folder, images, findings.problems("image"), need_split=False)


def _read_split(
    place: Path, split: str, findings: Findings, problems: list[DatasetProblem]
) -> list[ListedImage]:
    try:
        return _read_images(place, list_images(place), split, findings)
    except ValueError:
        problems.append(DatasetProblem(True, f"{place}: no images found"))
        return []


def _read_images(
    place: Path, paths: Sequence[Path], split: str, findings: Findings
) -> list[ListedImage]:
    images = []
    for path in paths:
        inside = path.relative_to(place).parts
        if len(inside) > 1:
            camera = camera_of(path.name)
            camid = plain_id(camera) if camera else ""
            images.append(ListedImage(path, plain_id(inside[0]), camid, split))
        elif ids := market_ids(path.name):
            pid, camid = map(plain_id, ids)
            images.append(ListedImage(path, pid, camid, split))
        else:
            findings.add(
                "neither in a folder named by identity nor named like 0002_c1s1_000451_03.jpg", path
            )
    return images


def _other_folders(top: Path) -> list[str]:
    """A note on folders with images next to those of the splits, such as val; none without them."""
    read = [name for names in FOLDERS.values() for name in names]
    others = (path for path in sorted(top.iterdir()) if path.is_dir() and path.name not in read)
    names = [path.name for path in others if path.name[0] != "." and any(images_below(path))]
    found = f"{many(len(names), 'other folder')} with images not read{name_examples(names)}"
    return [found] if names else []


def _missing_split(folder: Path) -> DatasetProblem:
    """The problem of a folder that has none of train, query and gallery."""
    try:
        found = many(len(list_images(folder)), "image")
    except ValueError:
        return DatasetProblem(True, "no images found")
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    more = ", …" if len(names) > _NAMED else ""
    there = f" in folders {', '.join(names[:_NAMED])}{more}" if names else ""
    return DatasetProblem(
        True,
        f"expected the folders train, query and gallery (or {', '.join(_market_folders())}), found "
        f"{found}{there}. If each folder is an identity, or names are like "
        "0002_c1s1_000451_03.jpg, check_dataset.py --split 0.5 --write-csv FILE makes a list with "
        "a split",
    )


def _market_folders() -> list[str]:
    return [names[-1] for names in FOLDERS.values()]
