"""A system defined only in this file trains, tests, saves and resumes like the package's own."""

import json

import pytest
import torch
import torchreid
from conftest import torchreids_manager
from torch import nn
from torch.nn import functional as F

from magnifier_plugin import systems
from magnifier_plugin.config import load_config
from magnifier_plugin.data.datamanager import AnnotatedDataManager
from magnifier_plugin.data.inputs import INPUTS, BatchInput
from magnifier_plugin.engine.engine import StagedEngine
from magnifier_plugin.engine.stages import Stage
from magnifier_plugin.losses.terms import CriterionOutput, Term
from magnifier_plugin.recipe import prepare


class ColourNet(nn.Module):
    """Predicts the identity and the mean colour."""

    training_inputs = ("colour",)

    def __init__(self, num_classes):
        super().__init__()
        self.embed = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 16, 8))
        self.norm = nn.BatchNorm1d(8)
        self.classifier = nn.Linear(8, num_classes)
        self.colour = nn.Linear(8, 3)

    def forward(self, images, colour=None):
        features = self.norm(self.embed(images))
        if not self.training:
            return features
        assert colour is not None
        assert colour.shape == (len(images), 3)
        return self.classifier(features), self.colour(features)


class ColourCriterion(nn.Module):
    """Cross entropy, and the distance to the mean colour."""

    def __init__(self):
        super().__init__()
        self.weights = {"identity": 1.0, "colour": 0.0}

    def forward(self, outputs, pids, targets, weights):
        weights = {**self.weights, **weights}
        terms = {"identity": Term(F.cross_entropy(outputs[0], pids), weights["identity"])}
        if weights["colour"]:
            loss = F.mse_loss(outputs[1].float(), targets["colour"])  # not in bf16
            terms["colour"] = Term(loss, weights["colour"])
        return CriterionOutput(terms, {"spread": outputs[0].std()})


def mean_colour(sample, offset=0.0):
    return sample.image.mean(dim=(1, 2)) + offset


def colour_stages():
    return (
        Stage(max_epoch=2, lr=1e-3),
        Stage(max_epoch=2, lr=1e-3, loss_weights={"colour": 0.5}),
    )


@pytest.fixture(autouse=True)
def row(monkeypatch):
    monkeypatch.setitem(INPUTS, "colour", BatchInput(mean_colour))
    row = systems.System(
        engine="ImageColourEngine",
        loss="colour",
        model=lambda name, num_classes, *_: ColourNet(num_classes),
        criterion=ColourCriterion,
        stages=colour_stages,
        inputs=lambda cfg: (("colour",), ()),
        input_options=lambda cfg: {"colour": {"offset": 1.0}},
    )
    monkeypatch.setitem(systems.SYSTEMS, "colournet", row)


def our_manager(folder):
    return AnnotatedDataManager(
        root=folder.root,
        sources="market1501",
        height=32,
        width=16,
        batch_size_train=4,
        num_instances=2,
        train_sampler="RandomIdentitySampler",
        workers=0,
    )


def make_engine(manager):
    torchreid.utils.set_random_seed(1)
    return StagedEngine(
        manager,
        ColourNet(manager.num_train_pids),
        criterion=ColourCriterion(),
        stages=colour_stages(),
        amp="off",
    )


@pytest.mark.parametrize("manager", [our_manager, torchreids_manager])
def test_through_the_engine(market_folder, tmp_path, monkeypatch, manager):
    monkeypatch.setenv("MAGNIFIER_MASKS", str(market_folder.masks_dir))
    engine = make_engine(manager(market_folder))
    engine.run(save_dir=tmp_path)
    assert json.loads((tmp_path / "results.json").read_text())["results"]["market1501"]["mAP"] > 0
    entry = {"epoch", "stage", "lr", "loss", "identity", "spread"}
    assert [set(e) - {"mAP"} for e in engine.history] == [entry] * 2 + [entry | {"colour"}] * 2
    last = engine.history[-1]
    assert last["loss"] == pytest.approx(last["identity"] + 0.5 * last["colour"], rel=1e-5)
    assert "mask" not in next(iter(engine.train_loader))


def test_resuming_gives_the_same_weights(market_folder, tmp_path):
    whole = make_engine(our_manager(market_folder))
    whole.run(save_dir=tmp_path / "whole")
    first = make_engine(our_manager(market_folder))
    first.run(save_dir=tmp_path / "parts", max_epoch=3)
    second = make_engine(our_manager(market_folder))
    start = second.resume(tmp_path / "parts" / "model" / "model.pth.tar-3")
    second.run(save_dir=tmp_path / "parts", start_epoch=start)
    expected = whole.model.state_dict()
    for key, value in second.model.state_dict().items():
        assert torch.equal(value, expected[key]), key


def test_through_the_recipe(market_folder, tmp_path):
    pairs = (
        f"model.name colournet loss.name colour data.root {market_folder.root} "
        f"data.save_dir {tmp_path} data.height 32 data.width 16 data.workers 0 "
        "amp off train.batch_size 4 stages.1.max_epoch 1 stages.2.max_epoch 1 "
        "stages.2.loss_weights.colour 0.5"
    ).split()
    engine = prepare(load_config(None, {}, pairs))()
    assert engine.history[-1]["colour"] > 0
    assert next(iter(engine.train_loader))["colour"].mean() > 0.5  # the offset of input_options
    assert (tmp_path / "results.json").is_file()


def test_a_data_set_that_does_not_make_the_input(market_folder, tmp_path):
    manager = torchreids_manager(market_folder, sources="market1501")
    with pytest.raises(ValueError, match=r"Market1501.*'colour'.*market1501_masked.*convert_masks"):
        make_engine(manager).run(save_dir=tmp_path)


def test_an_input_that_is_in_no_table(market_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(ColourNet, "training_inputs", ("depth",))
    with pytest.raises(ValueError, match=r"'depth': expected one of mask, textures, colour"):
        make_engine(our_manager(market_folder)).run(save_dir=tmp_path)


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (nn.DataParallel, r"inside DataParallel; pass model\.module"),
        (torch.compile, r"pass the model before torch\.compile"),
    ],
)
def test_a_wrapped_model_is_refused(market_folder, wrap, message):
    manager = our_manager(market_folder)
    with pytest.raises(ValueError, match=message):
        StagedEngine(
            manager, wrap(ColourNet(3)), criterion=ColourCriterion(), stages=colour_stages()
        )


def test_a_weight_of_an_unknown_term(market_folder):
    stages = [Stage(max_epoch=1), Stage(max_epoch=1, loss_weights={"color": 1.0})]
    message = r"stages\.2\.loss_weights\.color: .* expected one of identity, colour"
    with pytest.raises(ValueError, match=message):
        StagedEngine(
            our_manager(market_folder), ColourNet(3), criterion=ColourCriterion(), stages=stages
        )
