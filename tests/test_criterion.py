"""MagnifierNet's criterion: its terms, their weights, and what each option changes."""

import pytest
import torch
from torch.nn import functional as F

from magnifier_plugin.losses.functional import (
    batch_hard_triplet,
    segmentation_cross_entropy,
    semantic_diversity,
)
from magnifier_plugin.losses.magnifier import MagnifierCriterion
from magnifier_plugin.losses.terms import CriterionOutput, Term, override_weights
from magnifier_plugin.models.branches import BranchOutput
from magnifier_plugin.models.magnifiernet import MagnifierOutput

PIDS = torch.tensor([0, 0, 1, 2])
MASKS = torch.randint(0, 8, (4, 12, 8), generator=torch.manual_seed(0), dtype=torch.uint8)
TARGETS = {"mask": MASKS}
SHARES = {"SAB": torch.tensor(0.5), "SFB": torch.linspace(0, 1, 8)}
NAMES = {f"{kind}_{name}" for kind in ("cls", "tri") for name in ("G", "SAB", "SFB")}
NAMES |= {"cls_regions", "sd", "mask"}


def magnifier_output(requires_grad=False):
    """An output with random numbers, B 4, D 6, N 3."""
    torch.manual_seed(0)

    def numbers(*shape):
        return torch.randn(*shape, requires_grad=requires_grad)

    def branch(**extra):
        return BranchOutput(numbers(4, 6), numbers(4, 6), numbers(4, 3), **extra)

    branches = {
        "G": branch(),
        "SAB": branch(share=SHARES["SAB"]),
        "SFB": branch(
            share=SHARES["SFB"], regions=numbers(4, 8, 6), region_logits=numbers(4, 8, 3)
        ),
    }
    return MagnifierOutput(branches, numbers(4, 8, 6, 4))


def smoothed(logits, smoothing=0.1):
    return F.cross_entropy(logits, PIDS, label_smoothing=smoothing)


def region_losses(output, smoothing=0.1):
    logits = output.branches["SFB"].region_logits.unbind(1)
    return torch.stack([smoothed(x, smoothing) for x in logits])


def evaluate(output=None, weights=None, **options):
    return MagnifierCriterion(**options)(output or magnifier_output(), PIDS, TARGETS, weights)


def assert_losses(result, expected):
    assert set(result.terms) >= set(expected)
    for name, loss in expected.items():
        torch.testing.assert_close(
            result.terms[name].loss, loss, msg=lambda m, name=name: f"{name}: {m}"
        )


class TestTerms:
    def test_the_total_is_the_sum_of_weight_times_loss(self):
        terms = {
            "a": Term(torch.tensor(2.0), 0.5),
            "b": Term(torch.tensor(3.0), torch.tensor(-1.0)),
        }
        assert CriterionOutput(terms, {}).total == 0.5 * 2 - 3

    def test_no_term_is_an_error(self):
        with pytest.raises(ValueError, match="weight other than 0, found none"):
            _ = CriterionOutput({}, {"acc": torch.tensor(1.0)}).total

    def test_weights_are_overridden_by_name(self):
        defaults = {"cls": 1.0, "tri": 2.0}
        assert override_weights(defaults, {"tri": 0.0}) == {"cls": 1.0, "tri": 0.0}
        assert override_weights(defaults, None) == defaults
        with pytest.raises(ValueError, match="among cls, tri; got TRI"):
            override_weights(defaults, {"TRI": 1.0})


class TestMagnifierCriterion:
    def test_terms_and_weights_of_the_paper(self):
        output = magnifier_output()
        result = evaluate(output, weights={"sd": 2e-3})
        expected = {"cls_regions": region_losses(output).sum()}
        expected["sd"] = semantic_diversity(output.branches["SFB"].regions)
        expected["mask"] = segmentation_cross_entropy(output.mask_logits, MASKS)
        for name, branch in output.branches.items():
            expected[f"cls_{name}"] = smoothed(branch.logits)
            expected[f"tri_{name}"] = batch_hard_triplet(branch.feature, PIDS)
        assert set(result.terms) == set(expected) == NAMES
        assert_losses(result, expected)
        weights = {name: term.weight for name, term in result.terms.items()}
        ones = {name: 1.0 for name in NAMES if name[:3] in ("cls", "tri")}
        assert weights == {**ones, "cls_regions": 0.0125, "sd": 2e-3, "mask": 2.0}
        total = sum(weight * expected[name] for name, weight in weights.items())
        torch.testing.assert_close(result.total, total)

    def test_without_a_weight_sd_is_not_trained(self):
        assert set(evaluate().terms) == NAMES - {"sd"}

    @pytest.mark.parametrize("name", sorted(NAMES))
    def test_each_weight_can_be_overridden(self, name):
        default = evaluate(weights={"sd": 0.5})
        doubled = {name: 2 * default.terms[name].weight}
        result = evaluate(weights={"sd": 0.5} | doubled)
        assert result.terms[name].weight == doubled[name]
        expected = default.total + default.terms[name].weight * default.terms[name].loss
        torch.testing.assert_close(result.total, expected)

    @pytest.mark.parametrize("name", sorted(NAMES))
    def test_a_term_of_weight_0_is_neither_listed_nor_back_propagated(self, name):
        output = magnifier_output(requires_grad=True)
        alone = dict.fromkeys(NAMES, 0.0) | {name: 1.0}
        result = evaluate(output, weights=alone)
        assert set(result.terms) == {name}
        result.total.backward()
        sfb = output.branches["SFB"]
        tensors = {"sd": sfb.regions, "cls_regions": sfb.region_logits, "mask": output.mask_logits}
        for branch_name, branch in output.branches.items():
            tensors |= {f"cls_{branch_name}": branch.logits, f"tri_{branch_name}": branch.feature}
        assert {key for key, tensor in tensors.items() if tensor.grad is not None} == {name}

    def test_a_term_of_weight_0_is_not_computed(self, monkeypatch):
        def fail(*_):
            raise AssertionError("computed")

        for function in (
            "batch_hard_triplet",
            "segmentation_cross_entropy",
            "semantic_diversity",
        ):
            monkeypatch.setattr(f"magnifier_plugin.losses.magnifier.{function}", fail)
        result = evaluate(weight_t=0.0, mask_weight=0.0)
        assert set(result.terms) == {"cls_G", "cls_SAB", "cls_SFB", "cls_regions"}
        monkeypatch.setattr("magnifier_plugin.losses.magnifier.identity_loss", fail)
        assert evaluate(weight_x=0.0, weight_t=0.0, mask_weight=0.0, region_weight=0.0).terms == {}

    def test_every_weight_0_is_an_error(self):
        result = evaluate(weights=dict.fromkeys(NAMES, 0.0))
        with pytest.raises(ValueError, match="weight other than 0"):
            _ = result.total

    def test_unknown_weights_are_an_error(self):
        with pytest.raises(ValueError, match=r"among cls_G.*got gamma"):
            evaluate(weights={"gamma": 0.1})

    @pytest.mark.parametrize(
        ("option", "weights"),
        [
            ({"weight_x": 0.5}, {"cls_G": 0.5, "cls_SAB": 0.5, "cls_SFB": 0.5}),
            ({"weight_t": 0.5}, {"tri_G": 0.5, "tri_SAB": 0.5, "tri_SFB": 0.5}),
            ({"region_weight": 0.5}, {"cls_regions": 0.5}),
            ({"mask_weight": 0.5}, {"mask": 0.5}),
        ],
    )
    def test_options_set_weights(self, option, weights):
        default, changed = evaluate().terms, evaluate(**option).terms
        expected = {name: term.weight for name, term in default.items()} | weights
        assert {name: term.weight for name, term in changed.items()} == expected
        for name, term in changed.items():
            assert torch.equal(term.loss, default[name].loss)

    def test_label_smoothing_and_margin_arrive_everywhere(self):
        output = magnifier_output()
        result = evaluate(output, label_smoothing=0.4, margin=7.0)
        expected = {"cls_regions": region_losses(output, 0.4).sum()}
        for name, branch in output.branches.items():
            expected[f"cls_{name}"] = smoothed(branch.logits, 0.4)
            expected[f"tri_{name}"] = batch_hard_triplet(branch.feature, PIDS, 7.0)
        assert_losses(result, expected)

    def test_mask_loss_over_pixels(self):
        output = magnifier_output()
        plain = segmentation_cross_entropy(output.mask_logits, MASKS, class_balanced=False)
        assert_losses(evaluate(output, class_balanced_mask=False), {"mask": plain})

    def test_sab_without_its_triplet_loss(self):
        assert set(evaluate(sab_triplet=False).terms) == NAMES - {"sd", "tri_SAB"}

    @pytest.mark.parametrize("floor", [False, True])
    def test_floor_of_the_diversity(self, floor):
        output = magnifier_output()
        regions = torch.cat([torch.ones(4, 4, 6), -torch.ones(4, 4, 6)], dim=1)
        branch = output.branches["SFB"]._replace(regions=regions)
        output = output._replace(branches={"SFB": branch})
        loss = evaluate(output, weights={"sd": 1.0}, sd_floor=floor).terms["sd"].loss
        assert (loss == 0) if floor else (loss < 0)

    def test_share_weights(self):
        output = magnifier_output()
        plain, shared = evaluate(output).terms, evaluate(output, share_weighted=True).terms
        for name in ("cls_SAB", "tri_SAB"):
            assert torch.equal(shared[name].loss, plain[name].loss)
            torch.testing.assert_close(shared[name].weight, torch.sigmoid(SHARES["SAB"]))
        regions = (torch.sigmoid(SHARES["SFB"]) * region_losses(output)).sum()
        torch.testing.assert_close(shared["cls_regions"].loss, regions)
        assert shared["cls_regions"].weight == 0.0125
        for name in set(plain) - {"cls_SAB", "tri_SAB", "cls_regions"}:
            assert shared[name] == plain[name]

    def test_terms_follow_the_branches_that_are_built(self):
        output = magnifier_output()
        alone = MagnifierOutput({"G": output.branches["G"]}, None)
        assert set(evaluate(alone).terms) == {"cls_G", "tri_G"}
        result = MagnifierCriterion()(output, PIDS)  # without label maps
        assert set(result.terms) == NAMES - {"sd", "mask"}

    def test_one_identity_batch_trains(self):
        output = magnifier_output(requires_grad=True)
        result = MagnifierCriterion()(output, torch.zeros(4, dtype=torch.int64), TARGETS)
        result.total.backward()
        assert result.total.isfinite()
        assert result.terms["tri_G"].loss == 0
        assert output.branches["G"].logits.grad.isfinite().all()

    def test_accuracy_is_that_of_the_first_branch(self):
        output = magnifier_output()
        right = output.branches["G"]._replace(logits=F.one_hot(PIDS, 3).float())
        output = output._replace(branches={**output.branches, "G": right})
        assert evaluate(output).metrics == {"acc": torch.tensor(100.0)}
