"""Train and test: torchreid's main script, its flags and its keys.

python scripts/main.py --config-file configs/magnifier_market.yaml --root DATA
python scripts/main.py --config-file … -s market1501 -t dukemtmcreid train.max_epoch 120
"""

import os

# Threads that wait for each other sleep instead of spinning: readers of images, and whoever else
# works on this machine, get the cores meanwhile. It must be said before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import magnifier_plugin  # noqa: F401  before torchreid, one of whose warnings it keeps quiet

# isort: split
import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torchreid
from configured import build_criterion, build_datamanager, build_network, build_stages
from yacs.config import CfgNode

from magnifier_plugin.config import ConfigError, load_config
from magnifier_plugin.engine.checkpoint import load_matching, read_checkpoint
from magnifier_plugin.engine.console import logged_to
from magnifier_plugin.engine.engine import ImageMagnifierEngine
from magnifier_plugin.engine.report import results_table, save_pictures
from magnifier_plugin.engine.testing import EvaluatingEngine
from magnifier_plugin.evaluation.distances import METRICS

LISTS = ("-s", "--sources", "-t", "--targets", "--transforms")
WORDS = ("use_gpu", "amp", "channels_last")  # the keys without a dot
FLAG_KEYS = {
    "sources": "data.sources",
    "targets": "data.targets",
    "transforms": "data.transforms",
    "root": "data.root",
    "arch": "model.name",
}


def main(argv: Sequence[str]) -> int:
    """Run; returns the exit status."""
    arguments, pairs = parse(argv)
    if arguments.gpu_devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = arguments.gpu_devices
    flags = {
        key: value
        for flag, key in FLAG_KEYS.items()
        if (value := getattr(arguments, flag)) is not None
    }
    if "data.sources" in flags:  # torchreid's users test where they train unless they say otherwise
        flags.setdefault("data.targets", flags["data.sources"])
    try:
        cfg = load_config(arguments.config_file, flags, pairs)
        check(cfg)
    except (ConfigError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    with logged_to(cfg.data.save_dir, "test" if cfg.test.evaluate else "train"):
        print(f"Show configuration\n{cfg}\n")
        try:
            run = prepare(cfg)
        except (ValueError, FileNotFoundError, KeyError) as error:
            print(f"error: {error.args[0] if error.args else error}", file=sys.stderr)
            return 2
        run()
    return 0


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Split flags from KEY VALUE pairs: the first word that is a key ends every list of names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--config-file", default="", help="YAML, such as configs/magnifier_demo.yaml"
    )
    parser.add_argument("-s", "--sources", nargs="+", help="data sets to train on")
    parser.add_argument(
        "-t", "--targets", nargs="+", help="data sets to test on (default: sources)"
    )
    parser.add_argument("--transforms", nargs="+", help="augmentations")
    parser.add_argument("--root", help="folder of all data sets")
    parser.add_argument("-a", "--arch", help="model name, as torchreid.models.build_model takes it")
    parser.add_argument("--gpu-devices", default="", help="such as 0")
    parser.add_argument("pairs", nargs="*", metavar="KEY VALUE", help="override the configuration")
    end = len(argv)
    for place, word in enumerate(argv):
        is_value = place and argv[place - 1].startswith("-") and argv[place - 1] not in LISTS
        if not is_value and not word.startswith("-") and ("." in word or word in WORDS):
            end = place
            break
    arguments = parser.parse_args(argv[:end])
    return arguments, [*arguments.pairs, *argv[end:]]


def check(cfg: CfgNode) -> None:
    """Refuse what no engine here does."""
    if cfg.data.type != "image":
        raise ConfigError(
            f"data.type: expected image, got {cfg.data.type!r}; video data sets have no label maps"
        )
    if cfg.data.k_tfm != 1:
        raise ConfigError(
            f"data.k_tfm: no engine here takes several views of an image, got {cfg.data.k_tfm}"
        )
    if cfg.test.dist_metric not in METRICS:
        raise ConfigError(f"test.dist_metric: expected {METRICS}, got {cfg.test.dist_metric!r}")
    if not cfg.test.ranks or not all(isinstance(r, int) and r > 0 for r in cfg.test.ranks):
        raise ConfigError(f"test.ranks: expected numbers from 1, got {cfg.test.ranks}")
    if cfg.test.visrank and not cfg.test.evaluate:
        raise ConfigError("test.visrank: draws in a test only; add test.evaluate True")


def prepare(cfg: CfgNode) -> Any:
    """Build everything; returns what runs it. What a user can get wrong is told here."""
    torchreid.utils.set_random_seed(cfg.train.seed)
    datamanager = build_datamanager(cfg)
    model = build_network(cfg, datamanager.num_train_pids)
    if path := cfg.model.load_weights:
        loaded, left = load_matching(model, read_checkpoint(path)["state_dict"], path)
        print(f"Loaded {loaded} tensors from {path}; {left} classifier tensors left untrained")
    elif cfg.test.evaluate and not cfg.model.resume:
        print("Testing a network that was not trained; model.load_weights FILE takes a checkpoint")
    common = {
        "use_gpu": cfg.use_gpu,
        "amp": cfg.amp,
        "channels_last": cfg.channels_last,
        "flip": cfg.test.flip,
        "cache": cfg.test.cache,
        "rerank_during_training": cfg.test.rerank_during_training,
        "rerank_k1": cfg.test.rerank_k1,
        "rerank_k2": cfg.test.rerank_k2,
        "rerank_lambda": cfg.test.rerank_lambda,
        "record": {"seed": cfg.train.seed, "configuration": cfg.dump()},
    }
    engine = ImageMagnifierEngine(
        datamanager,
        model,
        stages=build_stages(cfg),
        criterion=build_criterion(cfg),
        checkpoint_freq=cfg.train.checkpoint_freq,
        rankings=cfg.report.rankings,
        **common,
    )
    start_epoch = engine.resume(cfg.model.resume) if cfg.model.resume else cfg.train.start_epoch
    return lambda: execute(cfg, engine, start_epoch, common)


def execute(cfg: CfgNode, engine: Any, start_epoch: int, common: dict[str, Any]) -> None:
    """Test first if asked to, train or test, then show what came out."""
    testing = {
        "dist_metric": cfg.test.dist_metric,
        "normalize_feature": cfg.test.normalize_feature,
        "ranks": cfg.test.ranks,
        "use_metric_cuhk03": cfg.cuhk03.use_metric_cuhk03,
    }
    folder = Path(cfg.data.save_dir)
    before = None
    if cfg.report.untrained and not cfg.test.evaluate and not start_epoch:
        print("=> Test before training")
        untrained = EvaluatingEngine(engine.datamanager, engine.model, **common)
        untrained.test(save_dir=str(folder / "untrained"), **testing)
        before = untrained.results
        torchreid.utils.set_random_seed(cfg.train.seed)
    engine.run(
        save_dir=cfg.data.save_dir,
        max_epoch=cfg.train.max_epoch,
        start_epoch=start_epoch,
        print_freq=cfg.train.print_freq,
        fixbase_epoch=cfg.train.fixbase_epoch,
        open_layers=cfg.train.open_layers,
        start_eval=cfg.test.start_eval,
        eval_freq=cfg.test.eval_freq,
        test_only=cfg.test.evaluate,
        visrank=cfg.test.visrank,
        visrank_topk=cfg.test.visrank_topk,
        rerank=cfg.test.rerank,
        **testing,
    )
    row = "trained" if engine.history else "tested"
    print(f"\n{results_table(engine.results, before, row)}\n")
    pictures = save_pictures(engine, folder, curves=cfg.report.curves, regions=cfg.report.regions)
    for path in [folder / "results.json", *pictures]:
        print(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
