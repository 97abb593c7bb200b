"""Embeddings kept on disk, so that testing again takes seconds."""

import hashlib
import json
import logging
import os
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from magnifier_plugin.evaluation.evaluator import Embeddings

logger = logging.getLogger(__name__)


def model_fingerprint(model: nn.Module) -> str:
    """A digest of every weight: what a checkpoint holds, whatever its file is called."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # The bytes, also of bf16, which numpy does not know.
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


class FeatureCache:
    """A folder of embeddings, one file for a model, a list of images and a way to embed.

    Args:
        folder: made on the first writing.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def path(
        self, model: str, images: Sequence[tuple[str, int, int, int]], settings: Mapping[str, Any]
    ) -> Path:
        """Where the embeddings of a list lie.

        Args:
            model: of `model_fingerprint`.
            images: torchreid's list; an image that changes its size or time is another image.
            settings: what else the embeddings depend on: image size, flip, precision.
        """
        digest = hashlib.blake2b(digest_size=16)
        digest.update(json.dumps([model, settings], sort_keys=True).encode())
        for path, pid, camera, _ in images:
            state = os.stat(path)  # noqa: PTH116  thrice as quick as Path's, for 100,000 images
            digest.update(f"{path} {pid} {camera} {state.st_size} {state.st_mtime_ns}\n".encode())
        return self.folder / f"{digest.hexdigest()}.pt"

    def read(self, path: Path) -> Embeddings | None:
        """The embeddings of a file, None if there is no such file or it is damaged."""
        if not path.is_file():
            return None
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            ids = [content[name].numpy() for name in ("pids", "camids")]
            return Embeddings(content["features"], *ids)
        except (RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
            reason = str(error).partition("\n")[0]
            logger.warning("%s is damaged (%s), its features are extracted again", path, reason)
            return None

    def write(self, path: Path, embeddings: Embeddings) -> None:
        """Write beside, then rename."""
        self.folder.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}")
        content = {
            "features": embeddings.features.cpu(),
            "pids": torch.from_numpy(embeddings.pids),
            "camids": torch.from_numpy(embeddings.camids),
        }
        try:
            torch.save(content, beside)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
