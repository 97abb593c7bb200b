"""Checkpoints: plain types, written atomically, read without running code from the file."""

import os
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from magnifier_plugin.files import write_atomically

BEST = "model-best.pth.tar"


class Checkpoints:
    """The checkpoints of one training: the last and the best are kept.

    Args:
        folder: `save_dir/model`; made on the first saving.
        record: written into each of them, such as configuration and seed.
    """

    def __init__(self, folder: Path, record: Mapping[str, Any]) -> None:
        self.folder, self.record = folder, record
        self.latest: Path | None = None
        self.best_mAP = -1.0

    def save(self, content: Mapping[str, Any], mAP: float | None = None) -> Path:
        """Write the checkpoint after an epoch, and remove the one before it.

        Args:
            content: plain types and tensors; "epoch" is counted from 1.
            mAP: of a test after this epoch; the highest so far is kept as `model-best.pth.tar`.
        Raises:
            OSError: the disk is full or the folder not writable; the old file stays as it was.
        """
        path = self.folder / f"model.pth.tar-{content['epoch']}"
        is_best = mAP is not None and mAP > self.best_mAP
        self.best_mAP = max(self.best_mAP, -1.0 if mAP is None else mAP)
        with write_atomically(path) as temporary, temporary.open("wb") as file:
            torch.save({**content, "best_mAP": self.best_mAP, "record": self.record}, file)
        if is_best:
            self._link(path, path.with_name(BEST))
        # Never a file in another folder: that one is the caller's starting point.
        if self.latest and self.latest != path and self.latest.parent == path.parent:
            self.latest.unlink(missing_ok=True)
        self.latest = path
        return path

    def resume_from(self, path: Path, best_mAP: float) -> None:
        """Continue after a checkpoint was read: it is replaced by the next one, unless the best."""
        self.best_mAP = best_mAP
        if path.name != BEST:
            self.latest = path

    @staticmethod
    def _link(path: Path, name: Path) -> None:
        """Give a file a second name, without a copy where the file system can."""
        with write_atomically(name) as temporary:
            temporary.unlink(missing_ok=True)
            try:
                os.link(path, temporary)
            except OSError:
                shutil.copyfile(path, temporary)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of ours or of torchreid's.

    torchreid stores `rank1` as a numpy scalar, which torch's restricted reader refuses unless
    numpy's scalars are on its list.

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
        with torch.serialization.safe_globals(numpy_scalars()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # which one the reader raises depends on the damage
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
    state = {key.removeprefix("module."): value for key, value in state.items()}
    return {**content, "state_dict": state}


def numpy_scalars() -> list[Any]:
    """Names that torch's restricted reader must allow to read a checkpoint with numpy scalars."""
    rebuild = np.float64(0).__reduce__()[0]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    dtypes = [type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64)]
    return [*((rebuild, name) for name in names), np.dtype, *dtypes]


def random_states() -> dict[str, Any]:
    """The states of Python's, numpy's and torch's global generators, as plain types."""
    version, numbers, gauss = random.getstate()
    state: Any = np.random.get_state()
    name, keys, position, has_gauss, cached = state
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
