"""What a network looks at: activations, blanked regions, sheets."""

import warnings

import numpy as np
import pytest
import torch
import torchreid
from tiny import tiny_model

from magnifier_plugin.regions import BODY_REGIONS, REGIONS
from magnifier_plugin.visualize.regions import region_sheet
from magnifier_plugin.visualize.saliency import (
    LOWEST_TO_HIGHEST,
    branch_maps,
    embedding_parts,
    heat_overlay,
    influence_table,
    region_heat,
    region_influence,
    saliency_sheet,
)

HEAD, FOOT = REGIONS.index("head"), REGIONS.index("foot")


@pytest.fixture
def images():
    return torch.randn(2, 3, 64, 32, generator=torch.Generator().manual_seed(0))


class TestBranchMaps:
    def test_each_branch_and_their_mean(self, images):
        model = tiny_model().eval()
        with torch.no_grad():
            maps = branch_maps(model, images)
            layer3, layer4 = model.backbone(images)
            expected = model.branches["SAB"].bottleneck(layer3).square().sum(1)
        assert list(maps) == ["G", "SAB", "SFB", "all"]
        assert all(values.shape == (2, 4, 2) for values in maps.values())
        for one, values in zip(expected, maps["SAB"], strict=True):
            scaled = (one - one.min()) / (one.max() - one.min())
            torch.testing.assert_close(values, scaled)
        squares = layer4[0].square().sum(0)
        assert maps["G"][0].argmax() == squares.argmax()
        assert maps["all"].amin() == 0 and maps["all"].amax() == 1

    def test_one_branch_and_other_networks_have_one_map(self, images):
        assert list(branch_maps(tiny_model(branches=["G"]).eval(), images)) == ["G"]
        model = torchreid.models.build_model("osnet_x0_25", 3, pretrained=False).eval()
        maps = branch_maps(model, images)
        assert list(maps) == ["all"] and maps["all"].shape == (2, 4, 2)

    def test_a_network_without_feature_maps(self, images):
        model = torchreid.models.build_model("resnet18", 3, pretrained=False)
        with pytest.raises(ValueError, match=r"ResNet: .*return_featuremaps.*osnet"):
            branch_maps(model, images)

    def test_an_image_without_activity_is_all_zero(self, images):
        model = tiny_model(branches=["G"]).eval()
        for parameter in model.parameters():
            torch.nn.init.zeros_(parameter)
        assert not branch_maps(model, images)["G"].any()


class TestInfluence:
    def test_parts_of_the_embedding_are_the_branches(self, images):
        model = tiny_model().eval()
        with torch.no_grad():
            embedding = model(images)
            layer3, layer4 = model.backbone(images)
            masks = model.mask_module(layer4, None)[1]
            outputs = {
                name: branch(layer3, layer4, masks, training=False).embedding
                for name, branch in model.branches.items()
            }
        parts = embedding_parts(model, embedding.shape[1])
        assert list(parts) == ["G", "SAB", "SFB", "all"]
        for name, expected in outputs.items():
            torch.testing.assert_close(embedding[:, parts[name]], expected)
        assert parts["all"] == slice(0, embedding.shape[1])
        assert list(embedding_parts(tiny_model(branches=["G"]), 32)) == ["all"]

    def test_only_regions_that_the_network_uses_move_the_embedding(self, images):
        labels = torch.zeros(2, 64, 32, dtype=torch.uint8)
        labels[:, :16], labels[0, 48:] = HEAD, FOOT
        seen = images.clone()

        def embed(pictures):  # first number: the upper quarter; second: the lower half
            upper, lower = pictures[:, :, :16].square(), pictures[:, :, 32:].square()
            return torch.stack([upper.mean((1, 2, 3)) + 0.1, lower.mean((1, 2, 3)) + 0.1], dim=1)

        parts = {"first": slice(0, 1), "all": slice(0, 2)}
        moved = region_influence(embed, seen, labels, parts)
        assert torch.equal(seen, images)
        assert moved["all"].shape == (2, 8)
        shown = [[HEAD, FOOT], [HEAD]]
        for image, regions in enumerate(shown):
            found = moved["all"][image].isfinite().nonzero().flatten().tolist()
            assert found == regions
        blanked = images.clone()
        blanked[:, :, :16] = 0
        cosine = torch.cosine_similarity(embed(images), embed(blanked))
        torch.testing.assert_close(moved["all"][:, HEAD], 1 - cosine)
        torch.testing.assert_close(moved["first"][:, HEAD], torch.zeros(2))

    def test_table_is_the_mean_over_images_that_show_the_region(self):
        moved = np.full((2, 8), np.nan)
        moved[:, HEAD], moved[0, FOOT] = (0.2, 0.4), 0.1
        moved[:, 2:7] = 0.5
        lines = influence_table({"G": moved}).splitlines()
        assert lines[0].startswith("| | head | upper arm | lower arm | chest | upper leg | ")
        assert lines[2] == "| G | 0.300 | 0.500 | 0.500 | 0.500 | 0.500 | 0.500 | 0.100 |"

    def test_a_region_that_no_image_shows_has_no_mean(self):
        moved = np.full((2, 8), np.nan)
        moved[:, HEAD] = 0.2
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            line = influence_table({"G": moved}).splitlines()[2]
        assert line == "| G | 0.200 | – | – | – | – | – | – |"


class TestSheets:
    def test_heat_is_painted_from_blue_to_red(self):
        grey = np.full((8, 4, 3), 128, dtype=np.uint8)
        heat = np.zeros((8, 4), dtype=np.float32)
        heat[4:] = 1
        painted = heat_overlay(grey, heat, opacity=1.0).astype(int)
        assert painted[0, 0, 2] > painted[0, 0, 0] and painted[-1, 0, 0] > painted[-1, 0, 2]

    def test_pixels_without_heat_are_unpainted(self):
        photo = np.random.default_rng(0).integers(0, 255, (8, 4, 3), dtype=np.uint8)
        labels = np.zeros((8, 4), dtype=np.uint8)
        labels[:2], labels[6:] = HEAD, 255
        moved = np.full(8, np.nan)
        moved[HEAD] = 0.02
        heat = region_heat(labels, moved)
        assert np.isnan(heat[2:]).all() and (heat[:2] == 1).all()
        painted = heat_overlay(photo, heat)
        assert (painted[2:] == photo[2:]).all() and (painted[:2] != photo[:2]).any()

    def test_a_row_for_each_image_and_a_column_for_each_map(self):
        photos = [np.full((64, 32, 3), shade, dtype=np.uint8) for shade in (50, 100, 150)]
        maps = {name: [np.eye(4, 2, dtype=np.float32)] * 3 for name in ("G", "SAB")}
        sheet = saliency_sheet(photos, maps, LOWEST_TO_HIGHEST)
        step = 32 * 4 + 6  # enlarged four times, to about 224 pixels
        assert sheet.size == (3 * step + 6, 2 * 22 + 3 * (64 * 4 + 6))
        for row, shade in enumerate((50, 100, 150)):
            assert sheet.getpixel((6 + 64, 22 + row * 262 + 128)) == (shade,) * 3

    def test_the_legend_of_a_narrow_sheet_is_not_cut(self):
        photo, ids = np.full((96, 48, 3), 200, np.uint8), np.zeros((96, 48), np.uint8)
        legend = "low " * 20
        for draw in (
            lambda count: region_sheet([photo] * count, [ids] * count),
            lambda count: saliency_sheet([photo], {str(n): [ids] for n in range(count)}, legend),
        ):
            narrow, wide = (np.asarray(draw(count))[-20:] < 128 for count in (1, 20))
            assert narrow.sum() == wide.sum() > 0

    def test_every_region_has_a_colour_from_its_own_value(self):
        moved = np.array([np.nan, *range(1, 8)])
        labels = np.array([[0, *BODY_REGIONS]], dtype=np.uint8)
        assert np.allclose(region_heat(labels, moved)[0, 1:], np.arange(1, 8) / 7)
