"""Train and test, with torchreid's flags and keys, and some more.

python scripts/main.py --config-file configs/magnifier_market.yaml --root DATA
python scripts/main.py --config-file … -s market1501 -t dukemtmcreid train.scale 0.25
torchrun --nproc_per_node=2 scripts/main.py --config-file …      (two GPUs, one process each)
"""

import os

# Set by torchrun; only the first process prints.
SEVERAL = "TORCHELASTIC_RUN_ID" in os.environ and os.environ["WORLD_SIZE"] != "1"
RANK = os.environ["RANK"] if SEVERAL else "0"
if RANK != "0":
    os.environ["TQDM_DISABLE"] = "1"

import argparse
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from arguments import (
    add_import,
    escape_unencodable,
    keep_freed_memory,
    let_idle_threads_sleep,
    split_pairs,
)

let_idle_threads_sleep()


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Parse the flags and the KEY VALUE pairs after them; the first key ends a list of names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--config-file", default="", help="YAML file, such as configs/magnifier_demo.yaml"
    )
    parser.add_argument(
        "-s",
        "--sources",
        nargs="+",
        help="data sets to train on: torchreid's names, or NAME=PATH with your own CSV or folder",
    )
    parser.add_argument(
        "-t",
        "--targets",
        nargs="+",
        help="data sets to test on (default: those of -s, else the configuration's)",
    )
    parser.add_argument("--transforms", nargs="+", help="augmentations")
    parser.add_argument("--root", help="folder of all data sets")
    parser.add_argument("-a", "--arch", help="model name, as torchreid.models.build_model takes it")
    add_import(parser)
    parser.add_argument("--gpu-devices", default="", help="GPUs, such as 0; with torchrun 0,1")
    parser.add_argument("pairs", nargs="*", metavar="KEY VALUE", help="override the configuration")
    flags, pairs = split_pairs(parser, argv)
    arguments = parser.parse_args(flags)
    return arguments, [*arguments.pairs, *pairs]


if __name__ == "__main__":
    keep_freed_memory()
    parse(sys.argv[1:])  # --help and wrong arguments end here: the imports below take seconds

# isort: split
import torch
from yacs.config import CfgNode

from magnifier_plugin.config import (
    ConfigError,
    given_scale,
    load_config,
    parse_pairs,
    printed_config,
    typed_keys,
)
from magnifier_plugin.engine.distributed import Processes, torchrun_processes
from magnifier_plugin.engine.folder_lock import FolderInUse
from magnifier_plugin.engine.log import logged_to, silenced
from magnifier_plugin.failures import describe_failure
from magnifier_plugin.recipe import prepare
from magnifier_plugin.user_modules import import_user_module

FLAG_KEYS = {
    "sources": "data.sources",
    "targets": "data.targets",
    "transforms": "data.transforms",
    "root": "data.root",
    "arch": "model.name",
}


def main(argv: Sequence[str]) -> int:
    """Train or test as the arguments say; return the exit status."""
    escape_unencodable()
    arguments, pairs = parse(argv)
    if (count := len(devices := arguments.gpu_devices.split(","))) > 1 and not SEVERAL:
        return refuse(
            f"--gpu-devices: expected one GPU, such as {devices[0]}, got {arguments.gpu_devices}; "
            f"on {count} GPUs: torchrun --nproc_per_node={count} scripts/main.py …"
        )
    if arguments.gpu_devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = arguments.gpu_devices
        if not torch.cuda.is_available():
            return refuse(
                f"--gpu-devices {arguments.gpu_devices}: torch finds no such GPU; "
                "without this flag, a machine without GPUs uses its CPU"
            )
    flags = {
        key: value
        for flag, key in FLAG_KEYS.items()
        if (value := getattr(arguments, flag)) is not None
    }
    if "data.sources" in flags:  # torchreid's main script would keep the file's targets
        flags.setdefault("data.targets", flags["data.sources"])
    try:
        for module in arguments.modules:
            import_user_module(module)
        cfg = load_config(arguments.config_file, flags, pairs)
        check(cfg)
    except (ConfigError, FileNotFoundError, ModuleNotFoundError) as error:
        return refuse(error)
    shown = printed_config(cfg, given_scale(arguments.config_file, flags, pairs))
    return train_or_test(cfg, shown, typed_keys({**flags, **parse_pairs(pairs)}))


def train_or_test(cfg: CfgNode, shown: str, typed: Collection[str]) -> int:
    """Train or test with a configuration.

    Args:
        cfg: the configuration.
        shown: its text, with which the log starts.
        typed: keys that were set on the command line.
    Returns:
        The exit status; SIGTERM ends the process with 143.
    """
    begun, before = False, checkpoints(cfg)
    try:
        with torchrun_processes(cfg.use_gpu) as processes, output(cfg, processes) as log:
            print(f"Show configuration\n{shown}\n")
            try:
                run = prepare(cfg, typed, processes)
            except KeyError as error:  # torchreid raises it for unknown names
                raise ValueError(error.args[0]) from error
            begun = True
            run()
    except ConfigError as error:
        return refuse(error)
    except KeyboardInterrupt:
        print(f"stopped{how_to_continue(cfg, before)}", file=sys.stderr)
        return 130
    except Exception as error:
        reason = describe_failure(error)
        if SEVERAL or not reason:  # torchrun's log shows the traceback of the process that failed
            raise
        if begun and not isinstance(error, FolderInUse):
            reason += f"{how_to_continue(cfg, before)}\nThe traceback is in {log}"
        print(f"error: {reason}", file=sys.stderr)
        return 2
    return 0


def output(cfg: CfgNode, processes: Processes) -> AbstractContextManager[Path]:
    """Copy output and log of the first process to a file; let the others print errors only."""
    name = "test" if cfg.test.evaluate else "train"
    return logged_to(cfg.data.save_dir, name) if processes.is_first else silenced(cfg.data.save_dir)


def refuse(reason: object) -> int:
    """Print an error, in the first process only; return the exit status."""
    if RANK == "0":
        print(f"error: {reason}", file=sys.stderr)
    return 2


def checkpoints(cfg: CfgNode) -> dict[Path, int]:
    """The checkpoints in `data.save_dir`, with the times when they were written."""
    found = {}
    for path in (Path(cfg.data.save_dir) / "model").glob("model*.pth.tar*"):
        with suppress(FileNotFoundError):  # another process may replace it
            found[path] = path.stat().st_mtime_ns
    return found


def how_to_continue(cfg: CfgNode, before: Mapping[Path, int]) -> str:
    """How to continue an unfinished training run, as the end of a message; "" if it saved nothing.

    Args:
        cfg: the run's configuration.
        before: `checkpoints` before the run, which are of other runs unless this one resumed.
    """
    found = checkpoints(cfg)
    if cfg.test.evaluate or not found or (found == before and not cfg.model.resume):
        return ""
    command = "the same command with model.resume auto"
    folder = Path(cfg.data.save_dir) / "model"
    return f"; {command} continues from the last checkpoint in {folder}"


def check(cfg: CfgNode) -> None:
    """Refuse flags that contradict each other."""
    if cfg.test.visrank and not cfg.test.evaluate:
        raise ConfigError("test.visrank: draws only in a test; add test.evaluate True")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
