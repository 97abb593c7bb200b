"""Checkpoints of plain types, written whole or not at all, and read without running anything."""

import os
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

BEST = "model-best.pth.tar"


def checkpoint_path(folder: Path, epoch: int) -> Path:
    """torchreid's name of the checkpoint after `epoch` epochs."""
    return folder / f"model.pth.tar-{epoch}"


def write_checkpoint(content: Mapping[str, Any], path: Path) -> None:
    """Write beside, then rename: whoever looks finds the old file or the new one, never a half.

    Raises:
        OSError: the disk is full or the folder not writable; an old file stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            torch.save(dict(content), file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def keep_as_best(path: Path) -> Path:
    """Give a checkpoint the name `model-best.pth.tar` too, without a second copy if possible."""
    best = path.with_name(BEST)
    beside = path.with_name(f".{BEST}.{os.getpid()}")
    try:
        os.link(path, beside)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, beside)
    beside.replace(best)
    return best


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of ours or of torchreid's.

    torchreid stores `rank1` as a numpy scalar, which torch's restricted reader refuses unless told
    that a numpy scalar is harmless.

    Returns:
        The file's dictionary, tensors on the CPU; a bare state dict as {"state_dict": …}.
    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no checkpoint.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a checkpoint, found no such file")
    try:
        with torch.serialization.safe_globals(_numpy_scalars()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the restricted reader meets garbage with whatever comes up
        reason = (str(error) or type(error).__name__).split("\n\n")[0].splitlines()[0]
        raise ValueError(
            f"{path}: expected a checkpoint of tensors and plain values, which torch.load reads "
            f"with weights_only=True; nothing in this file was run. {reason}"
        ) from error
    if isinstance(content, dict) and "state_dict" not in content:
        content = {"state_dict": content}
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(
            f"{path}: expected a checkpoint with a state_dict of tensors, "
            f"found a {type(content).__name__}"
        )
    content["state_dict"] = {key.removeprefix("module."): value for key, value in state.items()}
    return content


def _numpy_scalars() -> list[Any]:
    rebuild = np.float64(0).__reduce__()[0]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    dtypes = [type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64)]
    return [*((rebuild, name) for name in names), np.dtype, *dtypes]


def load_state(model: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Load a state dict whole.

    Raises:
        ValueError: another model or another number of identities; says how many tensors differ.
    """
    missing, unexpected, reshaped = _compare(model, state)
    if missing or unexpected or reshaped:
        raise ValueError(_mismatch(model, state, origin, missing, unexpected, reshaped))
    model.load_state_dict(state)


def load_matching(model: nn.Module, state: Mapping[str, Tensor], origin: str) -> tuple[int, int]:
    """Load weights to start from: everything but the classifiers of another set of identities.

    Returns:
        How many tensors were loaded, and how many classifier tensors were left as they are.
    Raises:
        ValueError: anything but classifiers does not match.
    """
    missing, unexpected, reshaped = _compare(model, state)
    classifiers = {key for key in (*reshaped, *unexpected, *missing) if "classifier" in key}
    rest = [
        [key for key in keys if key not in classifiers] for keys in (missing, unexpected, reshaped)
    ]
    if any(rest):
        raise ValueError(_mismatch(model, state, origin, *rest))
    own = model.state_dict()
    loaded = {key: value for key, value in state.items() if key in own and key not in classifiers}
    model.load_state_dict(own | loaded)
    return len(loaded), len(own) - len(loaded)


def _compare(
    model: nn.Module, state: Mapping[str, Tensor]
) -> tuple[list[str], list[str], list[str]]:
    own = model.state_dict()
    reshaped = [key for key in own if key in state and own[key].shape != state[key].shape]
    return [key for key in own if key not in state], [k for k in state if k not in own], reshaped


def _mismatch(
    model: nn.Module,
    state: Mapping[str, Tensor],
    origin: str,
    missing: list[str],
    unexpected: list[str],
    reshaped: list[str],
) -> str:
    own = model.state_dict()
    parts = []
    if reshaped:
        key = reshaped[0]
        parts.append(
            f"{len(reshaped)} of another shape (such as {key}: {list(state[key].shape)} in the "
            f"file, {list(own[key].shape)} in the model)"
        )
    for keys, what in ((missing, "missing in the file"), (unexpected, "unknown to the model")):
        if keys:
            parts.append(f"{len(keys)} {what} (such as {keys[0]})")
    hint = "the file is of another model, or of other options"
    if reshaped and not missing and not unexpected and all("classifier" in k for k in reshaped):
        hint = (
            "the file was trained on another number of identities; model.load_weights takes all "
            "but the classifiers, model.resume needs the same training set"
        )
    return f"{origin}: of the model's {len(own)} tensors, {'; '.join(parts)}: {hint}"


def random_states() -> dict[str, Any]:
    """The states of Python's, numpy's and torch's global generators, as plain types."""
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [name, keys.tolist(), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_states(states: Mapping[str, Any]) -> None:
    """Set what `random_states` returned; states of GPUs that are not there are left out."""
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
