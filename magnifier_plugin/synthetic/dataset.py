"""The rendered pedestrians as a torchreid data set that brings its own label maps."""

from typing import Any

from magnifier_plugin.annotators.densepose import IuvFolder
from magnifier_plugin.catalogue.names import registered_datasets
from magnifier_plugin.data.annotated import masked
from magnifier_plugin.masks.conversion import convert
from magnifier_plugin.synthetic.folder import SyntheticOptions, ensure_rendered

Market1501 = registered_datasets()["market1501"]


class Synthetic(masked(Market1501, "market1501")):
    """Rendered pedestrians in Market-1501's layout; rendered and converted on first use.

    Images lie in `<root>/synthetic/market1501`, label maps in `<root>/synthetic/mask_labels`, so
    that torchreid's own `market1501` with `--root <root>/synthetic` reads the same files.

    Args:
        root: folder of all data sets.
        options: what to render; None for what is there already, else the defaults.
        kwargs: as of a masked Market-1501; its `masks_dir` is this data set's own.
    Raises:
        ValueError: something else is rendered there already.
    """

    dataset_dir = "synthetic/market1501"

    def __init__(
        self, root: str = "", options: SyntheticOptions | None = None, **kwargs: Any
    ) -> None:
        folder = ensure_rendered(root or ".", options)
        labels = folder / "mask_labels"
        if kwargs.get("mode", "train") == "train":
            summary = convert(
                IuvFolder(folder / "densepose"), folder / "market1501", labels / "market1501"
            )
            for image, reason in summary.failures.items():
                raise ValueError(f"{image}: {reason}; remove {folder}, and it is rendered again")
        super().__init__(root=root, **{**kwargs, "masks_dir": labels})
