"""What a training leaves behind for eyes: a table of results and pictures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from magnifier_plugin.engine.engine import ImageMagnifierEngine
from magnifier_plugin.visualize.curves import save_curves
from magnifier_plugin.visualize.regions import region_sheet, save_sheet

Results = Mapping[str, Mapping[str, Any]]


def results_table(results: Results, untrained: Results | None = None, row: str = "trained") -> str:
    """Results of every target, in %, as Markdown.

    Args:
        results: an engine's.
        untrained: those before the training; then how much of the way to 100 % was closed is said.
        row: what to call the results.
    """
    columns = [name for name in next(iter(results.values())) if name.startswith(("mAP", "rank-"))]
    lines = [f"| data set | | {' | '.join(columns)} |", "|---" * (len(columns) + 2) + "|"]
    notes = []
    for target, result in results.items():
        rows = {"untrained": (untrained or {}).get(target), row: result}
        rows[f"{row}, re-ranked"] = result.get("reranked")
        for name, numbers in rows.items():
            if numbers:
                cells = " | ".join(f"{100 * numbers[column]:.1f}" for column in columns)
                lines.append(f"| {target} | {name} | {cells} |")
        if rows["untrained"]:
            start, end = rows["untrained"]["mAP"], result["mAP"]
            notes.append(
                f"{target}: mAP from {start:.1%} (untrained) to {end:.1%}: "
                f"{(end - start) / (1 - start):.0%} of the way to 100 %."
            )
    return "\n".join([*lines, "", *notes]).rstrip()


def save_pictures(
    engine: ImageMagnifierEngine, folder: Path, *, curves: bool = False, regions: int = 0
) -> list[Path]:
    """Draw curves and predicted regions; rankings are drawn by the test itself.

    Args:
        engine: after its run.
        folder: where pictures go.
        curves: draw losses, learning rate and mAP over the epochs.
        regions: draw the regions predicted on so many query images; needs a model with M.
    Returns:
        All pictures, the rankings included.
    """
    paths = list(engine.pictures)
    if curves and engine.history:
        paths.append(folder / "curves.png")
        save_curves(engine.history, paths[-1])
    if regions and hasattr(engine.model, "predict_regions"):
        paths.append(folder / "regions.png")
        save_sheet(_predicted_regions(engine, regions), paths[-1])
    return paths


def _predicted_regions(engine: ImageMagnifierEngine, count: int) -> Image.Image:
    """A sheet of the first target's query images, spread evenly, with their predicted regions."""
    dataset = next(iter(engine.test_loader.values()))["query"].dataset
    chosen = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)
    images = torch.stack([dataset[int(i)]["img"] for i in chosen])
    engine.set_model_mode("eval")
    with torch.inference_mode(), engine.autocast():
        predicted = engine.model.predict_regions(engine.to_device(images)).cpu()
    photos = [_photo(dataset.data[int(i)][0], images.shape[-2:]) for i in chosen]
    return region_sheet(photos, [_enlarge(ids, images.shape[-2:]) for ids in predicted])


def _photo(path: str, size: torch.Size) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((size[1], size[0])))


def _enlarge(ids: Tensor, size: torch.Size) -> np.ndarray:
    image = Image.fromarray(ids.to(torch.uint8).numpy())
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.NEAREST))
