"""The metrics of a ranking as JSON and as text."""

from collections.abc import Sequence
from typing import Any

from magnifier_plugin.evaluation.ranking import Ranking
from magnifier_plugin.wording import many


def summarise(ranking: Ranking, ranks: Sequence[int]) -> dict[str, Any]:
    """The metrics as a dict of JSON types; mAP, mINP and rank-r are in 0..1."""
    return {
        "mAP": ranking.mAP,
        "mINP": ranking.mINP,
        **{f"rank-{rank}": float(ranking.cmc[rank - 1]) for rank in ranks},
        "queries": ranking.num_valid,
        "queries_without_match": {
            "identity_absent": ranking.num_absent,
            "same_camera_only": ranking.num_same_camera,
        },
    }


def describe(title: str, ranking: Ranking, ranks: Sequence[int]) -> str:
    """mAP, mINP and CMC in torchreid's format, and how many queries were left out and why."""
    lines = [f"** {title} **", f"mAP: {ranking.mAP:.1%}", f"mINP: {ranking.mINP:.1%}", "CMC curve"]
    lines += [f"Rank-{rank:<3}: {ranking.cmc[rank - 1]:.1%}" for rank in ranks]
    if left_out := ranking.num_absent + ranking.num_same_camera:
        lines.append(
            f"{many(left_out, 'query')} without a match left out: {ranking.num_absent} whose "
            f"identity is not in the gallery, {ranking.num_same_camera} whose identity is there "
            "only in images of the query's own camera"
        )
    return "\n".join(lines)
