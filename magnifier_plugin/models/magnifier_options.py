"""The options of MagnifierNet as a whole: allowed values and combinations."""

import functools
import warnings
from collections.abc import Sequence

BRANCHES = ("G", "M", "SAB", "SFB")
LOSSES = ("magnifier", "triplet", "softmax")


def check_options(loss: str, branches: Sequence[str]) -> None:
    """Raise a ValueError for an unknown loss, or branches that do not form a network."""
    if loss not in LOSSES:
        raise ValueError(f"loss: MagnifierNet supports {', '.join(LOSSES)}; got {loss!r}")
    unknown = sorted(set(branches) - set(BRANCHES))
    if unknown or isinstance(branches, str):
        raise ValueError(
            f"magnifier.branches: expected a list of {', '.join(BRANCHES)}; got {branches!r}"
        )
    if not set(branches) & {"G", "SAB", "SFB"}:
        raise ValueError(
            f"magnifier.branches: {list(branches)} leaves no embedding; add G, SAB or SFB"
        )
    for branch in ("SAB", "SFB"):
        if branch in branches and "M" not in branches:
            raise ValueError(
                f"magnifier.branches: {branch} pools body regions, and at inference only the mask "
                "module M predicts them; add M"
            )


@functools.cache
def warn_no_masks_are_learnt() -> None:
    """Warn once that torchreid's engines do not train the segmentation head."""
    warnings.warn(
        "MagnifierNet is trained without its mask loss: torchreid's losses do not use masks, so "
        "SAB and SFB pool with the predictions of an untrained segmentation head. Use "
        "torchreid.engine.ImageMagnifierEngine (or scripts/main.py with loss.name magnifier).",
        stacklevel=2,
    )
