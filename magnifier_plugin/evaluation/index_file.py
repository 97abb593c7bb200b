"""A faiss index of features; faiss is optional."""

import importlib.util
import os

import numpy as np
import torch

from magnifier_plugin.evaluation.scaling import l2_normalise
from magnifier_plugin.files import write_atomically


def require_faiss() -> None:
    """Raises a ValueError that says how to install faiss, unless it is installed."""
    if importlib.util.find_spec("faiss") is None:
        raise ValueError("faiss is not installed; install it with: pip install faiss-cpu")


def write_index(path: str | os.PathLike[str], features: np.ndarray, *, normalise: bool) -> None:
    """Writes a flat index of squared Euclidean distances atomically; its ids are row numbers.

    Args:
        path: the file; missing folders are made.
        features: floating point [N, D].
        normalise: L2-normalise the features first, so that the ranking is that of cosine distance.
    Raises:
        ValueError: faiss is not installed.
    """
    require_faiss()
    import faiss

    rows = torch.from_numpy(features).float()
    rows = l2_normalise(rows) if normalise else rows
    index = faiss.IndexFlatL2(rows.shape[1])
    index.add(rows.numpy())
    with write_atomically(path) as part:
        faiss.write_index(index, str(part))
