"""What a run's results depend on: command, versions, code, data, precision, machine."""

import contextlib
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
import torchreid
import torchvision
from torch.utils.data import DataLoader

from magnifier_plugin.engine.precision import CPU_INFO
from magnifier_plugin.files import write_atomically

_TIMEOUT = 10  # seconds, for git


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that results depend on."""
    modules = (torch, torchvision, torchreid, np, PIL)
    return {"python": platform.python_version()} | {m.__name__: m.__version__ for m in modules}


def set_deterministic(on: bool) -> None:
    """Make torch use deterministic algorithms, or the fastest ones.

    torch warns about operations that have no deterministic algorithm. Call this before the first
    use of a GPU. On a CPU results also depend on the number of threads (`OMP_NUM_THREADS`), which
    is then left unchanged, see `ThreadCount`.
    """
    if on:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS requires it
    torch.use_deterministic_algorithms(on, warn_only=True)
    torch.backends.cudnn.deterministic = on


def describe_process() -> dict[str, Any]:
    """The command, when and where it runs, the code, and whatever else its results depend on."""
    return {
        "command": sys.argv,
        "started": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "folder": str(Path.cwd()),
        "host": platform.node(),
        "process": os.getpid(),
        "processor": processor_name(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "versions": versions(),
        "git": git_state(Path(__file__).parent),
    }


def processor_name(cpu_info: Path = CPU_INFO) -> str:
    """The processor's model, from Linux's `cpu_info` or the platform's name for it."""
    with contextlib.suppress(OSError):
        for line in cpu_info.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


def git_state(folder: Path) -> dict[str, Any] | None:
    """A folder's git commit and changed files; None outside a repository."""

    def ask(*words: str) -> str:
        command = ["git", "-C", str(folder), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_TIMEOUT)
        return done.stdout.strip()

    try:
        changed = ask("status", "--porcelain", "--untracked-files=no")
        return {"commit": ask("rev-parse", "HEAD"), "changed": changed.splitlines()}
    except (OSError, subprocess.SubprocessError):
        return None


def data_fingerprint(datamanager: Any) -> dict[str, Any]:
    """Number, total size and a digest of the files that a run reads.

    Returns:
        "train", and "TARGET query" and "TARGET gallery" for each target → "files" (their number),
        "bytes", and "digest" of all file names (without folders) and sizes; label maps and IUV are
        included.
    """
    loaders: dict[str, DataLoader[Any]] = {"train": datamanager.train_loader}
    for name, pair in datamanager.test_loader.items():
        loaders |= {f"{name} {mode}": loader for mode, loader in pair.items()}
    return {role: _fingerprint(_files(loader.dataset)) for role, loader in loaders.items()}


def _files(dataset: Any) -> Iterable[str | Path]:
    yield from (record[0] for record in dataset.data)
    for maps in getattr(dataset, "files", {}).values():  # torchreid's data sets have none
        yield from (path for path in maps.values() if path is not None)


def _fingerprint(paths: Iterable[str | Path]) -> dict[str, Any]:
    digest, count, total = hashlib.blake2b(digest_size=8), 0, 0
    for path in paths:
        size = os.stat(path).st_size  # noqa: PTH116  three times as fast as Path's
        digest.update(f"{os.path.basename(path)} {size}\n".encode(errors="surrogateescape"))  # noqa: PTH119
        count, total = count + 1, total + size
    return {"files": count, "bytes": total, "digest": digest.hexdigest()}


def write_facts(folder: str | Path, facts: Mapping[str, Any]) -> Path:
    """Write what a run depends on to `run-<time>.json`, next to the log; return its path."""
    path = Path(folder) / f"run-{time.strftime('%Y-%m-%d-%H-%M-%S')}.json"
    with write_atomically(path) as part:
        part.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return path
