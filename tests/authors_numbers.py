"""Weights and inputs by formula, and the numbers that `authors_parity.json` stores for tensors."""

import contextlib
import functools
import math
import zlib

import torch

STATISTICS = ("first", "sum", "norm", "values")


@functools.cache
def filled(key, shape):
    """The values of a tensor, float64, computed only from its key and shape."""
    n = (torch.arange(math.prod(shape)) + zlib.crc32(key.encode())) % 1000037
    s = 2 * (n * n % 1000037 * n % 1000037).double().view(shape) / 1000037 - 1
    if key.endswith(("neck.bias", "num_batches_tracked")):
        return torch.zeros(shape, dtype=torch.float64)
    if key == "mask_module.head.predict.bias":  # such that every region is predicted somewhere
        return torch.tensor([2.5, 1.5, -1.5, -7.0, 3.0, 6.5, -3.5, 2.0], dtype=torch.float64)
    if len(shape) > 1:
        return s * math.sqrt(6 / math.prod(shape[1:]))
    if key.endswith("weight"):
        return (1 + 0.1 * s) * (0.3 if key.endswith("bn3.weight") else 1)
    return 1 + 0.3 * s**2 if key.endswith("running_var") else 0.1 * s


def images():
    b, c, y, x = torch.meshgrid(*(torch.arange(n).double() for n in (4, 3, 128, 64)), indexing="ij")
    waves = torch.sin((b + 2) * y / 9 + (c + 1) * x / 7)
    waves += torch.sin((2 * b + c + 1) * (x + y) / 11 - b)
    return 2 * torch.sin(y / 15 + b) * torch.cos(x / 13 - b) * waves


def labels():
    b, r, c = torch.meshgrid(*(torch.arange(n) for n in (4, 16, 8)), indexing="ij")
    blocks = (r // 2 + (b + 1) * (c // 3) + r * c % 5 // 3) % 8
    blocks[1][blocks[1] == 7] = 0
    return blocks.to(torch.uint8).repeat_interleave(8, 1).repeat_interleave(8, 2)


@contextlib.contextmanager
def captured(module):
    """The outputs of a module's forward passes."""
    outputs = []
    handle = module.register_forward_hook(lambda *arguments: outputs.append(arguments[-1]))
    yield outputs
    handle.remove()


def summary(vector):
    return {"first": vector[:8].tolist(), "sum": float(vector.sum()), "norm": float(vector.norm())}


def summaries(rows):
    return [summary(row) for row in rows]


def region_summary(vectors):
    """For [B, 8, D]: first numbers of region 1 of image 0, sums and norms of all regions."""
    return {
        "first": vectors[0, 1, :8].tolist(),
        "sum": vectors.sum(2).tolist(),
        "norm": vectors.norm(dim=2).tolist(),
    }


def logits_summary(logits, at):
    values = [float(logits[tuple(index)]) for index in at]
    return {"values": values, "sum": float(logits.sum()), "norm": float(logits.norm())}


def numbers(tree, path=()):
    """(path, number) of each number in nested dicts and lists, without the positions `at`."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            if key != "at":
                yield from numbers(value, (*path, key))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from numbers(value, (*path, index))
    else:
        yield path, tree


def kind(path):
    """The group of numbers whose size scales a number's tolerance: "training.feature.SFB.first"."""
    return ".".join(key for key in path if isinstance(key, str))


def entry(path):
    """The entry that a number belongs to: "training.feature.SFB"."""
    return ".".join(key for key in path if isinstance(key, str) and key not in STATISTICS)
