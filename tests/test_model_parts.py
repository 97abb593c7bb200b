"""Region pooling, SAB's draw, the branches and the heads of MagnifierNet, tested separately."""

import math

import pytest
import torch
from tiny import drawn, tiny_model
from torch import nn

from magnifier_plugin.engine.sync_batchnorm import AllReduceBatchNorm, convert_sync_batchnorm
from magnifier_plugin.models.branches import GlobalBranch, SemanticAdversarialBranch, build_fusion
from magnifier_plugin.models.heads import BNNeck
from magnifier_plugin.models.mask_module import MaskModule, SegmentationHead
from magnifier_plugin.models.pooling import (
    RESCALINGS,
    fill_unknown,
    region_masks,
    region_max_pool,
    rescale_labels,
)
from magnifier_plugin.models.precision import at_least_float32, mean_in_float32
from magnifier_plugin.models.sampling import check_sampling, draw_kept_regions
from magnifier_plugin.regions import BODY_REGIONS, LOWER_REGIONS, UPPER_REGIONS

CLASSES = 5


class TestPooling:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("rescaling", RESCALINGS)
    @pytest.mark.parametrize("signed", [False, True])
    def test_equals_the_plain_product(self, dtype, rescaling, signed):
        generator = torch.manual_seed(0)
        features = torch.randn(3, 5, 6, 4, generator=generator, dtype=torch.float64).to(dtype)
        if not signed:
            features = features.relu()
        labels = torch.randint(0, 8, (3, 12, 8), generator=generator)
        labels[0] = 0  # one region everywhere, the others absent
        masks = region_masks(labels, (6, 4), rescaling, dtype)
        expected = (features.unsqueeze(1) * masks.unsqueeze(2)).amax(dim=(3, 4))
        torch.testing.assert_close(region_max_pool(features, masks), expected, rtol=0, atol=0)

    def test_gradient_is_the_plain_products(self):
        features = torch.rand(2, 5, 6, 4, dtype=torch.float64) + 0.1  # no ties at 0
        masks = region_masks(torch.randint(0, 8, (2, 12, 8)), (6, 4), dtype=torch.float64)
        grads = []
        for pool in (region_max_pool, lambda f, m: (f.unsqueeze(1) * m.unsqueeze(2)).amax((3, 4))):
            leaf = features.clone().requires_grad_()
            pooled = pool(leaf, masks)
            (pooled * torch.arange(5)).sum().backward()
            grads.append(leaf.grad)
        torch.testing.assert_close(*grads)
        leaf = features[:, :2, :3, :3].clone().requires_grad_()
        small = masks[:, :, :3, :3]
        assert torch.autograd.gradcheck(lambda x: region_max_pool(x, small), leaf)

    def test_absent_region_is_zero_and_back_propagates(self):
        features = torch.rand(1, 3, 2, 2, requires_grad=True)
        pooled = region_max_pool(features, torch.zeros(1, 8, 2, 2))
        pooled.sum().backward()
        assert torch.equal(pooled, torch.zeros(1, 8, 3))
        assert torch.equal(features.grad, torch.zeros_like(features))

    def test_channels_last_is_the_same(self):
        features = torch.rand(2, 16, 6, 4)
        masks = region_masks(torch.randint(0, 8, (2, 12, 8)), (6, 4))
        last = features.contiguous(memory_format=torch.channels_last)
        assert torch.equal(region_max_pool(features, masks), region_max_pool(last, masks))

    @pytest.mark.parametrize("shape", [(2, 8, 6, 5), (3, 8, 6, 4), (2, 6, 4)])
    def test_shapes_are_checked(self, shape):
        with pytest.raises(ValueError, match="expected features"):
            region_max_pool(torch.zeros(2, 3, 6, 4), torch.zeros(shape))

    def test_masks_sum_to_one_and_weights_are_quarters(self):
        masks = region_masks(torch.randint(0, 8, (2, 12, 8)), (6, 4))
        torch.testing.assert_close(masks.sum(1), torch.ones(2, 6, 4))
        assert torch.equal(masks * 4, (masks * 4).round())

    def test_rescaling_is_checked(self):
        with pytest.raises(ValueError, match="bicubic"):
            region_masks(torch.zeros(1, 4, 4, dtype=torch.uint8), (2, 2), "bicubic")

    def test_labels_are_scaled_without_shift(self):
        labels = torch.arange(9, dtype=torch.uint8).view(1, 1, 9)
        assert rescale_labels(labels, (1, 3)).flatten().tolist() == [1, 4, 7]
        assert rescale_labels(labels, (1, 3), "nearest-corner").flatten().tolist() == [0, 3, 6]

    @pytest.mark.parametrize("rescaling", RESCALINGS)
    def test_label_maps_are_read_at_the_centres_of_the_logits_cells(self, rescaling):
        cells = torch.randint(0, 8, (2, 6, 4), dtype=torch.uint8)  # the logits' size
        labels = cells.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2)
        labels[:, ::8, ::8] = (cells + 1) % 8  # the upper left pixels
        _, masks = MaskModule(5, rescaling=rescaling)(torch.rand(2, 5, 3, 2), labels)
        assert torch.equal(masks, region_masks(cells, (3, 2), rescaling))

    @pytest.mark.parametrize(
        ("rescaling", "taken"), [("nearest", [3, 6]), ("nearest-corner", [0, 1])]
    )
    def test_hard_masks_take_one_pixel_of_four(self, rescaling, taken):
        labels = torch.tensor([[[0, 7, 1, 4], [2, 3, 5, 6]]])
        masks = region_masks(labels, (1, 2), rescaling)
        assert masks.argmax(1).flatten().tolist() == taken
        assert torch.equal(masks.sum(1), torch.ones(1, 1, 2))

    def test_unknown_pixels_take_the_prediction(self):
        labels = torch.tensor([[[3, 255]]], dtype=torch.uint8)
        assert fill_unknown(labels, torch.tensor([[[1, 5]]])).flatten().tolist() == [3, 5]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
def test_traced_networks_have_no_scatter():
    """ONNX has it from opset 16 on only."""
    features, masks = torch.rand(2, 4, 6, 3), torch.rand(2, 8, 6, 3)
    traced = torch.jit.trace(region_max_pool, (features, masks))
    assert "scatter" not in str(traced.graph)
    torch.testing.assert_close(traced(features * 2, masks), region_max_pool(features * 2, masks))


def ids(kept):
    assert kept.shape == (8, 1, 1)
    assert set(kept.flatten().tolist()) <= {0, 1}
    return tuple(kept.flatten().nonzero().flatten().tolist())


class TestSampling:
    @pytest.mark.parametrize("keep", [2, 4, 6])
    def test_torso_keeps_half_of_each(self, keep):
        draws = {ids(draw_kept_regions("torso", keep)) for _ in range(60)}
        assert len(draws) > 1
        for kept in draws:
            assert kept[0] == 0
            assert len(set(kept) & set(UPPER_REGIONS)) == keep // 2
            assert len(set(kept) & set(LOWER_REGIONS)) == keep // 2

    @pytest.mark.parametrize("keep", [1, 3, 7])
    def test_baseline_keeps_any(self, keep):
        draws = {ids(draw_kept_regions("baseline", keep)) for _ in range(60)}
        assert all(len(set(kept) & set(BODY_REGIONS)) == keep == len(kept) - 1 for kept in draws)
        assert len(draws) > 1 or keep == 7

    @pytest.mark.parametrize(
        ("sampling", "keep", "reason"),
        [
            ("torso", 3, "even"),
            ("torso", 8, "even"),
            ("torso", 0, "even"),
            ("baseline", 0, "1..7"),
            ("baseline", 8, "1..7"),
            ("legs", 4, "expected one of"),
        ],
    )
    def test_what_cannot_be_drawn_is_refused(self, sampling, keep, reason):
        with pytest.raises(ValueError, match=reason):
            check_sampling(sampling, keep)
        with pytest.raises(ValueError, match=reason):
            tiny_model(sampling=sampling, keep=keep)

    def test_dropped_regions_are_zeroed_in_training_only(self, monkeypatch):
        branch = SemanticAdversarialBranch(16, CLASSES)
        branch.bottleneck = nn.Identity()
        branch.reduction = nn.Identity()
        monkeypatch.setattr(
            "magnifier_plugin.models.branches.draw_kept_regions", lambda *_: drawn((0, 1))
        )
        layer3 = torch.rand(2, 16, 4, 2) + 1
        layer3[:, :, 3] += 10  # the largest values are in region 7
        masks = torch.zeros(2, 8, 4, 2)
        masks[:, 1, :3], masks[:, 7, 3] = 1, 1
        output = branch(layer3, layer3, masks, training=True)
        assert torch.equal(output.feature, layer3[:, :, :3].amax((2, 3)))
        assert float(output.share) == 0.75
        whole = branch(layer3, layer3, masks, training=False).feature
        assert torch.equal(whole, layer3.amax((2, 3)))


class TestHeads:
    def test_bnneck_never_shifts_even_if_all_layers_are_opened(self):
        neck = BNNeck(4)
        assert [name for name, _ in neck.named_parameters()] == ["weight"]
        for parameter in neck.parameters():
            parameter.requires_grad = True
        neck(torch.randn(8, 4)).pow(2).sum().backward()
        assert torch.equal(neck.bias, torch.zeros(4))
        assert "bias" in neck.state_dict()

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    def test_conversion_to_synchronised_keeps_keys_and_numbers(self, dtype):
        model = tiny_model().to(dtype).eval()
        images = torch.randn(2, 3, 64, 32, dtype=dtype)
        with torch.no_grad():
            before = model(images)
            keys = set(model.state_dict())
            converted = convert_sync_batchnorm(model)
            assert set(converted.state_dict()) == keys
            kinds = {type(m) for m in converted.modules()}
            assert AllReduceBatchNorm in kinds
            assert not kinds & {BNNeck, nn.BatchNorm1d, nn.BatchNorm2d}
            assert "branches.G.head.neck.bias" not in dict(converted.named_parameters())
            torch.testing.assert_close(converted(images), before)

    def test_conversion_to_synchronised_keeps_the_tensors(self):
        """An optimiser that was built before trains the same parameters."""
        model = tiny_model()
        model.branches["G"].head.neck.weight.requires_grad = False
        before = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        convert_sync_batchnorm(model)
        after = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        assert before.keys() == after.keys()
        assert all(after[name] is tensor for name, tensor in before.items())
        assert not model.branches["G"].head.neck.weight.requires_grad

    @pytest.mark.parametrize(
        ("init", "std"), [("kaiming", math.sqrt(2 / (64 * 3 * 3))), ("normal", 0.001)]
    )
    def test_first_weights_of_the_deconvolution(self, init, std):
        weight = SegmentationHead(64, deconvolution_init=init).upsample.weight
        assert float(weight.detach().std()) == pytest.approx(std, rel=0.05)


class TestFusions:
    def test_reduced_regions_are_slices_of_the_concatenation(self):
        pooled = torch.rand(2, 8, 16)
        feature, regions = build_fusion("concat-reduced", 16, authors_bias=False)(pooled)
        assert torch.equal(regions.flatten(1), feature)
        fusion = build_fusion("concat", 16, authors_bias=False)
        assert fusion(pooled)[1] is pooled

    @pytest.mark.parametrize("fusion", ["concat", "concat-reduced"])
    @pytest.mark.parametrize("authors_bias", [False, True])
    def test_only_the_papers_reductions_have_a_bias(self, fusion, authors_bias):
        reductions = build_fusion(fusion, 16, authors_bias=authors_bias).reductions
        assert (reductions.bias is None) == authors_bias


class TestPrecision:
    @pytest.mark.parametrize(
        ("dtype", "raised"),
        [
            (torch.float16, torch.float32),
            (torch.bfloat16, torch.float32),
            (torch.float32, torch.float32),
            (torch.float64, torch.float64),
        ],
    )
    def test_half_becomes_float32_and_double_is_kept(self, dtype, raised):
        assert at_least_float32(torch.ones(2, dtype=dtype)).dtype == raised
        assert mean_in_float32(torch.ones(2, dtype=dtype)).dtype == raised

    def test_global_pooling_is_not_rounded_to_bf16(self):
        layer4 = torch.rand(2, 8, 24, 12).bfloat16()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            feature = GlobalBranch(8, CLASSES)(layer4, layer4, None, training=True).feature
        torch.testing.assert_close(feature, layer4.double().mean((2, 3)).float())
