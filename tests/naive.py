"""The plain loops that fast code is tested against: slow, short, and easy to believe."""

import itertools

import numpy as np

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
