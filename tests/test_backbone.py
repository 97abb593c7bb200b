"""Backbones, and ImageNet weights from files, the environment and torch's cache."""

import pickle
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision

from magnifier_plugin import build_model
from magnifier_plugin.models import backbone as backbones
from magnifier_plugin.models.backbone import Backbone, load_backbone_weights, read_weights

CLASSES = 5


class TestBackbone:
    def test_layers_are_torchvisions(self):
        ours, theirs = Backbone("resnet50"), torchvision.models.resnet50(weights=None)
        state = theirs.state_dict()
        assert set(ours.state_dict()) == set(state) - {"fc.weight", "fc.bias"}

    def test_stem_without_relu(self):
        stems = [Backbone("resnet18", stem_relu=flag).eval() for flag in (True, False)]
        stems[1].load_state_dict(stems[0].state_dict())
        images = torch.randn(1, 3, 64, 32)
        plain, expected = (stem.bn1(stem.conv1(images)) for stem in stems)
        for stem, features in ((stems[0], plain.relu()), (stems[1], expected)):
            features = stem.layer2(stem.layer1(stem.maxpool(features)))
            assert torch.equal(stem(images)[0], stem.layer3(features))


def saved(folder, name="resnet18"):
    path = folder / f"{name}.pth"
    torch.save(getattr(torchvision.models, name)(weights=None).state_dict(), path)
    return path


# torch warns about unexpected content before it refuses a file.
@pytest.mark.filterwarnings("ignore:Detected pickle protocol", "ignore:Validating sparse")
class TestWeights:
    def test_weights_from_a_file_and_from_the_environment(self, tmp_path, monkeypatch):
        path = saved(tmp_path)
        expected = torch.load(path)["layer4.1.conv2.weight"]
        name = "magnifiernet_resnet18"
        model = build_model(name, CLASSES, backbone_weights=path)
        assert torch.equal(model.backbone.layer4[1].conv2.weight, expected)
        monkeypatch.setenv(backbones.WEIGHTS_VARIABLE, str(path))
        model = build_model(name, CLASSES)
        assert torch.equal(model.backbone.layer4[1].conv2.weight, expected)
        monkeypatch.setenv(backbones.WEIGHTS_VARIABLE, "none")
        assert not torch.equal(build_model(name, CLASSES).backbone.layer4[1].conv2.weight, expected)

    def test_random_weights_from_the_environment_are_logged(self, monkeypatch, caplog):
        monkeypatch.setenv(backbones.WEIGHTS_VARIABLE, "None")
        load_backbone_weights(Backbone("resnet18"), "none")
        assert not caplog.records
        load_backbone_weights(Backbone("resnet18"))
        (record,) = caplog.records
        assert record.levelname == "WARNING"
        assert "resnet18: random weights, because MAGNIFIER_BACKBONE_WEIGHTS is none" in caplog.text

    def test_the_backbone_of_a_checkpoint(self, tmp_path):
        trained = build_model("magnifiernet_resnet18", 3, pretrained=False, branches=["G"])
        path = tmp_path / "model-best.pth.tar"
        torch.save({"state_dict": trained.state_dict(), "epoch": 7}, path)
        for name in ("magnifiernet_resnet18", "dsa_reid_resnet18"):
            model = build_model(name, CLASSES, backbone_weights=path)
            for key, value in model.backbone.state_dict().items():
                assert torch.equal(value, trained.backbone.state_dict()[key]), key
        other = build_model("magnifiernet_resnet34", 3, pretrained=False, branches=["G"])
        torch.save({"state_dict": other.state_dict()}, path)
        with pytest.raises(ValueError, match=r"of torchvision's resnet50.*magnifier.backbone"):
            load_backbone_weights(Backbone("resnet50"), path)

    def test_wrong_files_are_reported(self, tmp_path):
        path = saved(tmp_path, "resnet34")
        with pytest.raises(ValueError, match=r"of torchvision's resnet50.*magnifier.backbone"):
            load_backbone_weights(Backbone("resnet50"), path)
        with pytest.raises(FileNotFoundError, match="backbone_weights"):
            load_backbone_weights(Backbone("resnet18"), tmp_path / "missing.pth")
        path.write_bytes(b"not weights")
        with pytest.raises(ValueError, match="weights_only=True"):
            load_backbone_weights(Backbone("resnet18"), path)

    def test_numbers_that_are_not_finite_are_reported(self, tmp_path):
        state = Backbone("resnet18").state_dict()
        state["layer1.0.bn1.weight"][3] = torch.nan
        torch.save(state, tmp_path / "weights.pth")
        with pytest.raises(ValueError, match=r"1 of 120 tensors.*not finite.*layer1.0.bn1.weight"):
            load_backbone_weights(Backbone("resnet18"), tmp_path / "weights.pth")

    def test_files_without_counts_of_batches_load(self, tmp_path):
        state = Backbone("resnet18").state_dict()
        kept = {key: x for key, x in state.items() if not key.endswith("num_batches_tracked")}
        torch.save(kept, tmp_path / "weights.pth")
        loaded = Backbone("resnet18")
        load_backbone_weights(loaded, tmp_path / "weights.pth")
        assert torch.equal(loaded.conv1.weight, state["conv1.weight"])

    @pytest.mark.parametrize(
        "content",
        [
            {"epoch": 3},
            [1, 2],
            torch.ones(3),
            {"state_dict": 5},
            {7: torch.ones(3)},
            {"conv1.weight": torch.ones(3).to_sparse()},
            {"conv1.weight": torch.ones(3, dtype=torch.complex64)},
            {"conv1.weight": torch.ones(3, device="meta")},
        ],
        ids=str,
    )
    def test_other_content_is_reported(self, tmp_path, content):
        torch.save(content, tmp_path / "weights.pth")
        with pytest.raises(ValueError, match=r"weights.pth: expected a dictionary of names"):
            load_backbone_weights(Backbone("resnet18"), tmp_path / "weights.pth")

    @pytest.mark.parametrize("legacy", [False, True])
    def test_damage_anywhere_is_a_value_error(self, tmp_path, legacy):
        path = tmp_path / "weights.pth"
        content = {"conv1.weight": torch.ones(5), "bn1.weight": torch.ones(2)}
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        whole = path.read_bytes()
        reported = 0
        for place in range(0, len(whole), 7):
            for damaged in (whole[:place], whole[:place] + b"\xff" + whole[place + 1 :]):
                path.write_bytes(damaged)
                try:
                    read_weights(path)  # some damage only changes padding or a number
                except ValueError as error:
                    assert str(path) in str(error)
                    reported += 1
        assert reported > len(whole) / 7

    def test_without_network_the_error_names_the_ways_out(self, monkeypatch, tmp_path):
        def refuse(*args, **kwargs):
            raise URLError("no route to host")

        monkeypatch.delenv(backbones.WEIGHTS_VARIABLE, raising=False)
        monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        with pytest.raises(FileNotFoundError, match=r"backbone_weights.*pretrained False"):
            load_backbone_weights(Backbone("resnet18"))

    def in_cache(self, monkeypatch, tmp_path, name="resnet18"):
        """The path where torch stores torchvision's download of a network."""
        monkeypatch.delenv(backbones.WEIGHTS_VARIABLE, raising=False)
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        url = torchvision.models.get_model_weights(name).IMAGENET1K_V1.url
        path = tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2]
        path.parent.mkdir(parents=True)
        return path

    def test_a_file_in_the_cache_is_loaded(self, monkeypatch, tmp_path):
        path = self.in_cache(monkeypatch, tmp_path)
        saved(tmp_path).rename(path)
        model = build_model("magnifiernet_resnet18", CLASSES)
        assert torch.equal(model.backbone.conv1.weight, torch.load(path)["conv1.weight"])

    @pytest.mark.parametrize("protocol", [2, 4])
    def test_code_in_the_cache_is_not_run(self, monkeypatch, tmp_path, protocol):
        class Payload:
            def __reduce__(self):
                return Path.touch, (tmp_path / "was run",)

        path = self.in_cache(monkeypatch, tmp_path)
        for plant in (
            lambda: path.write_bytes(pickle.dumps(Payload(), protocol)),
            lambda: torch.save({"conv1.weight": Payload()}, path),
            lambda: torch.save(Payload(), path, _use_new_zipfile_serialization=False),
        ):
            plant()
            with pytest.raises(ValueError, match=f"{path.name}.*weights_only=True.*delete it"):
                build_model("magnifiernet_resnet18", CLASSES)
            assert not (tmp_path / "was run").exists()

    def test_a_damaged_download_is_reported_and_not_kept(self, monkeypatch, tmp_path):
        path = self.in_cache(monkeypatch, tmp_path)
        source = saved(tmp_path)
        url = source.as_uri()
        download = torch.hub.download_url_to_file
        monkeypatch.setattr(
            "torch.hub.download_url_to_file",
            lambda _, *args, **kwargs: download(url, *args, **kwargs),
        )
        with pytest.raises(ValueError, match="download is damaged.*hash"):
            load_backbone_weights(Backbone("resnet18"))
        assert not path.exists()
