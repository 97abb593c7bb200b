"""Training curves: losses, learning rate and mAP over the epochs of all stages."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from magnifier_plugin.files import write_atomically

# Prefix → title of the panel that shows all names with this prefix; other prefixes are their own
# titles.
TITLES = {
    "loss": "total loss",
    "cls": "cross entropy",
    "tri": "triplet loss",
    "mask": "mask loss",
    "sd": "semantic diversity loss",
    "acc": "accuracy on the batch, %",
}
_NO_LOSS = {"epoch", "stage", "lr", "mAP"}


def save_curves(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draws the loss terms, metrics, learning rate and mAP of each epoch.

    Args:
        history: one entry per epoch: "epoch", "stage", "lr", losses and metrics by name, and "mAP"
            if tested. A term is only drawn for the stages that train it.
        path: path of the figure.
    """
    names = dict.fromkeys(name for entry in history for name in entry if name not in _NO_LOSS)
    panels: dict[str, list[str]] = {}
    for name in names:
        panels.setdefault(name.partition("_")[0], []).append(name)
    count = len(panels) + 1
    figure = Figure(figsize=(11, 2.9 * ((count + 1) // 2)), layout="constrained")
    axes = iter(figure.subplots((count + 1) // 2, 2).flat)
    for prefix, members in panels.items():
        _plot(next(axes), TITLES.get(prefix, prefix), history, members)
    lr = next(axes)
    _plot(lr, "learning rate, and mAP in %", history, ["lr"])
    lr.set_yscale("log")
    tested = [(entry["epoch"], 100 * entry["mAP"]) for entry in history if "mAP" in entry]
    if tested:
        twin = lr.twinx()
        twin.plot(*zip(*tested, strict=True), "o-", color="tab:green", label="mAP")
        twin.set_ylim(0, 100)
        twin.legend(frameon=False, loc="lower right")
    for empty in axes:
        empty.set_axis_off()
    with write_atomically(path) as part:
        figure.savefig(part, dpi=110)


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
