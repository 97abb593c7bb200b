"""The paths of an image's label map and IUV, shared by the converter and the data sets."""

import os
from pathlib import Path

from magnifier_plugin.annotators.densepose import SUFFIX as IUV_SUFFIX
from magnifier_plugin.catalogue.layouts import OPTIONAL_FOLDER
from magnifier_plugin.files import absolute_path


def default_masks_dir() -> Path:
    """The folder of all label maps by default: `$MAGNIFIER_MASKS`, else `./mask_labels`."""
    return absolute_path(os.environ.get("MAGNIFIER_MASKS") or "mask_labels")


def label_path(
    image_path: str | os.PathLike[str],
    dataset_dir: str | os.PathLike[str],
    dataset: str,
    masks_dir: str | os.PathLike[str],
) -> Path:
    """The path of an image's label map: `<masks_dir>/<dataset>/<path in the data set>.png`.

    Every path may be relative, begin with `~` or contain `..`; symbolic links are not resolved.

    Args:
        image_path: the image; inside dataset_dir.
        dataset_dir: the data set's own folder, such as `reid-data/market1501`.
        dataset: the data set's name in torchreid, such as `market1501`.
        masks_dir: the folder of all label maps.
    Returns:
        The absolute path. The path in the data set is that of the image relative to dataset_dir,
        without the optional folder `Market-1501-v15.09.15`, and with `.png` in place of the image's
        suffix.
    Raises:
        ValueError: the image is not inside dataset_dir.
    """
    try:
        inside = absolute_path(image_path).relative_to(absolute_path(dataset_dir))
    except ValueError:
        raise ValueError(
            f"{image_path}: expected an image inside the data set's folder {dataset_dir}; "
            "was the data set moved after its image list was made?"
        ) from None
    kept = [folder for folder in inside.parts if folder != OPTIONAL_FOLDER]
    return absolute_path(masks_dir).joinpath(dataset, *kept).with_suffix(".png")


def iuv_path(label: Path) -> Path:
    """The path of an image's IUV, in the folder of its label map and named as by DensePose."""
    return label.with_name(f"{label.stem}{IUV_SUFFIX}")


def is_written(path: Path) -> bool:
    """Whether a file exists and is not empty; a power cut can leave files of 0 bytes."""
    return path.is_file() and path.stat().st_size > 0
