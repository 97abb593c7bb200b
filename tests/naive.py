"""The plain loops that fast code is tested against: slow, short, and easy to believe."""

import itertools
import math
from fractions import Fraction

import numpy as np
import torch
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock

# --- Evaluation ---------------------------------------------------------------------------------


def ranking(distmat, q_pids, g_pids, q_camids, g_camids, max_rank):
    """CMC as a list, mAP, mINP, and the queries that count, as Market-1501 defines them."""
    cmcs, precisions, penalties = [], [], []
    for q in range(len(distmat)):
        hits = []
        for g in sorted(range(len(g_pids)), key=lambda g: (distmat[q][g], g)):
            if g_pids[g] != q_pids[q]:
                hits.append(False)
            elif g_camids[g] != q_camids[q]:
                hits.append(True)
        places = [place for place, hit in enumerate(hits, start=1) if hit]
        if not places:
            continue
        cmcs.append([places[0] <= rank for rank in range(1, max_rank + 1)])
        precisions.append(np.mean([n / place for n, place in enumerate(places, start=1)]))
        penalties.append(len(places) / places[-1])
    return np.mean(cmcs, axis=0), np.mean(precisions), np.mean(penalties), len(cmcs)


def single_shot_cmc(distmat, q_pids, g_pids, q_camids, g_camids, max_rank, repeats, rng):
    """The CMC of CUHK03's classic split: one random image of each gallery identity."""
    cmcs = []
    for q in range(len(distmat)):
        kept = {}
        for g in range(len(g_pids)):
            if g_pids[g] != q_pids[q] or g_camids[g] != q_camids[q]:
                kept.setdefault(g_pids[g], []).append(g)
        if q_pids[q] not in kept:
            continue
        for _ in range(repeats):
            drawn = {pid: rng.choice(images) for pid, images in kept.items()}
            order = sorted(drawn, key=lambda pid, drawn=drawn: (distmat[q][drawn[pid]], drawn[pid]))
            place = order.index(q_pids[q]) + 1
            cmcs.append([place <= rank for rank in range(1, max_rank + 1)])
    return np.mean(cmcs, axis=0)


def re_ranking(q_g, q_q, g_g, k1, k2, lambda_value, form="torchreid"):
    """torchreid's `re_ranking`, but with a stable sort, and without 0 / 0 where all rows agree."""
    original = np.concatenate(
        [np.concatenate([q_q, q_g], axis=1), np.concatenate([q_g.T, g_g], axis=1)]
    )
    if form == "torchreid":
        original = original**2
    original = original.astype(np.float32)
    original = (original / np.maximum(original.max(axis=0), np.float32(1e-37))).T
    rank = np.argsort(original, axis=1, kind="stable")

    def reciprocal(i, k):
        return {j for j in rank[i, : k + 1] if i in rank[j, : k + 1]}

    num_rows = len(original)
    encoding = np.zeros_like(original)
    for i in range(num_rows):
        members = set(reciprocal(i, k1))
        for j in reciprocal(i, k1):
            other = reciprocal(j, int(np.around(k1 / 2)))
            if len(other & reciprocal(i, k1)) > 2 / 3 * len(other):
                members |= other
        for j in members:
            encoding[i, j] = np.exp(-original[i, j])
        if members:
            encoding[i] /= encoding[i].sum()
    if k2 != 1:
        encoding = np.array([encoding[rank[i, :k2]].mean(axis=0) for i in range(num_rows)])

    result = np.zeros_like(q_g, dtype=np.float32)
    for q in range(len(q_g)):
        for g in range(len(g_g)):
            shared = np.minimum(encoding[q], encoding[len(q_g) + g]).sum()
            jaccard = 1 - shared / (2 - shared)
            original_distance = original[q, len(q_g) + g]
            result[q, g] = jaccard * (1 - lambda_value) + original_distance * lambda_value
    return result


def squared_distances(one, other):
    """[n, m]: squared Euclidean distances, each from its own difference."""
    return np.array([((row - other) ** 2).sum(axis=1) for row in one])


# --- DSAP-images --------------------------------------------------------------------------------


def warp(image, iuv, size, fill):
    """The textures [24, 3, S, S] and the visible parts [24] of arrays [3, H, W]."""
    textures = np.empty((24, 3, size, size), image.dtype)
    textures[:] = np.reshape(fill, (3, 1, 1))
    visible = np.zeros(24, bool)
    _, height, width = image.shape
    for y in range(height):
        for x in range(width):
            part, u, v = (int(value) for value in iuv[:, y, x])
            if part > 0:
                row, column = (
                    min(math.floor(Fraction(coordinate, 255) * size), size - 1)
                    for coordinate in (u, v)
                )
                textures[part - 1, :, row, column] = image[:, y, x]
                visible[part - 1] = True
    return textures, visible


# --- DSA-reID -----------------------------------------------------------------------------------

# DensePose's part ids (section 3.1 of the paper, Fig. 4); the next list merges these 13 entries,
# given by their index here.
LEFT_AND_RIGHT = (
    [1], [2], [3, 4], [5, 6], [7, 8], [9, 10], [11, 12], [13, 14], [15, 16], [17, 18], [19, 20],
    [21, 22], [23, 24],
)  # fmt: skip
BACK_AND_FRONT = ([0, 1], [2], [3], [4, 5], [6, 7], [8, 9], [10, 11], [12])


def blocks(block, in_channels, channels, number=2, stride=1):
    """Consecutive ResNet blocks, as torchvision's `_make_layer` builds them."""
    planes = channels // block.expansion
    shortcut = nn.Sequential(
        nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
    )
    plain = stride == 1 and in_channels == channels
    first = block(in_channels, planes, stride, None if plain else shortcut)
    return nn.Sequential(first, *(block(channels, planes) for _ in range(number - 1)))


def merged(parts, groups):
    return [torch.stack([parts[i] for i in group]).sum(dim=0) for group in groups]


class GuidingStream(nn.Module):
    """Table 1, one sub-branch after the other."""

    def __init__(self, channels, c1=32, c2=64, c3=64, c4=128):
        super().__init__()

        def layer(inputs, outputs, kernel):
            convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
            return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())

        self.conv1 = nn.ModuleList(layer(3, c1, 5) for _ in range(24))
        self.conv2 = nn.ModuleList(layer(c1, c2, 3) for _ in range(24))
        self.conv3 = nn.ModuleList(blocks(BasicBlock, c2, c3, stride=2) for _ in range(24))
        self.conv4 = nn.ModuleList(blocks(BasicBlock, c3, c4, stride=2) for _ in range(13))
        part = nn.ModuleList(blocks(BasicBlock, c4, channels // 8) for _ in range(8))
        self.head = nn.ModuleDict({"G": blocks(BasicBlock, 8 * c4, channels), "L": part})

    def forward(self, textures):
        parts = []
        for part in range(24):
            features = self.conv2[part](self.conv1[part](textures[:, part]))
            parts.append(self.conv3[part](features))
        parts = merged(parts, [[part - 1 for part in pair] for pair in LEFT_AND_RIGHT])
        parts = [self.conv4[i](parts[i]) for i in range(13)]
        parts = merged(parts, BACK_AND_FRONT)
        d_g = self.head["G"](torch.cat(parts, dim=1)).mean(dim=(2, 3))
        return d_g, [self.head["L"][i](parts[i]).mean(dim=(2, 3)) for i in range(8)]


class DSAReID(nn.Module):
    """Both streams, fused by addition, with one module for each part: (f_logits, z_logits, z)."""

    def __init__(self, num_classes, backbone, **widths):
        super().__init__()
        resnet = getattr(torchvision.models, backbone)(weights=None)
        block, number, width = type(resnet.layer4[0]), len(resnet.layer4), resnet.fc.in_features
        self.backbone = nn.Module()
        for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3"):
            setattr(self.backbone, name, getattr(resnet, name))
        local = [blocks(block, width // 2, width // 8, number) for _ in range(8)]
        head = {"G": blocks(block, width // 2, width, number), "L": nn.ModuleList(local)}
        self.head = nn.ModuleDict(head)
        self.guiding_stream = GuidingStream(width, **widths)

        def classifier(channels):
            hidden = [nn.Linear(channels, 512, bias=False), nn.BatchNorm1d(512), nn.ReLU()]
            return nn.Sequential(*hidden, nn.Linear(512, num_classes))

        local = nn.ModuleList(classifier(width // 8) for _ in range(8))
        self.f_classifiers = nn.ModuleDict({"G": classifier(width), "L": local})
        self.z_classifiers = nn.ModuleDict({"G": classifier(width), "L": classifier(width)})

    def forward(self, images, textures):
        features = images
        for layer in self.backbone.children():
            features = layer(features)
        f_g = self.head["G"](features).mean(dim=(2, 3))
        f_l = [head(features).mean(dim=(2, 3)) for head in self.head["L"]]
        if not self.training:
            return torch.cat([f_g, *f_l], dim=1)
        d_g, d_l = self.guiding_stream(textures)
        z = {"G": f_g + d_g, "L": torch.cat([f_l[i] + d_l[i] for i in range(8)], dim=1)}
        local = [self.f_classifiers["L"][i](f_l[i]) for i in range(8)]
        f_logits = {"G": self.f_classifiers["G"](f_g), "L": torch.stack(local, dim=1)}
        return f_logits, {name: self.z_classifiers[name](z[name]) for name in z}, z


def identity_loss(logits, pids, smoothing):
    losses = []
    for row, pid in zip(logits.log_softmax(dim=1), pids, strict=True):
        losses.append(-(1 - smoothing) * row[pid] - smoothing * row.mean())
    return sum(losses) / len(losses)


def triplet_loss(features, pids, margin):
    losses = []
    for a in range(len(pids)):
        distances = [(features[a] - other).norm() for other in features]
        positive = max(d for d, pid in zip(distances, pids, strict=True) if pid == pids[a])
        negative = min(d for d, pid in zip(distances, pids, strict=True) if pid != pids[a])
        losses.append((positive - negative + margin).clamp(min=0))
    return sum(losses) / len(losses)


def dsa_losses(f_logits, z_logits, z, pids, smoothing=0.1, margin=0.3):
    """The terms of section 3.2.4 by name."""
    parts = [identity_loss(f_logits["L"][:, i], pids, smoothing) for i in range(8)]
    return {
        "cls_f_G": identity_loss(f_logits["G"], pids, smoothing),
        "cls_f_L": sum(parts),
        "cls_z_G": identity_loss(z_logits["G"], pids, smoothing),
        "cls_z_L": identity_loss(z_logits["L"], pids, smoothing),
        "tri_z_G": triplet_loss(z["G"], pids, margin),
        "tri_z_L": triplet_loss(z["L"], pids, margin),
    }


# --- Losses: in torch's tensors, so that gradients can be compared too ---------------------------


def farthest_minus_nearest(features, pids):
    """For each anchor, distance to its farthest positive minus that to its nearest negative."""
    gaps = []
    for i, anchor in enumerate(features):
        distances = [
            (anchor - other).square().sum().sqrt() if j != i else 0 * anchor.sum()
            for j, other in enumerate(features)
        ]
        farthest = max(d for d, pid in zip(distances, pids, strict=True) if pid == pids[i])
        nearest = min(d for d, pid in zip(distances, pids, strict=True) if pid != pids[i])
        gaps.append(farthest - nearest)
    return gaps


def cosine_of_pairs(regions, eps):
    """Cosine similarity of each pair of one image's regions [K, D]."""
    return [
        a @ b / max(a.norm() * b.norm(), eps) for a, b in itertools.combinations(list(regions), 2)
    ]


def pixel_entropies(logits, labels):
    """Cross entropy of each known pixel, by region. logits [B, K, h, w], labels [B, h, w]."""
    of_region = {}
    for b, y, x in itertools.product(*map(range, labels.shape)):
        label = int(labels[b, y, x])
        if label != 255:
            pixel = logits[b, :, y, x]
            loss = (pixel - pixel.detach().max()).exp().sum().log() + pixel.detach().max()
            of_region.setdefault(label, []).append(loss - pixel[label])
    return of_region
