"""DSA-reID: grouped layers against loops over the parts, the options, and torchreid's engines."""

from itertools import product
from types import SimpleNamespace

import naive
import pytest
import torch
import torchreid
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from magnifier_plugin.losses.dsa import DSACriterion
from magnifier_plugin.models.backbone import Backbone, load_backbone_weights
from magnifier_plugin.models.dsa import DSAOutput, DSAReID
from magnifier_plugin.models.dsa_streams import ConcatFusion, scaled
from magnifier_plugin.models.parts import (
    Merge,
    PartLinear,
    classifier,
    convolution,
    for_parts,
    residual_stage,
)
from magnifier_plugin.models.precision import mean_in_float32
from magnifier_plugin.regions import (
    MERGED_PARTS,
    NUM_PARTS,
    PART_TO_SIDELESS,
    PARTS,
    SIDELESS_PARTS,
    SIDELESS_TO_MERGED,
)

CLASSES = 5
SMALL = {"backbone": "resnet18", "width": 0.125}
# Modules of the loop that have one child for each part.
PARTS_UNDER = {
    "guiding_stream.conv1": 24,
    "guiding_stream.conv2": 24,
    "guiding_stream.conv3": 24,
    "guiding_stream.conv4": 13,
    "guiding_stream.head.L": 8,
    "head.L": 8,
    "f_classifiers.L": 8,
}


def build(**options):
    torch.manual_seed(0)
    return DSAReID(CLASSES, **{**SMALL, **options})


def batch(size=4, texture=8, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(size, 3, 64, 32, generator=generator, dtype=dtype)
    textures = torch.randn(size, 24, 3, texture, texture, generator=generator, dtype=dtype)
    return images, textures


def by_part(name, tensor, parts):
    """A grouped layer's tensor as (name in the loop, tensor) of each part."""
    prefix, rest = name
    pieces = tensor.chunk(parts) if tensor.ndim else [tensor] * parts
    return [(f"{prefix}.{i}.{rest}", piece) for i, piece in enumerate(pieces)]


def as_loop(tensors, expected):
    """Our tensors with the loop's names and the shapes of `expected`."""
    renamed = {}
    for name, tensor in tensors.items():
        prefix = next((p for p in PARTS_UNDER if name.startswith(p + ".")), None)
        if prefix is None:
            renamed[name] = tensor
        else:
            rest = name[len(prefix) + 1 :]
            renamed |= by_part((prefix, rest), tensor, PARTS_UNDER[prefix])
    assert set(renamed) == set(expected)
    return {name: tensor.reshape(expected[name].shape) for name, tensor in renamed.items()}


def gradients(model):
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def spread(stage):
    """Draws random scales and shifts, so that all batch norms differ."""
    for module in stage.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return stage


def assert_near(ours, theirs, tolerance=1e-9):
    """Asserts equality up to a fraction of each tensor's largest value."""
    assert set(ours) == set(theirs)
    for name, value in ours.items():
        scale = max(float(theirs[name].detach().abs().max()), 1e-30)
        difference = float((value - theirs[name]).detach().abs().max())
        assert difference <= tolerance * scale, f"{name}: {difference} of {scale}"


class TestMergeTables:
    def test_the_lists_are_the_papers(self):
        assert SIDELESS_PARTS == (
            "torso back",
            "torso front",
            "hand",
            "foot",
            "upper leg back",
            "upper leg front",
            "lower leg back",
            "lower leg front",
            "upper arm inner",
            "upper arm outer",
            "lower arm inner",
            "lower arm outer",
            "head",
        )
        assert ", ".join(MERGED_PARTS) == (
            "torso, hand, foot, upper leg, lower leg, upper arm, lower arm, head"
        )

    def test_pairs(self):
        for place, pair in enumerate(naive.LEFT_AND_RIGHT):
            parts = [part for part in range(1, 25) if PART_TO_SIDELESS[part - 1] == place]
            assert parts == pair
        for place, pair in enumerate(naive.BACK_AND_FRONT):
            assert [i for i in range(13) if SIDELESS_TO_MERGED[i] == place] == pair
        assert len(PART_TO_SIDELESS) == NUM_PARTS == 24
        assert PARTS[20] == "right lower arm inner"
        assert MERGED_PARTS[SIDELESS_TO_MERGED[PART_TO_SIDELESS[20 - 1]]] == "lower arm"


class TestParts:
    @pytest.mark.parametrize(
        ("make", "inputs", "parts", "shared"),
        [
            (lambda: convolution(3, 4, 5), 3, 24, False),
            (lambda: residual_stage(BasicBlock, 4, 6, stride=2), 4, 13, False),
            (lambda: residual_stage(BasicBlock, 6, 6), 6, 8, False),
            (lambda: residual_stage(BasicBlock, 6, 4), 6, 8, True),
            (lambda: residual_stage(Bottleneck, 6, 8, blocks=3), 6, 8, True),
        ],
    )
    @pytest.mark.parametrize("training", [True, False])
    def test_grouped_layers_equal_a_loop(self, make, inputs, parts, shared, training):
        torch.manual_seed(0)
        grouped = spread(for_parts(make(), parts, shared_input=shared)).double().train(training)
        loop = nn.ModuleList(make() for _ in range(parts)).double().train(training)
        expected = loop.state_dict()
        state = {}
        for name, tensor in grouped.state_dict().items():
            pieces = tensor.chunk(parts) if tensor.ndim else [tensor] * parts
            state |= {f"{i}.{name}": piece for i, piece in enumerate(pieces)}
        assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in expected.items()}
        loop.load_state_dict(state)
        channels = inputs if shared else parts * inputs
        features = torch.randn(3, channels, 6, 4, dtype=torch.float64)
        results = []
        for network in (grouped, loop):
            leaf = features.clone().requires_grad_()
            if network is grouped:
                output = network(leaf)
            else:
                pieces = [leaf] * parts if shared else leaf.chunk(parts, dim=1)
                output = torch.cat([m(x) for m, x in zip(network, pieces, strict=True)], dim=1)
            (output * torch.arange(output.numel()).view_as(output).sin()).sum().backward()
            weights = gradients(network)
            if network is grouped:
                weights = {
                    f"{i}.{name}": piece
                    for name, grad in weights.items()
                    for i, piece in enumerate(grad.chunk(parts))
                }
            results.append({"output": output, "input": leaf.grad, **weights})
        assert_near(*results)

    def test_each_part_starts_like_a_network_of_its_own(self):
        torch.manual_seed(0)
        alone = residual_stage(BasicBlock, 64, 64)
        grouped = for_parts(residual_stage(BasicBlock, 64, 64), 8)
        theirs = torchvision.models.resnet18(weights=None).layer1
        for name, tensor in theirs.named_parameters():
            if tensor.ndim == 4:
                for piece in (alone.get_parameter(name), *grouped.get_parameter(name).chunk(8)):
                    assert float(piece.detach().std() / tensor.detach().std()) == pytest.approx(
                        1, abs=0.03
                    )
        pieces = grouped[0].conv1.weight.chunk(8)
        assert not torch.equal(pieces[0], pieces[1])

    @pytest.mark.parametrize(
        ("table", "groups"),
        [
            (PART_TO_SIDELESS, [[i - 1 for i in pair] for pair in naive.LEFT_AND_RIGHT]),
            (SIDELESS_TO_MERGED, naive.BACK_AND_FRONT),
        ],
    )
    def test_merging_equals_a_loop(self, table, groups):
        torch.manual_seed(0)
        features = torch.randn(2, len(table) * 3, 4, 2, dtype=torch.float64, requires_grad=True)
        expected = torch.cat(naive.merged(features.chunk(len(table), dim=1), groups), dim=1)
        ours = Merge(table)(features)
        assert torch.equal(ours, expected)
        weight = torch.randn_like(ours)
        (one,) = torch.autograd.grad((ours * weight).sum(), features)
        (other,) = torch.autograd.grad((expected * weight).sum(), features)
        assert torch.equal(one, other)

    def test_merging_keeps_memory_format_and_dtype_and_has_no_state(self):
        merge = Merge(SIDELESS_TO_MERGED)
        features = torch.randn(2, 13 * 8, 4, 4).bfloat16()
        last = merge(features.contiguous(memory_format=torch.channels_last))
        assert last.is_contiguous(memory_format=torch.channels_last)
        assert last.dtype == torch.bfloat16
        assert torch.equal(last, merge(features))
        assert not merge.state_dict()
        assert merge.to("meta").table.device.type == "meta"  # it moves with the network

    @pytest.mark.parametrize("bias", [True, False])
    def test_part_linear_equals_a_loop(self, bias):
        torch.manual_seed(0)
        layer = PartLinear(6, 4, parts=8, bias=bias)
        linears = [nn.Linear(6, 4, bias=bias) for _ in range(8)]
        for part, linear in enumerate(linears):
            linear.load_state_dict({k: v[part] for k, v in layer.state_dict().items()})
        features = torch.randn(3, 48)
        pairs = zip(linears, features.chunk(8, dim=1), strict=True)
        expected = torch.cat([linear(piece) for linear, piece in pairs], dim=1)
        torch.testing.assert_close(layer(features), expected)

    @pytest.mark.parametrize("parts", [1, 8])
    def test_classifiers_start_without_preference(self, parts):
        torch.manual_seed(0)
        layers = classifier(64, 100, parts=parts)
        logits = layers(torch.randn(16, 64))
        assert logits.shape == ((16, 100) if parts == 1 else (16, parts, 100))
        assert 0.005 < float(logits.detach().std()) < 0.05
        assert not layers[3].bias.any()

    @pytest.mark.parametrize(
        ("dtype", "pooled"),
        [
            (torch.bfloat16, torch.float32),
            (torch.float32, torch.float32),
            (torch.float64, torch.float64),
        ],
    )
    def test_pooling_is_at_least_float32(self, dtype, pooled):
        features = torch.arange(24.0).view(1, 2, 4, 3).to(dtype)
        output = mean_in_float32(features, (2, 3))
        assert output.dtype == pooled
        assert output.tolist() == [[5.5, 17.5]]

    @pytest.mark.parametrize(
        ("channels", "width", "expected"),
        [
            (32, 1.0, 32),
            (128, 0.25, 32),
            (32, 0.25, 8),
            (64, 0.3, 16),
            (32, 0.125, 4),
            (32, 0.001, 1),
            (64, 2.0, 128),
        ],
    )
    def test_widths(self, channels, width, expected):
        assert scaled(channels, width) == expected


class TestParity:
    @pytest.mark.parametrize(
        ("options", "widths", "texture"),
        [
            ({"backbone": "resnet18", "width": 0.125}, (4, 8, 8, 16), 8),
            pytest.param(
                {"backbone": "resnet50", "width": 1.0},
                (32, 64, 64, 128),
                32,
                marks=pytest.mark.slow,
            ),
        ],
    )
    def test_the_whole_network_equals_the_loop(self, options, widths, texture):
        ours = spread(build(**options)).double()
        loop = naive.DSAReID(
            CLASSES, options["backbone"], **dict(zip(("c1", "c2", "c3", "c4"), widths, strict=True))
        ).double()
        loop.load_state_dict(as_loop(ours.state_dict(), loop.state_dict()))
        inputs = batch(texture=texture, dtype=torch.float64)
        generator = torch.Generator().manual_seed(2)
        weights = None
        results = []
        for network in (ours, loop):
            named = {
                f"{kind} {branch}": tensor
                for kind, output in zip(DSAOutput._fields, network(*inputs), strict=True)
                for branch, tensor in output.items()
            }
            if weights is None:
                weights = {
                    name: torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
                    for name, tensor in named.items()
                }
            sum((named[name] * weights[name]).sum() for name in named).backward()
            results.append(named)
        assert_near(*results)
        assert_near(as_loop(gradients(ours), dict(loop.named_parameters())), gradients(loop), 1e-7)
        images, _ = inputs
        with torch.no_grad():  # with the running statistics of one step
            assert_near({"f": ours.eval()(images)}, {"f": loop.eval()(*inputs)})

    def test_criterion_equals_the_loop(self):
        images, textures = batch(8)
        pids = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])
        model = build()
        expected = naive.dsa_losses(*model(images, textures), pids)
        terms = DSACriterion()(model(images, textures), pids).terms
        assert_near({n: t.loss for n, t in terms.items()}, expected, 1e-5)
        for name, term in terms.items():
            model.zero_grad()
            named = [n for n, p in model.named_parameters()]
            leaves = list(model.parameters())
            one = torch.autograd.grad(term.loss, leaves, retain_graph=True, allow_unused=True)
            other = torch.autograd.grad(
                expected[name], leaves, retain_graph=True, allow_unused=True
            )
            ours = {n: g for n, g in zip(named, one, strict=True) if g is not None}
            theirs = {n: g for n, g in zip(named, other, strict=True) if g is not None}
            # The gradient of a bias before a ReLU or a batch norm may be only rounding errors.
            largest = max(float(g.abs().max()) for g in theirs.values())
            for key, grad in theirs.items():
                assert float((ours[key] - grad).abs().max()) <= 1e-4 * largest, (name, key)


class TestNetwork:
    def test_resnet50_shapes_are_the_papers(self):
        torch.manual_seed(0)
        model = DSAReID(CLASSES)
        maps = {}
        for name in ("conv1", "conv2", "conv3", "merge_sides", "conv4", "merge_charts"):
            layer = model.guiding_stream.get_submodule(name)
            layer.register_forward_hook(
                lambda _, __, output, name=name: maps.update({name: tuple(output.shape[1:])})
            )
        output = model(*batch(2, texture=32))
        assert output.f_logits["G"].shape == (2, CLASSES)
        assert output.f_logits["L"].shape == (2, 8, CLASSES)
        assert {k: v.shape for k, v in output.z_logits.items()} == {
            "G": (2, CLASSES),
            "L": (2, CLASSES),
        }
        assert {k: v.shape for k, v in output.z.items()} == {"G": (2, 2048), "L": (2, 2048)}
        assert maps == {  # Table 1
            "conv1": (24 * 32, 32, 32),
            "conv2": (24 * 64, 32, 32),
            "conv3": (24 * 64, 16, 16),
            "merge_sides": (13 * 64, 16, 16),
            "conv4": (13 * 128, 8, 8),
            "merge_charts": (8 * 128, 8, 8),
        }
        embedding = model.eval()(torch.randn(2, 3, 256, 128))
        assert embedding.shape == (2, model.feature_dim) == (2, 4096)
        assert model(torch.randn(1, 3, 256, 128), return_featuremaps=True).shape == (
            1,
            2048,
            16,
            8,
        )

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"fusion": "concat"},
            {"streams": ["MF"]},
            {"streams": ["DSAG"], "test_features": "z"},
            {"branches": ["global"]},
            {"branches": ["local"]},
            {"branches": ["local"], "fusion": "concat"},
            {"streams": ["DSAG"], "branches": ["local"], "test_features": "z_L"},
            {"streams": ["MF"], "branches": ["global"]},
            {"streams": ["MF"], "branches": ["local"]},
            {"pretrained_head": True},
            {"backbone": "resnet34"},
        ],
        ids=str,
    )
    def test_every_parameter_gets_a_finite_gradient(self, options):
        model = build(**options)
        images, textures = batch(8)
        pids = torch.arange(4).repeat(2)
        DSACriterion(margin=100.0)(model(images, textures), pids).total.backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name

    def test_evaluation_takes_only_the_image(self):
        model = build()
        images, textures = batch()
        model(images, textures)  # moves the running statistics
        model.eval()
        with torch.no_grad():
            alone = torch.cat([model(image.unsqueeze(0)) for image in images])
            assert torch.equal(model(images), model(images, textures))
            assert torch.equal(model(images), model(images, torch.zeros(0)))
            torch.testing.assert_close(model(images), alone, rtol=1e-4, atol=1e-5)
        assert alone.shape == (4, model.feature_dim) == (4, 1024)
        assert alone.dtype == torch.float32

    @pytest.mark.parametrize("fusion", ["add", "concat"])
    def test_evaluation_of_the_fused_features(self, fusion):
        models = {
            name: build(fusion=fusion, test_features=name).eval()
            for name in ("f", "z", "z_G", "z_L")
        }
        images, textures = batch()
        with torch.no_grad():
            model = models["z"]
            f = model.head(model.backbone(images)[0])
            d = model.guiding_stream(textures, len(images))
            z = model.fusion(f, d)
            assert torch.equal(models["f"](images), torch.cat([f["G"], f["L"]], dim=1))
            assert torch.equal(model(images, textures), torch.cat([z["G"], z["L"]], dim=1))
            for name in ("G", "L"):
                assert torch.equal(models[f"z_{name}"](images, textures), z[name])
                assert models[f"z_{name}"].feature_dim == 512
                if fusion == "add":
                    assert torch.equal(z[name], f[name] + d[name])
        assert not torch.equal(model(images, textures), model(images, textures.flip(0)))

    def test_concatenation_has_one_layer_for_each_part(self):
        torch.manual_seed(0)
        fusion = ConcatFusion(16, ("G", "L"))
        f = {name: torch.randn(3, 16) for name in ("G", "L")}
        d = {name: torch.randn(3, 16) for name in ("G", "L")}
        z = fusion(f, d)
        layer = fusion.layers["G"]
        whole = nn.functional.linear(torch.cat([f["G"], d["G"]], 1), layer.weight[0], layer.bias[0])
        torch.testing.assert_close(z["G"], whole)
        layer = fusion.layers["L"]
        for i in range(8):
            part = slice(2 * i, 2 * i + 2)
            pair = torch.cat([f["L"][:, part], d["L"][:, part]], dim=1)
            expected = nn.functional.linear(pair, layer.weight[i], layer.bias[i])
            torch.testing.assert_close(z["L"][:, part], expected)

    @pytest.mark.parametrize("stream", ["MF", "DSAG"])
    def test_a_single_stream_is_its_own_z(self, stream):
        model = build(streams=[stream], test_features="z")
        images, textures = batch()
        output = model(images, textures)
        f = model.head(model.backbone(images)[0])
        d = model.guiding_stream(textures, len(images))
        z = f if stream == "MF" else d
        assert all(torch.equal(output.z[name], z[name]) for name in ("G", "L"))
        assert (not d, not f) == (stream == "MF", stream == "DSAG")
        assert set(output.f_logits) == ({"G", "L"} if stream == "MF" else set())
        assert set(output.z_logits) == {"G", "L"}
        assert model.eval()(images, textures).shape == (4, 1024)

    @pytest.mark.parametrize("branch", ["global", "local"])
    def test_single_branches(self, branch):
        model = build(branches=[branch])
        images, textures = batch()
        letter = branch[0].upper()
        assert all(set(output) == {letter} for output in model(images, textures))
        assert model.eval()(images).shape == (4, model.feature_dim) == (4, 512)
        assert model(images, return_featuremaps=True).shape == (4, 512, 4, 2)
        both = build().eval()
        both.load_state_dict({**both.state_dict(), **model.state_dict()})
        place = slice(0, 512) if letter == "G" else slice(512, 1024)
        with torch.no_grad():
            assert torch.equal(model(images), both(images)[:, place])

    def test_keys_depend_on_the_loss_only_for_the_guiding_stream(self):
        full = build(fusion="concat").state_dict()
        small = {
            key: value
            for key, value in full.items()
            if not key.startswith(DSAReID.training_only_keys)
        }
        assert {key.split(".")[0] for key in set(full) - set(small)} == {"guiding_stream", "fusion"}
        images, _ = batch()
        for options in (
            {"streams": ["MF"]},
            {"loss": "softmax", "fusion": "concat"},
            {"loss": "triplet", "streams": ["DSAG"], "test_features": "z"},
        ):
            model = build(**options)
            assert set(model.state_dict()) == set(small)
            nn.init.normal_(model.backbone.conv1.weight)
            model.load_state_dict(small)
            guided = build(fusion="concat").eval()
            guided.load_state_dict(full)
            with torch.no_grad():
                embedding = guided(images)
                assert torch.equal(model.eval()(images), embedding)

    def test_runs_in_bf16_with_channels_last(self):
        images, textures = batch()
        for options in ({}, {"fusion": "concat"}):
            model = build(test_features="z", **options).to(memory_format=torch.channels_last)
            last = images.contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                output = model(last, textures)
                embedding = model.eval()(last, textures)
            assert all(z.dtype == torch.float32 for z in (*output.z.values(), embedding))

    @pytest.mark.parametrize(
        ("dtype", "tolerance"),
        [(torch.float64, 1e-4), (torch.float16, 0.01), (torch.bfloat16, 0.05)],
    )
    @pytest.mark.parametrize("fusion", ["add", "concat"])
    def test_converted_models_embed_alike_and_train(self, dtype, tolerance, fusion):
        torch.manual_seed(0)
        images, textures = batch()
        model = build(test_features="z", fusion=fusion).eval()
        with torch.no_grad():
            expected = model(images, textures)
            embedding = model.to(dtype)(images.to(dtype), textures.to(dtype))
        assert float((embedding - expected).norm() / expected.norm()) < tolerance
        output = model.train()(images.to(dtype), textures.to(dtype))
        for logits in (*output.f_logits.values(), *output.z_logits.values()):
            assert logits.dtype == dtype and logits.isfinite().all()


class TestInputs:
    @pytest.mark.parametrize(
        ("options", "training", "test"),
        [
            ({}, True, False),
            ({"test_features": "z"}, True, True),
            ({"test_features": "z_G"}, True, True),
            ({"test_features": "z_L"}, True, True),
            ({"streams": ["DSAG"], "test_features": "z"}, True, True),
            ({"streams": ["MF"]}, False, False),
            ({"streams": ["MF"], "test_features": "z_G"}, False, False),
            ({"loss": "softmax"}, False, False),
            ({"loss": "triplet", "test_features": "z"}, False, False),
            ({"loss": "triplet", "streams": ["DSAG"], "test_features": "z"}, False, False),
        ],
        ids=str,
    )
    def test_inputs_are_declared_and_needed(self, options, training, test):
        model = build(**options)
        expected = tuple(("textures",) if needed else () for needed in (training, test))
        assert (model.training_inputs, model.test_inputs) == expected
        asked = {"streams": ("MF", "DSAG"), "test_features": "f", "loss": "dsa", **options}
        assert DSAReID.declared_inputs(**asked) == expected
        images, textures = batch()
        for mode, needed in ((True, training), (False, test)):
            model.train(mode)
            model(images, textures)
            if needed:
                with pytest.raises(ValueError, match=r"float textures \[4, 24, 3, S, S\].*none"):
                    model(images)
            else:
                model(images)

    @pytest.mark.parametrize(
        "textures",
        [
            torch.zeros(3, 24, 3, 8, 8),
            torch.zeros(1, 24, 3, 8, 8),
            torch.zeros(4, 25, 3, 8, 8),
            torch.zeros(4, 24, 4, 8, 8),
            torch.zeros(4, 24, 3, 8, 4),
            torch.zeros(4, 24, 3, 10, 10),
            torch.zeros(4, 24, 3, 0, 0),
            torch.zeros(4, 72, 8, 8),
            torch.zeros(()),
            torch.zeros(4, 24, 3, 8, 8, dtype=torch.uint8),
        ],
        ids=lambda textures: f"{textures.dtype} {list(textures.shape)}",
    )
    def test_textures_are_checked(self, textures):
        model = build()
        with pytest.raises(ValueError, match="S a multiple of 4.*got torch") as caught:
            model(batch()[0], textures)
        assert str(list(textures.shape)) in str(caught.value)

    @pytest.mark.parametrize("size", [4, 12, 16])
    def test_other_texture_sizes(self, size):
        assert build()(*batch(texture=size)).z["L"].shape == (4, 512)


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"loss": "center"}, "loss: DSA-reID supports dsa, triplet, softmax; got 'center'"),
            ({"backbone": "vgg"}, "dsa.backbone: expected one of resnet18.*got 'vgg'"),
            ({"streams": []}, r"dsa.streams: expected a list of MF, DSAG.*got \[\]"),
            ({"streams": "MF"}, "dsa.streams: expected a list"),
            ({"streams": ["MF", "X"]}, "dsa.streams: expected a list"),
            ({"streams": None}, "dsa.streams: expected a list"),
            ({"branches": ["G"]}, "dsa.branches: expected a list of global, local"),
            ({"branches": ()}, "dsa.branches: expected a list"),
            ({"fusion": "mean"}, "dsa.fusion: expected one of add, concat; got 'mean'"),
            ({"test_features": "d"}, "dsa.test_features: expected one of f, z, z_G, z_L"),
            ({"width": 0}, "dsa.width: expected a number above 0; got 0"),
            ({"width": float("inf")}, "dsa.width"),
            ({"width": float("nan")}, "dsa.width"),
            ({"width": "1"}, "dsa.width"),
            ({"width": True}, "dsa.width"),
            ({"test_features": "z_L", "branches": ["global"]}, "test_features: z_L.*'local'"),
            ({"test_features": "z_G", "branches": ["local"]}, "test_features: z_G.*'global'"),
            ({"streams": ["DSAG"]}, "dsa.test_features: f expects 'MF'"),
            ({"streams": ["MF"], "fusion": "concat"}, "dsa.fusion: concat.*'DSAG'"),
            ({"branches": ["local"], "pretrained_head": True}, "dsa.pretrained_head.*'global'"),
            (
                {"streams": ["DSAG"], "test_features": "z", "pretrained_head": True},
                "dsa.pretrained_head.*'MF'",
            ),
        ],
        ids=str,
    )
    def test_bad_options_are_refused_with_the_reason(self, options, reason):
        with pytest.raises(ValueError, match=reason):
            build(**options)

    def test_misspelt_option(self):
        with pytest.raises(TypeError, match="fusoin"):
            DSAReID(CLASSES, fusoin="add")

    def test_all_combinations_build_and_run_or_name_their_key(self):
        streams = (["MF", "DSAG"], ["MF"], ["DSAG"])
        branches = (["global", "local"], ["global"], ["local"])
        refused = 0
        images = torch.zeros(2, 3, 64, 32, device="meta")  # only shapes, so that 37 are fast
        textures = torch.zeros(2, 24, 3, 4, 4, device="meta")
        for stream, branch, fusion, tested in product(
            streams, branches, ("add", "concat"), ("f", "z", "z_G", "z_L")
        ):
            options = {"streams": stream, "branches": branch, "fusion": fusion}
            try:
                with torch.device("meta"):
                    model = build(**options, test_features=tested)
            except ValueError as error:
                assert str(error).startswith("dsa.")
                refused += 1
                continue
            assert model(images, textures if model.training_inputs else None)
            model.eval()
            embedding = model(images, textures if model.test_inputs else None)
            assert embedding.shape == (2, model.feature_dim)
        # Both streams, MF, DSAG: z_L without the local branch and z_G without the global one (2 of
        # 12), concatenation of one stream (12), f without the MF-Stream (3).
        assert refused == (2 + 2) + (2 + 12) + (2 + 12 + 3)

    def test_width_scales_only_conv1_to_conv4(self):
        def widths(model):
            stream = model.guiding_stream
            convolutions = (
                stream.conv1[0],
                stream.conv2[0],
                stream.conv3[1].conv2,
                stream.conv4[1].conv2,
            )
            return [c.out_channels // c.groups for c in convolutions], model.feature_dim

        assert widths(build(width=1.0)) == ([32, 64, 64, 128], 1024)
        assert widths(build(width=0.25)) == ([8, 16, 16, 32], 1024)

    @pytest.mark.parametrize("pretrained_head", [False, True])
    def test_imagenet_weights_reach_the_paper_layers(self, tmp_path, pretrained_head):
        torch.manual_seed(7)
        state = torchvision.models.resnet18(weights=None).state_dict()
        torch.save(state, tmp_path / "weights.pth")
        model = build(pretrained_head=pretrained_head)
        load_backbone_weights(model.imagenet_modules(), tmp_path / "weights.pth")
        assert torch.equal(model.backbone.conv1.weight, state["conv1.weight"])
        assert torch.equal(model.backbone.layer3[1].conv2.weight, state["layer3.1.conv2.weight"])
        loaded = torch.equal(model.head["G"][1].conv2.weight, state["layer4.1.conv2.weight"])
        assert loaded == pretrained_head
        keys = {key for key in state if not key.startswith(("fc.", "layer4."))}
        assert set(model.backbone.state_dict()) == keys
        assert build(streams=["DSAG"], test_features="z").imagenet_modules() is None

    def test_head_keeps_the_resolution(self):
        model, resnet = build().eval(), Backbone("resnet18").eval()
        resnet.load_state_dict(
            model.backbone.state_dict()
            | {f"layer4.{key}": value for key, value in model.head["G"].state_dict().items()}
        )
        images, _ = batch()
        with torch.no_grad():
            features = model(images, return_featuremaps=True)
            assert torch.equal(features, resnet(images)[1])
        assert features.shape == (4, 512, 4, 2)

    def test_no_feature_map_without_the_main_stream(self):
        model = build(streams=["DSAG"], test_features="z")
        with pytest.raises(ValueError, match=r"return_featuremaps.*dsa.streams \['DSAG'\]"):
            model(*batch(), return_featuremaps=True)


class TestTorchreid:
    def test_conventions(self):
        images, _ = batch()
        logits, features = build(loss="triplet")(images)
        expected = build(streams=["MF"])(images)
        assert len(build(loss="softmax")(images)) == len(logits) == 1 + 8 + 2
        every = [expected.f_logits["G"], *expected.f_logits["L"].unbind(1)]
        every += expected.z_logits.values()
        assert all(torch.equal(*pair) for pair in zip(logits, every, strict=True))
        assert all(torch.equal(*p) for p in zip(features, expected.z.values(), strict=True))

    @pytest.mark.parametrize("loss", ["softmax", "triplet"])
    def test_torchreids_engine_trains_every_parameter(self, loss):
        model = build(loss=loss)
        manager = SimpleNamespace(
            num_train_pids=CLASSES, train_loader=None, test_loader=None, sources=[], targets=[]
        )
        engine_class = {
            "softmax": torchreid.engine.ImageSoftmaxEngine,
            "triplet": torchreid.engine.ImageTripletEngine,
        }[loss]
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        engine = engine_class(manager, model, optimizer, use_gpu=False)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        images, _ = batch(8)
        data = {"img": images, "pid": torch.arange(4).repeat(2)}
        losses = []
        for _ in range(6):
            summary = engine.forward_backward(data)
            losses.append(sum(value for key, value in summary.items() if key.startswith("loss")))
        assert losses[-1] < losses[0]
        same = [name for name, p in model.named_parameters() if torch.equal(before[name], p)]
        assert not same

    def test_complexity_counts(self):
        model = build(streams=["MF"])
        parameters, flops = torchreid.utils.compute_model_complexity(model, (1, 3, 64, 32))
        assert parameters > 0 < flops


class TestCriterion:
    pids = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])
    defaults = {  # noqa: RUF012
        "cls_f_G": 0.5,
        "cls_f_L": 0.5,
        "cls_z_G": 1.0,
        "cls_z_L": 1.0,
        "tri_z_G": 1.5,
        "tri_z_L": 1.5,
    }

    def outputs(self, **options):
        return build(**options)(*batch(8))

    def test_default_weights_and_total(self):
        criterion = DSACriterion()
        assert criterion.weights == self.defaults
        result = criterion(self.outputs(), self.pids)
        assert {name: term.weight for name, term in result.terms.items()} == self.defaults
        loss = {name: float(term.loss.detach()) for name, term in result.terms.items()}
        total = (
            0.5 * (loss["cls_f_G"] + loss["cls_f_L"])
            + loss["cls_z_G"]
            + loss["cls_z_L"]
            + 1.5 * (loss["tri_z_G"] + loss["tri_z_L"])
        )
        assert float(result.total.detach()) == pytest.approx(total, rel=1e-6)
        assert loss["cls_f_L"] == pytest.approx(8 * loss["cls_f_G"], rel=0.1)  # a sum of 8

    def test_constructor_arguments_reach_their_terms(self):
        criterion = DSACriterion(weight_f=2, weight_z=3, weight_t=4)
        assert list(criterion.weights.values()) == [2, 2, 3, 3, 4, 4]
        outputs = self.outputs()
        plain = DSACriterion(label_smoothing=0.0, margin=7.0)(outputs, self.pids).terms
        expected = naive.dsa_losses(*outputs, self.pids, smoothing=0.0, margin=7.0)
        assert_near({n: t.loss for n, t in plain.items()}, expected, 1e-5)

    def test_overrides_and_zero_weights(self, monkeypatch):
        def refuse(*_):
            raise AssertionError("a term of weight 0 was computed")

        outputs, targets = self.outputs(), {"mask": torch.zeros(8)}
        weights = {"tri_z_G": 0.0, "tri_z_L": 0, "cls_f_G": 7.0}
        monkeypatch.setattr("magnifier_plugin.losses.dsa.batch_hard_triplet", refuse)
        result = DSACriterion()(outputs, self.pids, targets, weights)
        assert {name: term.weight for name, term in result.terms.items()} == {
            **{n: w for n, w in self.defaults.items() if n.startswith("cls")},
            "cls_f_G": 7.0,
        }
        with pytest.raises(AssertionError, match="was computed"):
            DSACriterion()(outputs, self.pids, targets)
        assert DSACriterion().weights == self.defaults  # overrides last for one call
        assert list(DSACriterion(weight_t=0)(outputs, self.pids).terms) == [
            "cls_f_G",
            "cls_f_L",
            "cls_z_G",
            "cls_z_L",
        ]

    def test_unknown_names_and_no_loss_at_all_are_errors(self):
        outputs = self.outputs()
        with pytest.raises(ValueError, match="names among cls_f_G, .*; got sd"):
            DSACriterion()(outputs, self.pids, {}, {"sd": 1.0})
        result = DSACriterion(weight_f=0, weight_z=0, weight_t=0)(outputs, self.pids)
        assert not result.terms
        with pytest.raises(ValueError, match="weight other than 0"):
            _ = result.total

    @pytest.mark.parametrize(
        ("options", "names"),
        [
            ({"streams": ["MF"]}, "cls_f_G cls_f_L cls_z_G cls_z_L tri_z_G tri_z_L"),
            ({"streams": ["DSAG"], "test_features": "z"}, "cls_z_G cls_z_L tri_z_G tri_z_L"),
            ({"branches": ["global"]}, "cls_f_G cls_z_G tri_z_G"),
            ({"branches": ["local"]}, "cls_f_L cls_z_L tri_z_L"),
        ],
        ids=str,
    )
    def test_terms_follow_what_is_built(self, options, names):
        result = DSACriterion()(self.outputs(**options), self.pids)
        assert " ".join(result.terms) == names
        assert set(result.metrics) == {"acc"}

    def test_accuracy_is_of_the_first_whole_feature(self):
        right = torch.eye(4).repeat(2, 1)
        wrong = right.roll(1, dims=1)
        half = torch.cat([right[:4], wrong[4:]])
        local = wrong.unsqueeze(1).expand(8, 8, 4)
        z = {"G": right, "L": right}

        def acc(f_logits, z_logits):
            return float(DSACriterion()(DSAOutput(f_logits, z_logits, z), self.pids).metrics["acc"])

        assert acc({"G": half, "L": local}, {"G": wrong, "L": wrong}) == 50
        assert acc({}, {"G": right, "L": wrong}) == 100
        assert acc({"L": local}, {"L": half}) == 50

    def test_one_identity_has_a_loss_and_a_gradient(self):
        model = build()
        result = DSACriterion()(model(*batch(8)), torch.zeros(8, dtype=torch.long))
        result.total.backward()
        assert float(result.terms["tri_z_G"].loss.detach()) == 0
        assert all(p.grad.isfinite().all() for p in model.parameters())

    @pytest.mark.parametrize("scale", [1e4, 1e-8])
    def test_extreme_features(self, scale):
        outputs = self.outputs()
        z = {name: (x.detach() * scale).requires_grad_() for name, x in outputs.z.items()}
        result = DSACriterion()(outputs._replace(z=z), self.pids)
        result.total.backward()
        assert result.total.isfinite()
        assert all(x.grad.isfinite().all() for x in z.values())
