"""What `test_options_arrive.py` inspects: a run (built or finished), a network, a criterion.

The data are a tiny Market-1501 and the network of a run is tiny too, so that each row is quick.
"""

import functools
import itertools
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from conftest import MarketFolder, make_market
from engines import make_engine
from PIL import Image
from tiny import tiny_model
from torch import nn

from magnifier_plugin import builders, recipe, systems
from magnifier_plugin.annotators.densepose import write_iuv
from magnifier_plugin.catalogue.names import registered_datasets
from magnifier_plugin.config import load_config
from magnifier_plugin.engine.rotation import Checkpoints
from magnifier_plugin.engine.stages import Stage
from magnifier_plugin.evaluation import evaluator
from magnifier_plugin.masks.paths import iuv_path, label_path
from magnifier_plugin.models import build

BASE = """
amp: "off"
channels_last: "off"
model: {pretrained: false}
magnifier: {backbone: resnet18}
data: {height: 32, width: 16, workers: 0}
sampler: {train_sampler: RandomIdentitySampler, num_instances: 2}
train: {batch_size: 4, max_epoch: 1}
"""
DSA = "model.name dsa_reid loss.name dsa dsa.backbone resnet18"
Market1501 = registered_datasets()["market1501"]


class Recording(Market1501):
    """Market-1501 that keeps the arguments it was built with."""

    opened: list

    def __init__(self, root, **arguments):
        type(self).opened.append(arguments)
        names = ("transform", "mode", "combineall", "verbose")
        super().__init__(root=root, **{k: v for k, v in arguments.items() if k in names})


class Stub(nn.Module):
    """A network that only declares its inputs."""

    def __init__(self, inputs):
        super().__init__()
        self.training_inputs, self.test_inputs = inputs
        self.layer = nn.Linear(1, 1)


class Built(NamedTuple):
    """An engine before its run, and how each data set was opened."""

    cfg: object
    engine: object
    start_epoch: int
    opened: dict
    """Name of the data set → keyword arguments of each opening."""
    deterministic: bool
    """Whether torch was told to choose deterministic algorithms."""


class Ran(NamedTuple):
    """A finished run."""

    engine: object
    folder: Path
    log: list
    evaluations: list
    """(evaluator, keyword arguments of `evaluate`) of each test, one per target."""
    reranked: list
    """(positional arguments after the features, keyword arguments) of each re-ranking."""
    saved: list
    """(epoch, whether a test came before) of each checkpoint."""
    trained: list
    """Names of the layers that each epoch trained."""


class Runs:
    """Builds what the rows inspect; equal configurations are built once.

    Args:
        folder: a folder that only this object uses.
    """

    def __init__(self, folder: Path):
        self.folder, self.base = folder, folder / "base.yaml"
        self.base.write_text(BASE)
        self.market, self.other = (self._market(folder / name) for name in ("first", "second"))
        queries = sorted(self.market.images.glob("query/*.jpg"))
        lines = [f"{path},{n % 2}sun" for n, path in enumerate(queries)]
        (folder / "conditions.csv").write_text("\n".join(["path,weather", *lines]) + "\n")
        model = tiny_model()
        nn.init.constant_(model.backbone.conv1.bias, 7.0)
        self.checkpoint = folder / "model.pth"
        torch.save({"state_dict": model.state_dict()}, self.checkpoint)
        make_engine(self.market, [Stage(max_epoch=2)]).run(save_dir=folder / "earlier", max_epoch=1)
        self.resumable = folder / "earlier" / "model" / "model.pth.tar-1"
        self.numbers = itertools.count()
        for name in ("built", "ran", "network", "criterion", "pretrained"):
            setattr(self, name, functools.cache(getattr(self, name)))

    @staticmethod
    def _market(root: Path) -> MarketFolder:
        folder = make_market(root)
        for number, image in enumerate(sorted(folder.images.rglob("*.jpg"))):
            iuv = np.zeros((32, 16, 3), np.uint8)
            iuv[..., 0] = np.random.default_rng(number).integers(0, 25, (32, 16))
            label = label_path(image, root / "market1501", "market1501", folder.masks_dir)
            write_iuv(iuv_path(label), iuv)
        for name in ("second", "synthetic"):  # the same images under other names
            (folder.masks_dir / name).symlink_to(folder.masks_dir / "market1501")
        return folder

    def load(self, line: str):
        """The configuration of a line of KEY VALUE pairs; {…} stands for this object's paths."""
        save_dir = self.folder / f"log-{next(self.numbers)}"
        where = f"data.root {self.market.root} masks.dir {self.market.masks_dir} "
        words = f"{where} data.save_dir {save_dir} {line}".format(runs=self).split()
        return load_config(self.base, {}, words)

    def _patch(self, patch: pytest.MonkeyPatch) -> dict:
        """Tiny networks, and data sets that record how they were opened."""
        opened = {}
        for name in ("market1501", "second", "synthetic"):
            kind = type(name, (Recording,), {"opened": opened.setdefault(name, [])})
            patch.setitem(registered_datasets(), name, kind)
        patch.setattr(recipe, "build_network", self._tiny)
        return opened

    @staticmethod
    def _tiny(cfg, system, num_classes, **_):
        if system.section == "magnifier":
            return tiny_model(num_classes, cfg.loss.name)
        return Stub(system.inputs(cfg))

    def built(self, line: str) -> Built:
        with pytest.MonkeyPatch.context() as patch:
            opened = self._patch(patch)
            patch.setattr(recipe, "_run", lambda cfg, system, engine, start: (engine, start))
            cfg = self.load(line)
            built = recipe.prepare(cfg)()
            deterministic = torch.are_deterministic_algorithms_enabled()
            recipe.set_deterministic(False)
            return Built(cfg, *built, opened, deterministic)

    def ran(self, line: str) -> Ran:
        log, evaluations, reranked, saved, trained = [], [], [], [], []
        handler = logging.Handler()
        handler.emit = lambda record: log.append(record.getMessage())
        with pytest.MonkeyPatch.context() as patch:
            self._patch(patch)
            self._spy(patch, evaluations, reranked, saved, trained)
            cfg = self.load(line)
            logger = logging.getLogger("magnifier_plugin")
            patch.setattr(logger, "handlers", [handler])
            patch.setattr(logger, "level", logging.INFO)
            logger.manager._clear_cache()
            engine = recipe.prepare(cfg)()
        folder = Path(cfg.data.save_dir)
        return Ran(engine, folder, log, evaluations, reranked, saved, trained)

    @staticmethod
    def _spy(patch, evaluations, reranked, saved, trained):
        kind = recipe.StagedEngine
        evaluate, rerank = evaluator.Evaluator.evaluate, evaluator.rerank
        step = kind.forward_backward

        def watched_evaluate(self, *loaders, **options):
            evaluations.append((self, options))
            return evaluate(self, *loaders, **options)

        def watched_rerank(query, gallery, *arguments, **options):
            reranked.append((arguments, options))
            return rerank(query, gallery, *arguments, **options)

        def watched_step(self, batch):
            if self.epoch == len(trained):
                opened = (n for n, p in self.model.named_parameters() if p.requires_grad)
                trained.append(sorted({name.partition(".")[0] for name in opened}))
            return step(self, batch)

        def watched_save(self, content, mAP=None):
            saved.append((content["epoch"], mAP is not None))
            return self.folder

        patch.setattr(evaluator.Evaluator, "evaluate", watched_evaluate)
        patch.setattr(evaluator, "rerank", watched_rerank)
        patch.setattr(kind, "forward_backward", watched_step)
        patch.setattr(Checkpoints, "save", watched_save)

    def network(self, line: str) -> nn.Module:
        cfg = self.load(line)
        return builders.build_network(cfg, builders.find_system(cfg), 5)

    def criterion(self, line: str) -> nn.Module:
        cfg = self.load(line)
        return builders.build_criterion(cfg, builders.find_system(cfg))

    def pretrained(self, line: str) -> list:
        """The files of ImageNet weights that building a network asks for."""
        asked = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(build, "load_backbone_weights", lambda _, file: asked.append(file))
            self.network(line)
        return asked

    def texture_picture(self, line: str) -> SimpleNamespace:
        """The arguments with which the figure of textures is drawn."""
        drawn = SimpleNamespace(count=0, options=None)

        def draw(files, **options):
            drawn.count, drawn.options = len(files), options
            return Image.new("RGB", (4, 4))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(systems, "file_texture_sheet", draw)
            built = self.built(line)
            folder = Path(built.cfg.data.save_dir)
            systems.SYSTEMS["dsa_reid"].pictures(built.engine, built.cfg, folder)
        return drawn
