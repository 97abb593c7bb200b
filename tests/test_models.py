"""MagnifierNet's parts against plain products, and the whole as torchreid uses it."""

import pytest
import torch
import torchvision
from torch import nn

from magnifier_plugin import build_model
from magnifier_plugin.models import backbone as backbones
from magnifier_plugin.models.backbone import Backbone, load_backbone_weights
from magnifier_plugin.models.branches import SemanticAdversarialBranch
from magnifier_plugin.models.heads import BNNeck, SyncBNNeck, convert_sync_batchnorm
from magnifier_plugin.models.magnifiernet import MagnifierNet, warn_no_masks_are_learnt
from magnifier_plugin.models.pooling import (
    fill_unknown,
    region_masks,
    region_max_pool,
    rescale_labels,
)
from magnifier_plugin.models.sampling import check_sampling, sample_kept_regions
from magnifier_plugin.regions import BODY_REGIONS, LOWER_REGIONS, UPPER_REGIONS

CLASSES = 5
SIZE = (64, 32)


def build(loss="magnifier", **options):
    torch.manual_seed(0)
    return build_model("magnifiernet_resnet18", CLASSES, loss, pretrained=False, **options)


def batch(size=4):
    generator = torch.manual_seed(1)
    images = torch.randn(size, 3, *SIZE, generator=generator)
    labels = torch.randint(0, 8, (size, SIZE[0] // 8, SIZE[1] // 8), generator=generator)
    labels = labels.to(torch.uint8).repeat_interleave(8, 1).repeat_interleave(8, 2)
    return images, labels


class TestPooling:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("rescaling", ["bilinear", "nearest"])
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

    def test_unknown_pixels_take_the_prediction(self):
        labels = torch.tensor([[[3, 255]]], dtype=torch.uint8)
        assert fill_unknown(labels, torch.tensor([[[1, 5]]])).flatten().tolist() == [3, 5]


class TestSampling:
    @pytest.mark.parametrize("keep", [2, 4, 6])
    def test_torso_keeps_half_of_each(self, keep):
        drawn = {sample_kept_regions("torso", keep) for _ in range(60)}
        assert len(drawn) > 1
        for kept in drawn:
            assert kept[0] == 0
            assert len(set(kept) & set(UPPER_REGIONS)) == keep // 2
            assert len(set(kept) & set(LOWER_REGIONS)) == keep // 2

    @pytest.mark.parametrize("keep", [1, 3, 7])
    def test_baseline_keeps_any(self, keep):
        drawn = {sample_kept_regions("baseline", keep) for _ in range(60)}
        assert all(len(set(kept) & set(BODY_REGIONS)) == keep == len(kept) - 1 for kept in drawn)
        assert len(drawn) > 1 or keep == 7

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
            build(sampling=sampling, keep=keep)

    def test_dropped_regions_are_zeroed_in_training_only(self, monkeypatch):
        branch = SemanticAdversarialBranch(16, CLASSES)
        branch.bottleneck = nn.Identity()
        branch.reduction = nn.Identity()
        monkeypatch.setattr(
            "magnifier_plugin.models.branches.sample_kept_regions", lambda *_: (0, 1)
        )
        layer3 = torch.rand(2, 16, 4, 2) + 1
        layer3[:, :, 3] += 10  # the largest values lie in region 7
        masks = torch.zeros(2, 8, 4, 2)
        masks[:, 1, :3], masks[:, 7, 3] = 1, 1
        output = branch(layer3, layer3, masks)
        assert torch.equal(output.feature, layer3[:, :, :3].amax((2, 3)))
        assert float(output.share) == 0.75
        assert torch.equal(branch.eval()(layer3, layer3, masks).feature, layer3.amax((2, 3)))


class TestHeads:
    def test_bnneck_never_shifts_even_when_everything_is_opened(self):
        neck = BNNeck(4)
        assert [name for name, _ in neck.named_parameters()] == ["weight"]
        for parameter in neck.parameters():
            parameter.requires_grad = True
        neck(torch.randn(8, 4)).pow(2).sum().backward()
        assert torch.equal(neck.bias, torch.zeros(4))
        assert "bias" in neck.state_dict()

    def test_conversion_to_synchronised_keeps_keys_and_numbers(self):
        model = build().eval()
        images, _ = batch()
        with torch.no_grad():
            before = model(images)
            keys = set(model.state_dict())
            converted = convert_sync_batchnorm(model)
            assert set(converted.state_dict()) == keys
            kinds = {type(m) for m in converted.modules()}
            assert SyncBNNeck in kinds
            assert not kinds & {BNNeck, nn.BatchNorm1d, nn.BatchNorm2d}
            torch.testing.assert_close(converted(images), before)


class TestMagnifierNet:
    def test_resnet50_shapes_are_the_papers(self):
        model = MagnifierNet(CLASSES)
        assert model.feature_dim == 4096
        layer3, layer4 = model.backbone(torch.randn(1, 3, 384, 192))
        assert layer3.shape == (1, 1024, 24, 12)
        assert layer4.shape == (1, 2048, 24, 12)
        assert model.mask_module.head(layer4).shape == (1, 8, 48, 24)

    def test_output_shapes(self):
        output = build()(*batch())
        shapes = {name: tuple(branch.feature.shape) for name, branch in output.branches.items()}
        assert shapes == {"G": (4, 512), "SAB": (4, 256), "SFB": (4, 256)}
        assert all(branch.logits.shape == (4, CLASSES) for branch in output.branches.values())
        assert output.branches["SFB"].regions.shape == (4, 8, 256)
        assert output.branches["SFB"].region_logits.shape == (4, 8, CLASSES)
        assert output.mask_logits.shape == (4, 8, 8, 4)

    @pytest.mark.parametrize("options", [{}, {"fusion": "lstm"}, {"fusion": "concat"}])
    @pytest.mark.parametrize("authors_bias", [False, True])
    def test_every_parameter_gets_a_finite_gradient(self, options, authors_bias):
        from magnifier_plugin.losses.magnifier import MagnifierCriterion

        model = build(authors_bias=authors_bias, **options)
        images, labels = batch(8)
        pids = torch.arange(4).repeat(2)
        total, _ = MagnifierCriterion()(model(images, labels), pids, labels, gamma=1.0)
        total.backward()
        without = [name for name, p in model.named_parameters() if p.grad is None]
        assert not without
        for name, parameter in model.named_parameters():
            assert parameter.grad.isfinite().all(), name

    def test_authors_biases(self):
        def biases(model):
            return {
                "deconvolution": model.mask_module.head.upsample.bias is not None,
                "reduction": model.branches["SAB"].reduction.bias is not None,
                "classifier": model.branches["G"].head.classifier.bias is not None,
            }

        assert biases(build()) == {"deconvolution": True, "reduction": True, "classifier": False}
        assert biases(build(authors_bias=True)) == {
            "deconvolution": False,
            "reduction": False,
            "classifier": True,
        }

    def test_evaluation_depends_on_neither_masks_nor_batch_mates(self):
        model = build().eval()
        images, labels = batch()
        with torch.no_grad():
            alone = torch.cat([model(image.unsqueeze(0)) for image in images])
            assert torch.equal(model(images), model(images, labels))
            torch.testing.assert_close(model(images), alone, rtol=1e-4, atol=1e-4)
            assert alone.shape == (4, model.feature_dim)

    def test_masks_matter_in_training_and_unknown_ones_are_predicted(self):
        images, labels = batch()
        model = build(branches=["M", "SFB"])  # no random draw
        known = model(images, labels).branches["SFB"].regions
        predicted = model(images).branches["SFB"].regions
        unknown = model(images, torch.full_like(labels, 255)).branches["SFB"].regions
        assert not torch.equal(known, predicted)
        assert torch.equal(unknown, predicted)
        mixed = labels.clone()
        mixed[0] = 255
        regions = model(images, mixed).branches["SFB"].regions
        assert torch.equal(regions[0], predicted[0])
        assert torch.equal(regions[1:], known[1:])

    @pytest.mark.parametrize(
        ("branches", "width"),
        [
            (["G"], 512),
            (["G", "M"], 512),
            (["G", "M", "SAB"], 768),
            (["G", "M", "SFB"], 768),
            (["G", "M", "SAB", "SFB"], 1024),
            (["M", "SFB"], 256),
        ],
    )
    def test_rows_of_table_2(self, branches, width):
        model = build(branches=branches)
        images, labels = batch()
        assert list(model(images, labels).branches) == [b for b in branches if b != "M"]
        assert model.eval()(images).shape == (4, width)

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"branches": ["G", "SAB"]}, "add M"),
            ({"branches": ["SFB"]}, "add M"),
            ({"branches": ["M"]}, "no embedding"),
            ({"branches": ["G", "X"]}, "expected a list"),
            ({"branches": "GM"}, "expected a list"),
            ({"fusion": "mean"}, "magnifier.fusion"),
            ({"mask_rescaling": "cubic"}, "mask_rescaling"),
            ({"backbone": "vgg"}, "resnet50"),
            ({"loss": "center"}, "magnifier, triplet, softmax"),
        ],
    )
    def test_bad_options_are_refused_with_the_reason(self, options, reason):
        with pytest.raises(ValueError, match=reason):
            MagnifierNet(CLASSES, **options)

    def test_misspelt_option_and_unknown_model(self):
        with pytest.raises(TypeError, match="fusoin"):
            build(fusoin="gru")
        with pytest.raises(KeyError, match="magnifiernet_resnet18"):
            build_model("magnifiernet_vgg", CLASSES)

    @pytest.mark.parametrize(
        "options", [{"sampling": "baseline"}, {"keep": 2}, {"mask_rescaling": "nearest"}]
    )
    def test_options_change_the_training_output(self, options):
        images, labels = batch()
        outputs = []
        for model in (build(), build(**options)):
            torch.manual_seed(3)
            branches = model(images, labels).branches
            outputs.append(torch.cat([branches["SAB"].feature, branches["SFB"].feature], dim=1))
        assert not torch.allclose(*outputs)

    def test_one_set_of_keys_whichever_loss(self):
        keys = {loss: set(build(loss).state_dict()) for loss in ("magnifier", "triplet", "softmax")}
        assert keys["magnifier"] == keys["triplet"] == keys["softmax"]

    def test_torchreids_conventions_and_one_warning(self):
        warn_no_masks_are_learnt.cache_clear()
        images, _ = batch()
        with pytest.warns(UserWarning, match="ImageMagnifierEngine") as caught:
            logits, features = build("triplet")(images)
            assert len(build("softmax")(images)) == len(logits) == len(features) == 3
        assert len(caught) == 1

    def test_feature_maps_and_regions(self):
        model = build().eval()
        images, _ = batch()
        assert model(images, return_featuremaps=True).shape == (4, 512, 4, 2)
        assert model.predict_regions(images).shape == (4, 8, 4)
        with pytest.raises(ValueError, match="has none"):
            build(branches=["G"]).predict_regions(images)

    def test_runs_in_bf16_with_channels_last(self):
        model = build().to(memory_format=torch.channels_last)
        images, labels = batch()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = model(images.contiguous(memory_format=torch.channels_last), labels)
        assert all(branch.feature.dtype == torch.float32 for branch in output.branches.values())

    def test_state_dict_round_trip(self):
        images, _ = batch()
        first, second = build().eval(), build(keep=2)
        nn.init.normal_(second.backbone.conv1.weight)
        second.load_state_dict(first.state_dict())
        assert torch.equal(first(images), second.eval()(images))


class TestBackbone:
    def test_layers_are_torchvisions(self):
        ours, theirs = Backbone("resnet50"), torchvision.models.resnet50(weights=None)
        state = theirs.state_dict()
        assert set(ours.state_dict()) == set(state) - {"fc.weight", "fc.bias"}

    def weights(self, folder, name="resnet18"):
        path = folder / f"{name}.pth"
        torch.save(getattr(torchvision.models, name)(weights=None).state_dict(), path)
        return path

    def test_weights_from_a_file_and_from_the_environment(self, tmp_path, monkeypatch):
        path = self.weights(tmp_path)
        expected = torch.load(path)["layer4.1.conv2.weight"]
        name = "magnifiernet_resnet18"
        model = build_model(name, CLASSES, backbone_weights=path)
        assert torch.equal(model.backbone.layer4[1].conv2.weight, expected)
        monkeypatch.setenv(backbones.WEIGHTS_VARIABLE, str(path))
        model = build_model(name, CLASSES)
        assert torch.equal(model.backbone.layer4[1].conv2.weight, expected)
        monkeypatch.setenv(backbones.WEIGHTS_VARIABLE, "none")
        assert not torch.equal(build_model(name, CLASSES).backbone.layer4[1].conv2.weight, expected)

    def test_wrong_files_are_told(self, tmp_path):
        path = self.weights(tmp_path, "resnet34")
        with pytest.raises(ValueError, match=r"of torchvision's resnet50.*magnifier.backbone"):
            load_backbone_weights(Backbone("resnet50"), path)
        with pytest.raises(FileNotFoundError, match="backbone_weights"):
            load_backbone_weights(Backbone("resnet18"), tmp_path / "missing.pth")
        path.write_bytes(b"not weights")
        with pytest.raises(ValueError, match="weights_only=True"):
            load_backbone_weights(Backbone("resnet18"), path)
        torch.save({"epoch": 3}, path)
        with pytest.raises(ValueError, match="dictionary of tensors"):
            load_backbone_weights(Backbone("resnet18"), path)

    def test_no_network_names_the_ways_out(self, monkeypatch):
        from urllib.error import URLError

        def refuse(*args, **kwargs):
            raise URLError("no route to host")

        monkeypatch.delenv(backbones.WEIGHTS_VARIABLE, raising=False)
        monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
        monkeypatch.setenv("TORCH_HOME", "/nonexistent")
        monkeypatch.setattr("os.makedirs", lambda *a, **k: None)
        with pytest.raises(FileNotFoundError, match=r"backbone_weights.*pretrained False"):
            load_backbone_weights(Backbone("resnet18"))
