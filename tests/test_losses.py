"""Losses against plain loops, against torchreid, and at their edges."""

import pytest
import torch
import torchreid
from naive import cosine_of_pairs, farthest_minus_nearest, pixel_entropies

from magnifier_plugin.losses.functional import (
    batch_hard_triplet,
    segmentation_cross_entropy,
    semantic_diversity,
)
from magnifier_plugin.losses.magnifier import SemanticDiversityLoss

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def naive_triplet(features, pids, margin):
    gaps = farthest_minus_nearest(features, pids)
    return sum(max(0.0, float(gap) + margin) for gap in gaps) / len(gaps)


def naive_diversity(regions, eps):
    cosines = [float(cosine) for sample in regions for cosine in cosine_of_pairs(sample, eps)]
    return sum(cosines) / len(cosines)


def naive_segmentation(logits, labels):
    """The class-balanced and the plain mean."""
    of_region = pixel_entropies(logits, labels).values()
    means = [sum(values) / len(values) for values in of_region]
    everything = [value for values in of_region for value in values]
    return float(sum(means) / len(means)), float(sum(everything) / len(everything))


class TestTriplet:
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_equals_the_loop(self, dtype):
        features = torch.randn(16, 8, generator=torch.manual_seed(0)).to(dtype)
        pids = torch.arange(4).repeat_interleave(4)
        expected = naive_triplet(features.double(), pids.tolist(), 0.3)
        assert float(batch_hard_triplet(features, pids)) == pytest.approx(expected, rel=1e-4)

    def test_equals_torchreid(self):
        features = torch.randn(32, 64, generator=torch.manual_seed(1))
        pids = torch.randint(0, 6, (32,), generator=torch.manual_seed(1))
        for margin in (0.0, 0.3, 1.0):
            theirs = torchreid.losses.TripletLoss(margin=margin)(features, pids)
            ours = batch_hard_triplet(features, pids, margin)
            torch.testing.assert_close(ours, theirs)

    def test_one_identity_is_zero_and_back_propagates(self):
        features = torch.randn(8, 4, requires_grad=True)
        loss = batch_hard_triplet(features, torch.zeros(8, dtype=torch.int64))
        loss.backward()
        assert loss == 0
        assert torch.equal(features.grad, torch.zeros_like(features))

    def test_equal_images_have_a_finite_gradient(self):
        features = torch.ones(4, 3, requires_grad=True)
        batch_hard_triplet(features, torch.tensor([0, 0, 1, 1])).backward()
        assert features.grad.isfinite().all()

    def test_huge_features_stay_finite(self):
        features = (1e15 * torch.randn(8, 4)).requires_grad_()
        loss = batch_hard_triplet(features, torch.arange(2).repeat(4))
        loss.backward()
        assert loss.isfinite()
        assert features.grad.isfinite().all()

    def test_gradient(self):
        features = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
        pids = torch.tensor([0, 0, 1, 1, 2, 2])
        assert torch.autograd.gradcheck(lambda x: batch_hard_triplet(x, pids, 2.0), features)

    def test_shapes_are_checked(self):
        with pytest.raises(ValueError, match=r"features \[B, D\] and pids \[B\]"):
            batch_hard_triplet(torch.zeros(4, 2), torch.zeros(3))


class TestDiversity:
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_equals_the_loop(self, dtype):
        regions = torch.randn(3, 5, 7, generator=torch.manual_seed(0)).to(dtype)
        regions[0, 2] = 0
        expected = naive_diversity(regions.double(), 1e-6)
        assert float(semantic_diversity(regions)) == pytest.approx(expected, rel=1e-4, abs=1e-6)

    def test_bounds(self):
        same = torch.ones(2, 4, 3)
        assert float(semantic_diversity(same)) == pytest.approx(1)
        assert float(semantic_diversity(torch.eye(4).expand(2, 4, 4))) == 0
        opposite = torch.stack([torch.ones(3), -torch.ones(3)]).unsqueeze(0)
        assert float(semantic_diversity(opposite)) == pytest.approx(-1)

    def test_absent_regions_are_zero_with_a_finite_gradient(self):
        regions = torch.zeros(2, 8, 4, requires_grad=True)
        loss = semantic_diversity(regions)
        loss.backward()
        assert loss == 0
        assert regions.grad.isfinite().all()
        half = torch.rand(2, 8, 4)
        half[:, ::2] = 0
        half.requires_grad_()
        semantic_diversity(half).backward()
        assert half.grad.isfinite().all()

    @pytest.mark.parametrize("scale", [1e-30, 1e-4, 1e4, 1e30])
    def test_any_scale_is_finite_and_eps_bounds_the_denominator(self, scale):
        base = torch.rand(2, 4, 5, generator=torch.manual_seed(3)) + 0.1
        regions = (base * scale).requires_grad_()
        loss = semantic_diversity(regions)
        loss.backward()
        assert regions.grad.isfinite().all()
        expected = naive_diversity(base.double() * scale, 1e-6)
        assert float(loss.detach()) == pytest.approx(expected, rel=1e-4, abs=1e-12)

    def test_gradient(self):
        regions = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(semantic_diversity, regions)

    def test_module_floors(self):
        opposite = torch.stack([torch.ones(3), -torch.ones(3)]).unsqueeze(0)
        assert SemanticDiversityLoss()(opposite) < 0
        assert SemanticDiversityLoss(floor=True)(opposite) == 0

    @pytest.mark.parametrize("shape", [(2, 3), (2, 1, 4)])
    def test_shapes_are_checked(self, shape):
        with pytest.raises(ValueError, match="K >= 2"):
            semantic_diversity(torch.zeros(shape))


class TestSegmentation:
    def labels(self):
        labels = torch.randint(0, 8, (2, 6, 3), generator=torch.manual_seed(0), dtype=torch.uint8)
        labels[0, :3] = 255
        labels[labels == 5] = 255
        return labels

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_equals_the_loop(self, dtype):
        logits = torch.randn(2, 8, 6, 3, generator=torch.manual_seed(1)).to(dtype)
        balanced, plain = naive_segmentation(logits.double(), self.labels())
        ours = segmentation_cross_entropy(logits, self.labels())
        assert float(ours) == pytest.approx(balanced, rel=1e-4)
        ours = segmentation_cross_entropy(logits, self.labels(), class_balanced=False)
        assert float(ours) == pytest.approx(plain, rel=1e-4)

    def test_full_maps_are_scaled_without_shift(self):
        labels = torch.arange(8, dtype=torch.uint8).repeat_interleave(4)
        labels = labels.view(1, 1, 32).expand(1, 32, 32).contiguous()
        logits = torch.zeros(1, 8, 8, 8)
        logits[0, torch.arange(8), :, torch.arange(8)] = 50
        assert float(segmentation_cross_entropy(logits, labels)) == pytest.approx(0, abs=1e-5)

    @pytest.mark.parametrize("balanced", [True, False])
    def test_unknown_maps_are_zero_and_back_propagate(self, balanced):
        logits = torch.randn(2, 8, 4, 2, requires_grad=True)
        labels = torch.full((2, 8, 4), 255, dtype=torch.uint8)
        loss = segmentation_cross_entropy(logits, labels, balanced)
        loss.backward()
        assert loss == 0
        assert torch.equal(logits.grad, torch.zeros_like(logits))

    def test_huge_logits_stay_finite(self):
        logits = (1e30 * torch.randn(2, 8, 6, 3)).requires_grad_()
        loss = segmentation_cross_entropy(logits, self.labels())
        loss.backward()
        assert loss.isfinite()
        assert logits.grad.isfinite().all()

    def test_gradient(self):
        logits = torch.randn(2, 8, 6, 3, dtype=torch.float64, requires_grad=True)
        labels = self.labels()
        assert torch.autograd.gradcheck(lambda x: segmentation_cross_entropy(x, labels), logits)

    def test_shapes_are_checked(self):
        with pytest.raises(ValueError, match="labels"):
            segmentation_cross_entropy(torch.zeros(2, 8, 4, 4), torch.zeros(3, 4, 4))
