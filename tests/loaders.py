"""Loaders of images that hold embeddings, and a model that returns them."""

import numpy as np
import torch
from embeddings import clustered
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Images(Dataset):
    """Images float32 [3, 2, 4] that hold an embedding, one file each, and torchreid's list."""

    def __init__(self, folder, features, pids, camids):
        self.pictures = torch.from_numpy(features).reshape(-1, 3, 2, 4)
        self.data = []
        folder.mkdir()
        for i, (pid, camid) in enumerate(zip(pids.tolist(), camids.tolist(), strict=True)):
            path = folder / f"{i}.jpg"
            path.write_bytes(b"image")
            self.data.append((str(path), pid, camid, 0))

    def __len__(self):
        return len(self.data)

    def __getitem__(self, i):
        path, pid, camid, _ = self.data[i]
        return {"img": self.pictures[i], "pid": pid, "camid": camid, "impath": path}


class Flatten(nn.Module):
    """The images as embeddings [B, 24], times a weight; counts its calls."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.count = [0]  # a plain number would be an option of the model

    @property
    def calls(self):
        return self.count[0]

    @calls.setter
    def calls(self, number):
        self.count[0] = number

    def forward(self, images):
        self.calls += 1
        return images.flatten(1) * self.weight


class Target:
    """12 queries and 40 gallery images with several identities and cameras, in batches of 8."""

    def __init__(self, folder):
        rng = np.random.default_rng(0)
        query, gallery = (
            part * rng.uniform(1, 2, (len(part), 1)).astype(np.float32)  # of different norms
            for part in clustered(rng, 12, 40, dim=24)
        )
        self.ids = [rng.integers(0, high, n) for high in (7, 3) for n in (12, 40)]
        q_pids, g_pids, q_camids, g_camids = self.ids
        self.sets = (
            Images(folder / "query", query, q_pids, q_camids),
            Images(folder / "gallery", gallery, g_pids, g_camids),
        )
        self.loaders = [DataLoader(part, batch_size=8) for part in self.sets]
        self.tensors = [part.pictures.flatten(1) for part in self.sets]
