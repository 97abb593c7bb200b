"""Training curves: losses, learning rate and mAP over the epochs of all stages."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

GROUPS = {
    "cross entropy": "cls",
    "triplet": "tri",
    "mask": "mask",
    "semantic diversity": "sd",
}


def save_curves(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw what the engine remembers of each epoch.

    Args:
        history: one entry an epoch: "epoch", "stage", "lr", losses by name, "mAP" where tested.
        path: of the picture.
    """
    names = [name for name in history[0] if name not in {"epoch", "stage", "lr", "mAP"}]
    groups = {
        title: [name for name in names if name.split("_")[0] == prefix]
        for title, prefix in GROUPS.items()
    }
    groups = {title: members for title, members in groups.items() if members}
    figure = Figure(figsize=(11, 2.9 * ((len(groups) + 3) // 2)), layout="constrained")
    axes = figure.subplots((len(groups) + 3) // 2, 2).flat
    for title, members in groups.items():
        _plot(next(axes), title, history, members)
    _plot(next(axes), "accuracy on the batch, %", history, [n for n in names if n == "acc"])
    lr = next(axes)
    _plot(lr, "learning rate, and mAP in %", history, ["lr"])
    lr.set_yscale("log")
    tested = [(e["epoch"], 100 * e["mAP"]) for e in history if "mAP" in e]
    if tested:
        twin = lr.twinx()
        twin.plot(*zip(*tested, strict=True), "o-", color="tab:green", label="mAP")
        twin.set_ylim(0, 100)
        twin.legend(frameon=False, loc="lower right")
    for empty in axes:
        empty.set_axis_off()
    figure.savefig(path, dpi=110)


def _plot(
    axes: Axes, title: str, history: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> None:
    epochs = [entry["epoch"] for entry in history]
    for name in names:
        values = [entry.get(name, float("nan")) for entry in history]
        axes.plot(epochs, values, label=name, marker="." if len(epochs) < 40 else None)
    for before, after in pairwise(history):
        if before["stage"] != after["stage"]:
            axes.axvline((before["epoch"] + after["epoch"]) / 2, color="0.6", linestyle="--")
            axes.annotate(
                f"stage {after['stage']}",
                ((before["epoch"] + after["epoch"]) / 2, 1),
                xycoords=("data", "axes fraction"),
                xytext=(4, -12),
                textcoords="offset points",
                color="0.4",
                fontsize=8,
            )
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("epoch", fontsize=9)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8)
