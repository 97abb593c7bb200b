"""Export to ONNX: the graph's results, refusals, the comparison, the script."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mask_inputs import PROJECT, script
from PIL import Image
from tiny import tiny_model
from torch import nn

from magnifier_plugin import build_model, export
from magnifier_plugin.config import load_config
from magnifier_plugin.data.pixels import ToImageTensor
from magnifier_plugin.models import pooling
from magnifier_plugin.models.exported import ExportedNetwork
from magnifier_plugin.regions import REGIONS
from magnifier_plugin.synthetic.samples import rendered_people

SIZE, MEAN, STD = (64, 32), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
STEPS = ToImageTensor(MEAN, STD)
CONFIG, DSA_CONFIG = (PROJECT / "configs" / f"{name}_demo.yaml" for name in ("magnifier", "dsa"))
README = PROJECT / "magnifier_plugin" / "models" / "README.md"
BRANCHES = [("G",), ("G", "M"), ("G", "M", "SAB"), ("G", "M", "SFB"), ("G", "M", "SAB", "SFB")]


def with_regions(model):
    """The network, changed so that its head predicts more than one region."""
    torch.manual_seed(1)
    nn.init.normal_(model.mask_module.head.predict.weight)
    return model


def tiny(**options):
    torch.manual_seed(0)
    model = tiny_model(**options)
    return with_regions(model) if model.predicts_regions else model


def resnet18(name="magnifiernet", **options):
    torch.manual_seed(0)
    return build_model(f"{name}_resnet18", 3, pretrained=False, **options)


def write(model, path, **options):
    return export.export_onnx(model, path, size=SIZE, mean=MEAN, std=STD, **options)


def save(folder, state, **record):
    """A checkpoint."""
    torch.save({"epoch": 1, "state_dict": state, "record": record}, folder / "model.pth.tar-1")
    return folder / "model.pth.tar-1"


def agreement(**changes):
    same = export.Agreement(difference=1e-6, images=16, compared=16, cells=2000, equal_cells=2000)
    return same._replace(**changes)


@pytest.fixture(scope="module")
def people():
    return rendered_people(SIZE)


class TestGraph:
    """The exported graph, without the packages of the extra `onnx`."""

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("rescaling", pooling.RESCALINGS)
    def test_plain_pooling_is_the_fast_one(self, dtype, rescaling):
        generator = torch.manual_seed(0)
        features = torch.randn(3, 5, 6, 4, generator=generator, dtype=torch.float64).to(dtype)
        labels = torch.randint(0, 8, (3, 12, 8), generator=generator)
        labels[0] = 0  # one region everywhere, the others absent
        masks = pooling.region_masks(labels, (6, 4), rescaling)
        plain = pooling.plain_region_max_pool(features, masks)
        assert plain.dtype == dtype
        assert torch.equal(plain, pooling.region_max_pool(features, masks))

    @pytest.mark.filterwarnings("ignore:The tensor attributes")  # of torch's own GRU
    def test_the_batch_of_an_exported_network_is_free(self, people):
        network = ExportedNetwork(tiny().eval(), STEPS, unit_length=True)
        graph = torch.export.export(
            network, (people[:2],), dynamic_shapes={"images": {0: torch.export.Dim("N", max=2**20)}}
        )
        called = {str(node.target) for node in graph.graph.nodes}
        assert not {name for name in called if "nonzero" in name or "scatter" in name}
        with torch.no_grad():
            for some in (people[:1], people):
                torch.testing.assert_close(graph.module()(some), network(some))

    def test_input_and_embedding(self, people):
        model = tiny().eval()
        images = STEPS.normalise(people)
        with torch.no_grad():
            raw = model(images)
            plain, regions = ExportedNetwork(model, None, unit_length=False)(images)
            unit, same = ExportedNetwork(model, STEPS, unit_length=True)(people)
        assert torch.equal(plain, raw)
        torch.testing.assert_close(unit, raw / raw.norm(dim=1, keepdim=True))
        assert regions.dtype == torch.uint8
        assert torch.equal(regions, model.predict_regions(images))
        assert torch.equal(same, regions)
        assert len(regions.unique()) > 1

    def test_no_region_maps_without_m(self, people):
        network = ExportedNetwork(tiny(branches=["G"]).eval(), STEPS, unit_length=False)
        assert len(network(people)) == 1
        with pytest.raises(ValueError, match="predicted by M"):
            network.network.embed_with_regions(people.float())

    def test_people(self, people):
        assert people.shape == (16, 3, *SIZE)
        assert people.dtype == torch.uint8
        assert torch.equal(people, rendered_people(SIZE))
        assert (people.float().std(dim=(1, 2, 3)) > 10).all()


class TestRefusals:
    def test_networks_that_test_with_textures(self, tmp_path, monkeypatch):
        monkeypatch.setattr(export, "PACKAGES", ())
        for row in ({"test_features": "z"}, {"streams": ["DSAG"], "test_features": "z_L"}):
            model = resnet18("dsa_reid", width=0.1, **row)
            with pytest.raises(ValueError, match="also needs textures; use dsa.test_features f"):
                write(model, tmp_path / "a.onnx")
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("model", [lambda: tiny(branches=["G"]), lambda: nn.Linear(2, 2)])
    def test_regions_of_a_network_that_predicts_none(self, model, tmp_path, monkeypatch):
        monkeypatch.setattr(export, "PACKAGES", ())
        with pytest.raises(ValueError, match="this network predicts none"):
            write(model(), tmp_path / "a.onnx", regions=True)

    def test_missing_packages(self, tmp_path, monkeypatch):
        monkeypatch.setattr(export, "PACKAGES", ("torch", "no_such_package"))
        with pytest.raises(ModuleNotFoundError, match=r'found no no_such_package; .*"\.\[onnx\]"'):
            write(tiny(), tmp_path / "a.onnx")

    @pytest.mark.parametrize("folder", ["file", "/proc"])
    def test_a_path_that_cannot_be_written_costs_no_work(self, folder, tmp_path, monkeypatch):
        if not Path("/proc").is_dir() and folder == "/proc":
            pytest.skip("no folder here that root cannot write either")
        monkeypatch.setattr(export, "PACKAGES", ())
        monkeypatch.setattr(export, "_to_onnx", None)
        (tmp_path / "file").touch()
        with pytest.raises(OSError, match=folder):
            write(tiny(), tmp_path / folder / "a.onnx")

    @pytest.mark.parametrize(
        ("changes", "close", "text"),
        [
            ({}, True, "1.0e-06 (at most 0.001) of the embeddings of 16 of 16 rendered people;"),
            ({"difference": 1e-3, "equal_cells": 1998}, True, "99.900 % (at least 99.9 %)"),
            ({"difference": 1.001e-3}, False, "1.0e-03"),
            ({"difference": float("nan")}, False, "nan"),
            ({"equal_cells": 1997}, False, "99.850 % (at least 99.9 %) of 2,000 cells"),
            ({"compared": 0}, False, "0 of 16 rendered people, those whose region maps agree"),
            ({"cells": 0, "equal_cells": 0}, True, "no region maps"),
        ],
    )
    def test_limits(self, changes, close, text):
        result = agreement(**changes)
        assert result.is_close == close
        assert text in str(result)


class TestScript:
    """Errors before the export."""

    def test_weights_of_another_model(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(export, "PACKAGES", ())
        model = resnet18("dsa_reid", streams=["MF"])
        path = save(tmp_path, model.state_dict())
        line = f"--config-file {CONFIG} --weights {path} --out {tmp_path / 'a.onnx'}"
        assert script("export_onnx").main(line.split()) == 2
        assert "the file belongs to another model" in capsys.readouterr().err
        assert not (tmp_path / "a.onnx").exists()

    def test_rows_that_test_with_textures(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(export, "PACKAGES", ())
        path = save(tmp_path, {})
        line = f"--config-file {DSA_CONFIG} --weights {path} --out {tmp_path / 'a.onnx'}"
        assert script("export_onnx").main([*line.split(), "dsa.test_features", "z"]) == 2
        assert "takes textures besides the image" in capsys.readouterr().err

    def test_missing_packages(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(export, "PACKAGES", ("no_such_package",))
        line = f"--weights {tmp_path / 'a'} --out {tmp_path / 'a.onnx'}"
        assert script("export_onnx").main(line.split()) == 2
        assert "found no no_such_package; pip install" in capsys.readouterr().err

    @pytest.mark.parametrize(
        "key", ["test.flip", "test.amp", "test.batch_size", "data.workers", "channels_last"]
    )
    def test_a_key_without_effect(self, key, tmp_path, capsys):
        line = f"--weights {tmp_path / 'a'} --out {tmp_path / 'a.onnx'} {key} 1"
        assert script("export_onnx").main(line.split()) == 2
        assert f"{key}: has no effect here" in capsys.readouterr().err

    @pytest.mark.parametrize("flip", [True, False])
    def test_a_recorded_flip_is_reported(self, flip, tmp_path, monkeypatch, capsys):
        module, given = script("export_onnx"), {}

        def write(network, path, *, metadata, **options):
            given.update(metadata)
            path.touch()

        monkeypatch.setattr(module, "check_packages", lambda: None)
        monkeypatch.setattr(module, "export_onnx", write)
        cfg = load_config(CONFIG, pairs=["test.flip", str(flip)])
        weights = save(tmp_path, resnet18().state_dict(), configuration=cfg.dump())
        assert module.main(f"--weights {weights} --out {tmp_path / 'a.onnx'}".split()) == 0
        assert given["test.flip"] == str(flip)
        assert ("does not average with mirror images" in capsys.readouterr().out) == flip

    @pytest.mark.parametrize("name", ["model.pb", "folder.onnx"])
    def test_out(self, name, tmp_path, capsys):
        (tmp_path / "folder.onnx").mkdir()
        with pytest.raises(SystemExit, match="2"):
            script("export_onnx").main(["--weights", "b", "--out", str(tmp_path / name)])
        assert "--out: expected a .onnx file to write, got" in capsys.readouterr().err


def session(path):
    import onnxruntime

    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def check(model, path, **options):
    """Exports, then compares with the network on other images than the export did."""
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert write(model.train(), path, **options).is_close
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    ran = session(path)
    pixels = torch.randint(0, 256, (7, 3, *SIZE), dtype=torch.uint8)
    images = STEPS.normalise(pixels)
    with torch.no_grad():
        expected = model.eval()(images)
    if options.get("normalise"):
        expected = nn.functional.normalize(expected)
    for count in (1, 7):
        given = (pixels if options.get("uint8") else images)[:count].numpy()
        embedding, *rest = ran.run(None, {"images": given})
        assert embedding.shape == (count, model.feature_dim)
        error = (torch.from_numpy(embedding) - expected[:count]).norm() / expected[:count].norm()
        assert error < 1e-4
        assert len(rest) == bool(options.get("regions"))
        for regions in rest:
            share = torch.from_numpy(regions) == model.predict_regions(images[:count])
            assert share.float().mean() > 0.99
    return ran


@pytest.fixture(scope="class")
def graph():
    """The tiny network's graph, exported once."""
    return export._to_onnx(ExportedNetwork(tiny().eval(), None, unit_length=False), SIZE)


@pytest.mark.onnx
class TestOnnx:
    @pytest.mark.parametrize("branches", BRANCHES, ids="+".join)
    def test_rows_of_table_2(self, branches, tmp_path):
        check(tiny(branches=branches), tmp_path / "a.onnx")

    @pytest.mark.parametrize("fusion", ["lstm", "concat", "concat-reduced"])
    def test_fusions(self, fusion, tmp_path):
        check(tiny(fusion=fusion), tmp_path / "a.onnx")

    @pytest.mark.parametrize("rescaling", ["nearest", "nearest-corner"])
    def test_rescalings(self, rescaling, tmp_path):
        check(tiny(mask_rescaling=rescaling), tmp_path / "a.onnx", regions=True)

    def test_authors_network(self, tmp_path):
        options = {"stem_relu": False, "mask_rescaling": "nearest-corner", "fusion": "lstm"}
        model = with_regions(resnet18(authors_bias=True, **options))
        check(model, tmp_path / "a.onnx", regions=True)

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"branches": ["global"]},
            {"branches": ["local"]},
            {"streams": ["MF"]},
        ],
        ids=str,
    )
    def test_dsa(self, options, tmp_path):
        model = resnet18("dsa_reid", width=0.1, **options)
        check(model, tmp_path / "a.onnx", normalise=True)
        used = sum(p.numel() for p in (*model.backbone.parameters(), *model.head.parameters()))
        size = (tmp_path / "a.onnx").stat().st_size
        # The file holds nothing that only training needs.
        assert 4 * used < size + 1e5 < 4.1 * used + 2e5

    def test_all_options_and_the_metadata(self, tmp_path):
        path = tmp_path / "new" / "a.onnx"
        ran = check(
            with_regions(resnet18()),
            path,
            **{"uint8": True, "normalise": True, "regions": True, "metadata": {"dataset": "x"}},
        )
        described = [(i.name, i.type, i.shape) for i in (*ran.get_inputs(), *ran.get_outputs())]
        assert described == [
            ("images", "tensor(uint8)", ["N", 3, *SIZE]),
            ("embedding", "tensor(float)", ["N", 1024]),
            ("regions", "tensor(uint8)", ["N", 8, 4]),
        ]
        metadata = ran.get_modelmeta().custom_metadata_map
        assert metadata == {
            "size": "[64, 32]",
            "mean": json.dumps(MEAN),
            "std": json.dumps(STD),
            "input": "RGB, uint8",
            "embedding": "unit length",
            "regions": ", ".join(REGIONS),
            "dataset": "x",
        }
        assert [file.name for file in path.parent.iterdir()] == ["a.onnx"]

    def test_a_model_of_torchreid(self, tmp_path):
        import torchreid

        model = torchreid.models.build_model("resnet18", 3, pretrained=False)
        check(model, tmp_path / "a.onnx")

    def test_what_torch_cannot_export(self, tmp_path):
        class Undecided(nn.Module):
            def forward(self, images):
                return images.flatten(1) if images.sum() > 0 else images.flatten(1) * 2

        with pytest.raises(ValueError, match="torch cannot export this network"):
            write(Undecided(), tmp_path / "a.onnx")
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("wrong", ["embedding", "regions"])
    def test_a_file_that_differs_is_not_written(self, wrong, graph, tmp_path, monkeypatch):
        run = export._run

        def changed(model, images, output):
            result = run(model, images, output)
            if output != wrong:
                return result
            return result * 1.01 if wrong == "embedding" else (result + 1) % 8

        monkeypatch.setattr(export, "_run", changed)
        monkeypatch.setattr(export, "_to_onnx", lambda *_: graph)
        path = tmp_path / "a.onnx"
        path.write_text("old")
        figure = {"embedding": r"1\.0e-02 \(at", "regions": r"0 of 16 .* 0\.000 %"}[wrong]
        with pytest.raises(ValueError, match=rf"not written, onnxruntime's .*{figure}"):
            write(tiny(), path)
        assert [file.name for file in tmp_path.iterdir()] == ["a.onnx"]
        assert path.read_text() == "old"

    def test_script(self, tmp_path, monkeypatch, capsys):
        cfg = load_config(CONFIG, pairs=["data.sources", "['shop=/home/me/photos']"])
        weights = save(tmp_path, with_regions(resnet18()).state_dict(), configuration=cfg.dump())
        out = tmp_path / "a.onnx"
        line = f"--weights {weights} --out {out} --uint8 --normalise --regions "
        line += "data.height 64 data.width 32"
        assert script("export_onnx").main(line.split()) == 0
        printed = capsys.readouterr().out
        assert "relative difference" in printed
        assert "% (at least 99.9 %) of 512 cells of the region maps agree" in printed
        ran = session(out)
        assert ran.get_inputs()[0].shape == ["N", 3, *SIZE]
        assert [output.name for output in ran.get_outputs()] == ["embedding", "regions"]
        metadata = ran.get_modelmeta().custom_metadata_map
        assert metadata["dataset"] == "shop"
        assert metadata["model"] == "magnifiernet"
        assert metadata["weights"] == weights.name
        assert metadata["magnifier_plugin"]
        assert json.loads(metadata["options"])["fusion"] == "gru"
        assert json.loads(metadata["mean"]) == cfg.data.norm_mean
        self.read_as_the_readme_does(out, tmp_path, monkeypatch)

    def read_as_the_readme_does(self, file, tmp_path, monkeypatch):
        (block,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
        monkeypatch.chdir(tmp_path)
        file.rename("model.onnx")
        Image.new("RGB", (50, 120), (200, 30, 90)).save("person.jpg")
        names = {}
        exec(block, names)
        assert names["embedding"].shape == (1, 1024)
        assert np.linalg.norm(names["embedding"]) == pytest.approx(1, abs=1e-5)
        assert names["regions"].shape == (1, 8, 4)
