"""Embeddings cached on disk, so that testing again takes seconds."""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from magnifier_plugin.evaluation.array_files import as_dense_tensor, read_arrays
from magnifier_plugin.evaluation.embeddings import Embeddings
from magnifier_plugin.files import open_atomically

logger = logging.getLogger(__name__)

FIELDS = ("features", "pids", "camids")  # the entries of a file


def model_fingerprint(model: nn.Module) -> str:
    """A digest of a model: its printed structure, weights, buffers and plain attributes.

    A plain attribute is an attribute of any module whose value is a number, text, True, False, None
    or a tuple of these. If the embeddings depend on others, the caller must add them to the key.
    """
    digest = hashlib.blake2b(str(model).encode(), digest_size=16)
    for name, module in model.named_modules():
        plain = {key: value for key, value in vars(module).items() if _is_plain(value)}
        plain.pop("training", None)
        digest.update(f"{name} {sorted(plain.items())!r}".encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # Viewed as bytes, because numpy has no bf16.
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (str, int, float))


def files_fingerprint(paths: Iterable[str | os.PathLike[str]]) -> str:
    """A digest of the paths, sizes and modification times of files, in the given order.

    Raises:
        FileNotFoundError: a file is missing.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        state = os.stat(path)  # noqa: PTH116  three times as fast as Path.stat, for 100,000 images
        digest.update(
            f"{path} {state.st_size} {state.st_mtime_ns}\n".encode(errors="surrogateescape")
        )
    return digest.hexdigest()


class FeatureCache:
    """A folder of embeddings: one file per model, list of images and settings.

    Args:
        folder: the folder; it is created when the first file is written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def path(
        self, model: str, images: Sequence[tuple[str, int, int, int]], settings: Mapping[str, Any]
    ) -> Path:
        """The path of the file for the embeddings of a list of images.

        Args:
            model: the result of `model_fingerprint`.
            images: torchreid's list (path, pid, camera, data set); an image whose file size or
                modification time changes counts as another image.
            settings: whatever else the embeddings depend on (image size, flip, precision), as plain
                values.
        Raises:
            FileNotFoundError: an image is missing.
        """
        files = files_fingerprint(image[0] for image in images)
        ids = [list(image[1:3]) for image in images]
        key = json.dumps([model, settings, files, ids], sort_keys=True, default=int)
        return self.folder / f"{hashlib.blake2b(key.encode(), digest_size=16).hexdigest()}.pt"

    def read(self, path: Path) -> Embeddings | None:
        """Reads the embeddings of a file onto the CPU.

        Returns:
            None if there is no such file, or if it is damaged, which is logged as a warning.
        """
        if not path.is_file():
            return None
        try:
            return read_embeddings(path)
        except ValueError as error:
            logger.warning("%s is damaged, so its features are extracted again: %s", path, error)
            return None

    def write(self, path: Path, embeddings: Embeddings) -> None:
        """Writes the embeddings atomically.

        Raises:
            OSError: as in `files.open_atomically`.
        """
        content = {
            "features": embeddings.features.cpu(),
            "pids": torch.from_numpy(embeddings.pids.astype(np.int64)),
            "camids": torch.from_numpy(embeddings.camids.astype(np.int64)),
        }
        with open_atomically(path) as file:
            torch.save(content, file)  # with a path, it would store the temporary file's name


def read_embeddings(path: Path) -> Embeddings:
    """Reads the embeddings in a file of `FeatureCache`; no code in it is run.

    Raises:
        OSError: the file is missing or cannot be opened.
        ValueError: it is damaged, or does not hold the `FIELDS` of N images.
    """
    content = read_arrays(path)
    found = content if isinstance(content, dict) else {}
    features, pids, camids = (
        as_dense_tensor(f"{path}: {name}", found.get(name)) for name in FIELDS
    )
    shapes = features.shape[:1] == pids.shape == camids.shape and features.ndim == 2
    types = features.dtype, pids.dtype, camids.dtype
    if not shapes or types != (torch.float32, torch.int64, torch.int64):
        raise ValueError(
            f"{path}: expected features float32 [N, D], pids and camids int64 [N], found "
            f"{', '.join(f'{t.dtype} {list(t.shape)}' for t in (features, pids, camids))}"
        )
    return Embeddings(features, pids.numpy(), camids.numpy())
