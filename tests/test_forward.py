"""A training step and an evaluation of a tiny network against plain loops, number by number."""

import pytest
import torch
from naive_magnifiernet import NaiveMagnifierNet, criterion
from tiny import drawn, tiny_model

from magnifier_plugin.losses.magnifier import MagnifierCriterion

PIDS = torch.tensor([0, 2, 0, 2])
MARGIN = 5.0  # wide enough for triplets of every branch to count
KEPT = (0, 2, 4, 5, 6)
FUSIONS = ["gru", "lstm", "concat", "concat-reduced"]
RESCALINGS = ["bilinear", "nearest", "nearest-corner"]
# The weights of each branch's terms, to let only its gradient reach the backbone.
ALL_TERMS = dict.fromkeys(MagnifierCriterion().weights, 0.0)
ALONE = [{name: 1.0} for name in ALL_TERMS] + [{"cls_regions": 0.0125, "sd": 0.01, "mask": 2.0}]


@pytest.fixture(autouse=True)
def fixed_draw(monkeypatch):
    monkeypatch.setattr(
        "magnifier_plugin.models.branches.draw_kept_regions", lambda *_: drawn(KEPT)
    )


def network(**options):
    """A float64 network; all tensors, even shifts and statistics, differ from their defaults."""
    torch.manual_seed(0)
    model = tiny_model(**options).double()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if "neck.bias" not in name and tensor.is_floating_point():
                noise = torch.rand_like(tensor) if "var" in name else torch.randn_like(tensor)
                tensor += 0.2 * noise
    return model


def batch():
    """Images, and label maps that change within the 8 × 8 pixels of a cell, some unknown."""
    generator = torch.manual_seed(1)
    images = torch.randn(4, 3, 64, 32, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 8, (4, 64, 32), generator=generator, dtype=torch.uint8)
    labels[0, :16] = 255
    labels[:, 32:][labels[:, 32:] == 3] = 255
    return images, labels


def leaves(model):
    """A copy of the state dict whose parameters require gradients."""
    parameters = {name for name, _ in model.named_parameters()}
    return {
        name: tensor.detach().clone().requires_grad_(name in parameters)
        for name, tensor in model.state_dict().items()
    }


@pytest.mark.parametrize("authors_bias", [False, True])
@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("mask_rescaling", RESCALINGS)
def test_evaluation(fusion, mask_rescaling, authors_bias):
    model = network(fusion=fusion, mask_rescaling=mask_rescaling, authors_bias=authors_bias)
    images, _ = batch()
    naive = NaiveMagnifierNet(
        model.state_dict(), training=False, fusion=fusion, rescaling=mask_rescaling
    )
    torch.testing.assert_close(model.eval()(images), naive(images))


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("mask_rescaling", RESCALINGS)
def test_training_step(fusion, mask_rescaling):
    model = network(fusion=fusion, mask_rescaling=mask_rescaling)
    images, labels = batch()
    state = leaves(model)
    ours = MagnifierCriterion(margin=MARGIN)
    result = ours(model(images, labels), PIDS, {"mask": labels}, {"sd": 0.01})
    naive = NaiveMagnifierNet(
        state, training=True, fusion=fusion, rescaling=mask_rescaling, kept=KEPT
    )
    losses, total = criterion(naive(images, labels), PIDS, labels, MARGIN, gamma=0.01)
    assert set(result.terms) == set(losses)
    for name, term in result.terms.items():
        torch.testing.assert_close(term.loss, losses[name], msg=lambda m, name=name: name + m)
    torch.testing.assert_close(result.total, total)

    result.total.backward()
    total.backward()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.step()
    with torch.no_grad():
        stepped = {
            name: tensor - 0.1 * tensor.grad if tensor.requires_grad else tensor
            for name, tensor in state.items()
        }
    updated = model.state_dict()
    assert set(updated) == set(stepped)
    for name, tensor in stepped.items():  # including the running statistics
        if "num_batches_tracked" not in name:
            torch.testing.assert_close(updated[name], tensor, msg=lambda m, name=name: name + m)


@pytest.mark.parametrize("weights", ALONE, ids=lambda weights: "+".join(weights))
def test_each_term_trains_the_backbone(weights):
    model = network()
    images, labels = batch()
    state = leaves(model)
    ours = MagnifierCriterion(margin=MARGIN)
    result = ours(model(images, labels), PIDS, {"mask": labels}, ALL_TERMS | weights)
    assert set(result.terms) == set(weights)
    result.total.backward()
    naive = NaiveMagnifierNet(state, training=True, kept=KEPT)
    losses, _ = criterion(naive(images, labels), PIDS, labels, MARGIN)
    sum(weight * losses[name] for name, weight in weights.items()).backward()
    for name in ("backbone.conv1.weight", "backbone.layer4.weight"):
        ours, expected = model.get_parameter(name).grad, state[name].grad
        assert (ours is None) == (expected is None), name
        if expected is not None:
            assert expected.abs().max() > 0
            torch.testing.assert_close(ours, expected)
