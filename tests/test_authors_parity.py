"""MagnifierNet against numbers from the network, losses and training step of its authors' code.

`authors_parity.json` holds them, in float64, for weights and inputs that follow from the formulas
in `authors_numbers`. They do not depend on `sd_floor`, since no cosine between features after a
ReLU is negative, nor on `deconvolution_init`, since all weights are given.
"""

import json
import math
from pathlib import Path

import pytest
import torch
from authors_numbers import (
    captured,
    entry,
    filled,
    images,
    kind,
    labels,
    logits_summary,
    numbers,
    region_summary,
    summaries,
)
from tiny import drawn

from magnifier_plugin import recipe
from magnifier_plugin.config import load_config
from magnifier_plugin.systems import SYSTEMS

SYSTEM = SYSTEMS["magnifiernet"]
EXPECTED = json.loads(Path(__file__).with_name("authors_parity.json").read_text())
SETTING = EXPECTED["setting"]
RESULTS = ("evaluation", "training", "losses")
PIDS = torch.tensor(SETTING["pids"])
CONFIGURATION = Path(__file__).parents[1] / "configs" / "magnifier_market_authors.yaml"
KEYS = {
    "label_smoothing": "loss.softmax.label_smooth",
    "margin": "loss.triplet.margin",
    "weight_x": "loss.triplet.weight_x",
    "weight_t": "loss.triplet.weight_t",
}


def configuration(**overrides):
    """The authors' configuration for Market-1501, or one with other options."""
    typed = [(KEYS.get(name, f"magnifier.{name}"), value) for name, value in overrides.items()]
    return load_config(CONFIGURATION, {}, [str(word) for pair in typed for word in pair])


def build_network(**overrides):
    """The network of the configuration."""
    cfg = configuration(**overrides)
    return recipe.build_network(cfg, SYSTEM, SETTING["num_classes"], pretrained=False)


def build_criterion(**overrides):
    """The criterion of the configuration."""
    return recipe.build_criterion(configuration(**overrides), SYSTEM)


def network(dtype=torch.float64, **overrides):
    """A network with the given weights; they replace the initial ones, which are not computed."""
    with torch.device("meta"):
        model = build_network(**overrides)
    state = {key: filled(key, tuple(x.shape)).to(dtype) for key, x in model.state_dict().items()}
    buffers = {key for key, _ in model.named_buffers()}
    state |= {key: state[key].clone() for key in buffers}  # training writes to them
    model.load_state_dict(state, assign=True)
    return model


# --- The numbers ----------------------------------------------------------------------------------


@torch.no_grad()
def evaluation(model, dtype=torch.float64):
    """The entry `evaluation` of the file."""
    model.eval()
    batch = images()[SETTING["evaluation_images"]].to(dtype)
    with captured(model.mask_module.head) as outputs:
        embedding = model(batch)
    mask_logits = outputs.pop()
    regions = model.predict_regions(batch)
    at = EXPECTED["evaluation"]["mask_logits"]["at"]
    g, sab, sfb = embedding.split([2048, 1024, 1024], dim=1)
    return {
        "embedding": {"G": summaries(g), "SAB": summaries(sab), "SFB": summaries(sfb)},
        "mask_logits": logits_summary(mask_logits, at),
        "predicted_cells": [torch.bincount(x.flatten(), minlength=8).tolist() for x in regions],
    }


@torch.no_grad()
def training_output(model, dtype=torch.float64):
    """The network's output for the training batch, with SAB's draw fixed."""
    kept = drawn(SETTING["kept_regions"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("magnifier_plugin.models.branches.draw_kept_regions", lambda *_: kept)
        return model.train()(images().to(dtype), mask=labels())


def training(output):
    """The entry `training` of the file."""
    at = EXPECTED["training"]["mask_logits"]["at"]
    sfb = output.branches["SFB"]
    share_weight = {name: output.branches[name].share.sigmoid() for name in ("SAB", "SFB")}
    return {
        "feature": {name: summaries(branch.feature) for name, branch in output.branches.items()},
        "logits": {name: summaries(branch.logits) for name, branch in output.branches.items()},
        "regions": region_summary(sfb.regions),
        "region_logits": region_summary(sfb.region_logits),
        "mask_logits": logits_summary(output.mask_logits, at),
        "share_weight": {name: share.tolist() for name, share in share_weight.items()},
    }


def losses(output, **overrides):
    """The entry `losses` of the file, computed by the criterion."""
    sfb = output.branches["SFB"]
    targets = {"mask": labels()}
    weights = recipe.build_stages(configuration(), SYSTEM)[-1].loss_weights
    assert weights == {"sd": SETTING["gamma"]}
    with_triplet = build_criterion(**({"sab_triplet": True} | overrides))
    without_triplet = build_criterion(**overrides)
    unshared = build_criterion(**(overrides | {"share_weighted": False}))

    def region_loss(k):
        alone = sfb._replace(region_logits=sfb.region_logits[:, k : k + 1])
        alone = output._replace(branches={**output.branches, "SFB": alone})
        return unshared(alone, PIDS, targets).terms["cls_regions"].loss

    result = with_triplet(output, PIDS, targets, weights)
    named = {name: float(term.loss) for name, term in result.terms.items()}
    each = [float(region_loss(k)) for k in range(8)]
    summed = float(unshared(output, PIDS, targets).terms["cls_regions"].loss)
    return named | {
        "cls_regions": summed / 8,
        "cls_each_region": each,
        "total": float(result.total),
        "total_without_tri_SAB": float(without_triplet(output, PIDS, targets, weights).total),
    }


# --- The comparison -------------------------------------------------------------------------------


def differing(found, tolerance, of_largest=False):
    """Numbers that differ or are missing: by path, what was found and what was expected.

    Args:
        found: some of the file's first-level entries.
        tolerance: relative to the number itself, or to the largest number of its kind.
    """
    ours = dict(numbers(found))
    theirs = dict(numbers({name: EXPECTED[name] for name in found}))
    assert set(ours) <= set(theirs)
    largest = {}
    for path, number in theirs.items():
        largest[kind(path)] = max(largest.get(kind(path), 0), abs(number))
    return {
        path: (ours.get(path), number)
        for path, number in theirs.items()
        if not abs(ours.get(path, math.nan) - number)
        <= tolerance * (largest[kind(path)] if of_largest else abs(number))
    }


def entries(differing):
    return {entry(path) for path in differing}


@pytest.fixture(scope="module")
def exact():
    """The authors' network in float64: its results in evaluation, and its output in training."""
    model = network()
    return evaluation(model), training_output(model)


def in_float32(**overrides):
    model = network(torch.float32, **overrides)
    found = {"evaluation": evaluation(model, torch.float32)}
    output = training_output(model, torch.float32)
    return found | {"training": training(output), "losses": losses(output)}


def test_every_number_agrees(exact):
    found = {"evaluation": exact[0], "training": training(exact[1]), "losses": losses(exact[1])}
    assert len(list(numbers(found))) == 508
    assert not differing(found, 1e-6)


def test_float32_agrees():
    assert not differing(in_float32(), 1e-4, of_largest=True)


ALL = entries(dict(numbers({name: EXPECTED[name] for name in RESULTS})))
TOTALS = {"losses.total", "losses.total_without_tri_SAB"}
SHARES = {"training.share_weight.SAB", "training.share_weight.SFB"}
MASK = {"evaluation.mask_logits", "evaluation.predicted_cells", "training.mask_logits"}
CLS = {f"losses.cls_{name}" for name in ("G", "SAB", "SFB", "regions", "each_region")}
TRI = {f"losses.tri_{name}" for name in ("G", "SAB", "SFB")}


def of_branch(name):
    return {path for path in ALL if path.endswith(f".{name}")} - SHARES | {
        f"losses.cls_{name}",
        f"losses.tri_{name}",
    }


@pytest.mark.parametrize(
    ("option", "moved"),
    [
        ({"stem_relu": True}, ALL - SHARES),
        # In evaluation nothing is drawn, so SAB does not use masks.
        *(
            (
                {"mask_rescaling": rescaling},
                ALL - of_branch("G") - MASK - {"losses.mask", "evaluation.embedding.SAB"},
            )
            for rescaling in ("nearest", "bilinear")
        ),
        ({"fusion": "gru"}, of_branch("SFB") | TOTALS),
        # In training the batch norm takes the transposed convolution's bias out again, and the
        # distances of the triplets that of the reduction.
        (
            {"authors_bias": False},
            {"evaluation.embedding.SAB", "evaluation.embedding.SFB", "training.feature.SAB"}
            | {"evaluation.mask_logits", "evaluation.predicted_cells", "training.region_logits"}
            | {f"training.logits.{name}" for name in ("G", "SAB", "SFB")}
            | CLS
            | TOTALS,
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_another_network_disagrees(option, moved):
    assert entries(differing(in_float32(**option), 1e-4, of_largest=True)) == moved


@pytest.mark.parametrize(
    ("option", "moved"),
    [
        ({"share_weighted": False}, TOTALS),
        ({"class_balanced_mask": False}, TOTALS | {"losses.mask"}),
        ({"sab_triplet": True}, {"losses.total_without_tri_SAB"}),
        ({"sab_triplet": False}, {"losses.total", "losses.tri_SAB"}),
        ({"label_smoothing": False}, TOTALS | CLS),
        ({"margin": 0.5}, TOTALS | TRI),
        ({"weight_x": 0.5}, TOTALS),
        ({"weight_t": 0.5}, TOTALS),
        ({"region_weight": 0.1}, TOTALS),
        ({"mask_weight": 1.0}, TOTALS),
    ],
)
def test_another_criterion_disagrees(exact, option, moved):
    assert entries(differing({"losses": losses(exact[1], **option)}, 1e-6)) == moved
