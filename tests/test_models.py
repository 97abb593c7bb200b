"""MagnifierNet as a whole: its options, its conventions, and its outputs as torchreid uses them."""

import pytest
import torch
import torchreid
from tiny import tiny_model
from torch import nn

from magnifier_plugin import build_model
from magnifier_plugin.losses.magnifier import MagnifierCriterion
from magnifier_plugin.models.magnifier_options import LOSSES, warn_no_masks_are_learnt
from magnifier_plugin.models.magnifiernet import MagnifierNet

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

    @pytest.mark.parametrize("fusion", ["gru", "lstm", "concat", "concat-reduced"])
    @pytest.mark.parametrize("authors_bias", [False, True])
    def test_every_parameter_gets_a_finite_gradient(self, fusion, authors_bias):
        model = build(authors_bias=authors_bias, fusion=fusion)
        images, labels = batch(8)
        pids = torch.arange(4).repeat(2)
        output = model(images, mask=labels)
        MagnifierCriterion()(output, pids, {"mask": labels}, {"sd": 1.0}).total.backward()
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

    @pytest.mark.parametrize("layers", [["branches"], ["mask_module"], ["backbone"], []])
    def test_frozen_layers_compute_the_training_output(self, layers):
        """torchreid puts frozen layers into evaluation mode (train.open_layers)."""
        images, labels = batch()
        model = tiny_model(CLASSES)
        masks = []
        model.mask_module.register_forward_hook(lambda *hook: masks.append(hook[-1][1]))
        model(images, labels)
        torchreid.utils.open_specified_layers(model, layers)
        output = model(images, labels)
        assert model.branches["SFB"].fusion.cell.training  # cuDNN's backward needs it
        assert torch.equal(*masks)
        assert output.branches["SAB"].share < 1
        criterion = MagnifierCriterion(share_weighted=True)
        result = criterion(output, torch.arange(2).repeat(2), {"mask": labels}, {"sd": 1.0})
        assert set(result.terms) == set(criterion.weights)
        assert result.total.requires_grad == bool(layers)
        if layers:
            result.total.backward()
        trained = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
        assert trained == set(layers)

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
            ({"mask_rescaling": "cubic"}, "mask_rescaling.*nearest-corner"),
            ({"deconvolution_init": "xavier"}, "deconvolution_init.*kaiming, normal"),
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
        for loss in (None, "magnifier", "triplet", "center"):
            with pytest.raises(KeyError, match=r"Unknown model: 'magnifiernet_vgg'.*_resnet18"):
                build_model("magnifiernet_vgg", CLASSES, loss)

    def test_two_backbones_are_refused(self):
        with pytest.raises(ValueError, match=r"magnifiernet_resnet18.*'resnet34'"):
            build(backbone="resnet34")
        assert build(backbone="resnet18").feature_dim == 1024

    def test_without_a_loss_the_model_uses_its_default(self):
        model = build_model("magnifiernet_resnet18", CLASSES, pretrained=False)
        assert model.loss == "magnifier"

    @pytest.mark.parametrize("loss", LOSSES)
    @pytest.mark.parametrize(
        "branches", [["G"], ["G", "M"], ["M", "SAB"], ["G", "M", "SAB", "SFB"]]
    )
    def test_declared_inputs(self, loss, branches):
        expected = ("mask",) if "M" in branches and loss == "magnifier" else ()
        model = tiny_model(loss=loss, branches=branches)
        assert (model.training_inputs, model.test_inputs) == (expected, ())
        assert MagnifierNet.declared_inputs(branches, loss) == (expected, ())

    @pytest.mark.parametrize(
        "options",
        [
            {"sampling": "baseline"},
            {"keep": 2},
            {"mask_rescaling": "nearest"},
            {"mask_rescaling": "nearest-corner"},
            {"stem_relu": False},
        ],
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

    def test_described_regions_are_those_of_the_embedding(self):
        model, (images, _) = build().eval(), batch()
        with torch.no_grad():
            labels, features = model.describe_regions(images)
            assert torch.equal(labels, model.predict_regions(images))
            layer3, layer4 = model.backbone(images)
            masks = model.mask_module(layer4, None)[1]
            maps = model.branches["SFB"].bottleneck(layer3)
            pooled = (maps[:, None] * masks[:, :, None]).amax(dim=(3, 4))  # Eq. 1, literally
            torch.testing.assert_close(features, pooled)
            fusion = model.branches["SFB"]
            embedding = fusion.head(fusion.fusion(features)[0])[0]
            torch.testing.assert_close(model(images)[:, -256:], embedding)
        for image, regions in zip(labels, features, strict=True):
            for region in set(range(8)) - set(image.unique().tolist()):
                assert not regions[region].any()
        assert build(branches=["G", "M"]).eval().describe_regions(images).features is None
        with pytest.raises(ValueError, match="predicted by M, and this network has none"):
            build(branches=["G"]).describe_regions(images)

    @pytest.mark.parametrize(
        ("dtype", "tolerance"),
        [(torch.float64, 1e-4), (torch.float16, 0.01), (torch.bfloat16, 0.05)],
    )
    @pytest.mark.parametrize("fusion", ["gru", "lstm", "concat"])
    def test_converted_models_embed_alike(self, dtype, tolerance, fusion):
        torch.manual_seed(0)
        model = tiny_model(fusion=fusion).eval()
        images, _ = batch()
        with torch.no_grad():
            expected = model(images)
            embedding = model.to(dtype)(images.to(dtype))
        assert embedding.dtype == dtype
        assert float((embedding - expected).norm() / expected.norm()) < tolerance

    def test_double_is_not_rounded_in_training(self):
        model = tiny_model().double()
        images, labels = batch()
        output = model(images.double(), labels)
        for branch in output.branches.values():
            assert {x.dtype for x in branch if x is not None} == {torch.float64}
        weights = {"sd": 1.0}
        pids = torch.arange(2).repeat(2)
        for term in MagnifierCriterion()(output, pids, {"mask": labels}, weights).terms.values():
            assert term.loss.dtype == torch.float64

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
