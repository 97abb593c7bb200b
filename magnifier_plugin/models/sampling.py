"""Sampling of the regions that SAB keeps (MagnifierNet, section 3.2)."""

import torch
from torch import Tensor

from magnifier_plugin.regions import (
    BACKGROUND,
    BODY_REGIONS,
    LOWER_REGIONS,
    NUM_REGIONS,
    UPPER_REGIONS,
)

SAMPLINGS = ("torso", "baseline")


def check_sampling(sampling: str, keep: int) -> None:
    """Check the options of `draw_kept_regions`.

    Args:
        sampling: "torso" (Random-torso) or "baseline" (Random-baseline).
        keep: K̂, the number of body regions that are kept.
    Raises:
        ValueError: an unknown sampling, or a K̂ that it cannot draw.
    """
    if sampling not in SAMPLINGS:
        raise ValueError(f"magnifier.sampling: expected one of {SAMPLINGS}, got {sampling!r}")
    if sampling == "torso":
        most = 2 * min(len(UPPER_REGIONS), len(LOWER_REGIONS))
        if keep % 2 or not 2 <= keep <= most:
            raise ValueError(
                f"magnifier.keep: Random-torso keeps K̂/2 upper and K̂/2 lower regions, so K̂ is "
                f"even, 2..{most}; got {keep}. Random-baseline (magnifier.sampling baseline) "
                "accepts odd numbers too."
            )
    elif not 1 <= keep <= len(BODY_REGIONS):
        raise ValueError(
            f"magnifier.keep: Random-baseline keeps 1..{len(BODY_REGIONS)} body regions; got {keep}"
        )


def draw_kept_regions(sampling: str, keep: int) -> Tensor:
    """Draw the regions that are kept in one batch; the others are the paper's Ô.

    They are drawn from torch's global CPU generator, whose state checkpoints save. Python numbers
    would be constants for `torch.compile`, which would compile the network again for each draw.

    Args:
        sampling: "torso" keeps K̂/2 of U_torso and K̂/2 of L_torso, "baseline" any K̂ body regions.
        keep: K̂, the number of body regions that are kept.
    Returns:
        float [8, 1, 1]: 1 for a region that is kept, as the background always is, else 0.
    """
    groups = (UPPER_REGIONS, LOWER_REGIONS) if sampling == "torso" else (BODY_REGIONS,)
    kept = torch.zeros(NUM_REGIONS, 1, 1)
    kept[BACKGROUND] = 1
    for group in groups:
        chosen = torch.randperm(len(group))[: keep // len(groups)]
        kept[torch.tensor(group)[chosen]] = 1
    return kept
