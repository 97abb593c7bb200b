"""The tables and figures that can be reproduced; each row has the values that the paper prints."""

from collections.abc import Sequence
from dataclasses import replace

from reproduction.dsa_rows import DSA
from reproduction.table import CUHK03_L, DUKE, MISSING_ALLOWED, Pairs, Row, Table

NO_SD = ("stages.2.loss_weights.sd", "0")
FULL = "magnifier.branches", "G,M,SAB,SFB"
FEWEST = 2  # smallest K̂ of Fig. 5
NO_SECOND_STAGE = "the configuration needs a second stage, in which the SD loss is trained"


def _part(name: str, printed: Sequence[float], *against: str) -> Row:
    """A row of MagnifierNet's Table 2 without the SD loss."""
    overrides = ("magnifier.branches", name.replace("+", ","), *NO_SD)
    mAP, rank1, duke_mAP, duke_rank1 = printed
    results = {CUHK03_L: (mAP, rank1), DUKE: (duke_mAP, duke_rank1)}
    return Row(name, name, overrides, results, against)


# Without the SD loss; a row of Table 2, Fig. 4 and Fig. 5 (random-torso, K̂ = 4).
WITHOUT_SD = _part("G+M+SAB+SFB", (78.5, 81.2, 79.6, 88.6), "G+M+SAB", "G+M+SFB", "G")
PLAIN = ("magnifier.branches", "G", *NO_SD)
WITH_SD = Row(
    "G+M+SAB+SFB+SD",
    "G+M+SAB+SFB+SD",
    FULL,
    {CUHK03_L: (79.6, 82.4), DUKE: (80.7, 90.0)},
)

TABLE2 = Table(
    "table2",
    "MagnifierNet, Table 2: network components",
    "magnifiernet",
    (
        _part("G", (67.4, 69.8, 70.8, 82.7)),
        _part("G+M", (69.0, 71.3, 72.9, 83.9), "G"),
        _part("G+M+SAB", (74.6, 76.6, 76.7, 87.1), "G+M"),
        _part("G+M+SFB", (75.9, 77.4, 75.2, 86.7), "G+M"),
        WITHOUT_SD,
        replace(WITH_SD, against=(WITHOUT_SD.name, "G")),
    ),
    hint=NO_SECOND_STAGE,
    start=PLAIN,
)

FIGURE4 = Table(
    "figure4",
    "MagnifierNet, Fig. 4: Semantic Fusion Branch against the ablation branch, without SD",
    "magnifiernet",
    (
        Row("G+M+SAB+AB", "AB", (*FULL, *NO_SD, "magnifier.fusion", "concat")),
        replace(WITHOUT_SD, title="SFB", printed={}, against=()),
    ),
    figure="bars",
    hint=NO_SECOND_STAGE,
    start=PLAIN,
)


def _kept(sampling: str, keep: int) -> Row:
    """A point of MagnifierNet's Fig. 5."""
    overrides = (*FULL, *NO_SD, "magnifier.sampling", sampling, "magnifier.keep", str(keep))
    row = Row(f"{sampling}-{keep}", "", overrides)
    other = f"baseline-{keep}" if sampling == "torso" else f"baseline-{keep - 1}"
    if (sampling, keep) == ("torso", 4):
        # The only point whose value the paper prints.
        row = replace(WITHOUT_SD, printed={CUHK03_L: (78.5, None)})
    return replace(
        row,
        title=f"{sampling}, K̂ {keep}",
        against=(other,) if other != f"baseline-{FEWEST - 1}" else (),
        x=keep,
        series=f"Random-{sampling}",
    )


FIGURE5 = Table(
    "figure5",
    "MagnifierNet, Fig. 5: regions that SAB keeps (K̂) and how they are drawn, without SD",
    "magnifiernet",
    (
        *(_kept("baseline", keep) for keep in range(FEWEST, 7)),
        *(_kept("torso", keep) for keep in (2, 4, 6)),
    ),
    figure="curves",
    axis="K̂, regions kept",
    hint=NO_SECOND_STAGE,
    start=PLAIN,
)


def _with_triplet(row: Row) -> Row:
    """A row of Table 2 that trains SAB with a triplet loss, as in the paper."""
    return replace(row, overrides=(*row.overrides, "magnifier.sab_triplet", "True"))


def _without_triplet(row: Row, name: str, *against: str) -> Row:
    """A row of Table 2 that trains SAB without a triplet loss, as in the authors' code."""
    title = f"{row.title}, SAB without triplet"
    overrides = (*row.overrides, "magnifier.sab_triplet", "False")
    return Row(name, title, overrides, {}, (row.name, *against))


_G, _M, _SAB, _SFB, _SAB_SFB, _SD = TABLE2.rows
SAB = Table(
    "sab",
    "MagnifierNet, SAB with and without its triplet loss",
    "magnifiernet",
    (
        *(_G, _M, _with_triplet(_SAB), _without_triplet(_SAB, "G+M+SAB-ce", "G+M"), _SFB),
        *(_with_triplet(_SAB_SFB), _without_triplet(_SAB_SFB, "G+M+SAB-ce+SFB", "G+M+SFB", "G")),
        *(_with_triplet(_SD), _without_triplet(_SD, "G+M+SAB-ce+SFB+SD", "G+M+SAB-ce+SFB", "G")),
    ),
    hint=NO_SECOND_STAGE,
    start=PLAIN,
)

_CONSTANT = (
    *("stages.2.lr", "0.001", "stages.2.lr_scheduler", "multi_step"),
    *("stages.2.stepsize", "[]", "stages.2.warmup_epoch", "0"),
    *("stages.2.optimizer", "fresh"),
)
_KEPT = ("stages.2.optimizer", "keep")


def _second(name: str, title: str, sd: str, how: Pairs) -> Row:
    """A row of `STAGE2`: a weight of the SD loss and a learning rate in the second stage."""
    return Row(name, title, (*FULL, "stages.2.loss_weights.sd", sd, *how), {}, ("no-SD-1e-3",))


STAGE2 = Table(
    "stage2",
    "MagnifierNet, the second stage: weight of the SD loss and learning rate",
    "magnifiernet",
    (
        Row("no-SD-1e-3", "without SD, rate 1e-3", (*FULL, *NO_SD, *_CONSTANT)),
        _second("SD-2e-3-rate-1e-3", "SD 2e-3, rate 1e-3 (paper)", "0.002", _CONSTANT),
        _second("SD-1e-2-rate-1e-3", "SD 1e-2, rate 1e-3", "0.01", _CONSTANT),
        _second("SD-2e-3-kept", "SD 2e-3, optimiser and rate kept", "0.002", _KEPT),
        _second("SD-1e-2-kept", "SD 1e-2, optimiser and rate kept (authors' code)", "0.01", _KEPT),
    ),
    hint=(
        "stage 2 keeps the learning rate that stage 1 ends with, 3.5e-6 with the paper's steps and "
        "460 epochs; a cosine schedule ends with 0, so set steps for stage 1, such as "
        "stages.1.lr_scheduler multi_step stages.1.stepsize 40,70"
    ),
    start=PLAIN,
)


def _masks(name: str, title: str, *overrides: str) -> Row:
    """A row of `MASKS`, which trains with the variant `name` of the label maps."""
    return Row(name, title, (*FULL, *overrides), {}, (WITH_SD.name,), maps=name)


MASKS = Table(
    "masks",
    "MagnifierNet trained with worse label maps",
    "magnifiernet",
    (
        replace(WITH_SD, title="exact", printed={}),
        _masks("eroded", "eroded by 2 of 256 pixels"),
        _masks("dilated", "dilated by 2 of 256 pixels"),
        _masks("missing-30", "30 % missing", *MISSING_ALLOWED),
        _masks("missing-70", "70 % missing", *MISSING_ALLOWED),
        _masks("missing-100", "100 % missing", *MISSING_ALLOWED),
        _masks("keypoints", "made from keypoints", "masks.label_set", "keypoints"),
    ),
    start=PLAIN,
)

TABLES = {table.name: table for table in (TABLE2, FIGURE4, FIGURE5, SAB, STAGE2, MASKS, DSA)}
