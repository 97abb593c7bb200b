"""The rendered pedestrians as a torchreid data set, with label maps and IUV for every image."""

from pathlib import Path
from typing import Any

from magnifier_plugin.annotators.densepose import IuvFolder
from magnifier_plugin.catalogue.names import registered_datasets
from magnifier_plugin.files import absolute_path
from magnifier_plugin.masks.conversion import convert
from magnifier_plugin.synthetic.conditions import CONDITIONS
from magnifier_plugin.synthetic.folder import DENSEPOSE, MARKET, ensure_rendered
from magnifier_plugin.synthetic.keypoints import KEYPOINTS
from magnifier_plugin.synthetic.options import SyntheticOptions

Market1501: Any = registered_datasets()["market1501"]


class Synthetic(Market1501):
    """Rendered pedestrians in Market-1501's layout; rendered and converted on first use.

    Images are in `<root>/synthetic/market1501`, so that torchreid's own `market1501` reads the
    same files with `--root <root>/synthetic`. The label maps and IUV of training, query and gallery
    images are in `masks_dir`; existing ones are kept.

    Args:
        root: folder of all data sets.
        options: what to render; None: use the data set that exists, or else the default options.
        arguments: arguments of torchreid's Market1501 and Dataset: transform, k_tfm, mode,
            combineall, verbose.
    Raises:
        ValueError: a data set with other options exists there, or a rendered file is damaged.
    """

    dataset_dir = "synthetic/market1501"

    def __init__(
        self, root: str = "", *, options: SyntheticOptions | None = None, **arguments: Any
    ) -> None:
        folder = ensure_rendered(root, options)
        self.masks_dir = folder / "mask_labels"
        """The data set's own folder of all label maps."""
        conditions = folder / CONDITIONS
        self.conditions_file = conditions if conditions.is_file() else None
        """CSV of per-image conditions; None if an earlier version rendered the data set without."""
        keypoints = folder / KEYPOINTS
        self.keypoints_file = keypoints if keypoints.is_file() else None
        """Exact keypoints as COCO results; None if an earlier version rendered without them."""
        self.label_folder = MARKET.parts[0]
        """The folder of its label maps within `masks_dir`."""
        _convert(folder, self.masks_dir / self.label_folder)
        super().__init__(root=str(absolute_path(root)), **arguments)


def _convert(folder: Path, out_dir: Path) -> None:
    """Writes the missing label maps and IUV of all rendered images."""
    images_dir = folder / MARKET.parts[0]
    summary = convert(IuvFolder(folder / DENSEPOSE), images_dir, out_dir, keep_iuv=True)
    faults = {
        **dict.fromkeys(summary.missing, "has no IUV, or one without a person"),
        **summary.failures,
    }
    for image, reason in faults.items():
        raise ValueError(f"{image}: {reason}; remove {folder} to render it again")
