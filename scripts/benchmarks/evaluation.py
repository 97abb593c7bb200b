"""Distances, CMC, mAP and re-ranking of random features that form a cluster for each identity.

There are as many identities as in the real data set's test split, and six cameras; features have
unit length. On both sides, the time of re-ranking includes the distances that it needs. Peak memory
is that of the whole process, including features and libraries.
"""

import argparse
import os
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from torch import Tensor

from benchmarks.measuring import GIB, Run, Stopwatch, in_own_process, machine, markdown
from magnifier_plugin.evaluation.distances import distance_matrix
from magnifier_plugin.evaluation.ranking import evaluate_ranking
from magnifier_plugin.evaluation.rerank import rerank
from magnifier_plugin.files import absolute_path, require_writable, write_atomically

CAMERAS = 6
GROWTH = ("5000", "10000", "20000", "40000", "msmt17")
# The steps, in the order of torchreid's engine.
DISTANCES, METRICS, RERANKING, AGAIN = "distances", "metrics", "re-ranking", "metrics again"


class Size(NamedTuple):
    """Numbers of images and identities, and the dimensions of the features."""

    queries: int
    """Number of query images."""
    gallery: int
    """Number of gallery images."""
    identities: int
    """Number of identities that images are drawn from."""
    dim: int
    """Number of dimensions of a feature."""


SIZES = {"market": Size(3_368, 15_913, 750, 4096), "msmt17": Size(11_659, 82_161, 3_060, 2048)}


class TestData(NamedTuple):
    """Features and ids of queries and gallery, in this order."""

    features: tuple[Tensor, Tensor]
    """float32 [Q, D] and [G, D], rows of norm 1."""
    pids: tuple[np.ndarray, np.ndarray]
    """int64 [Q] and [G]."""
    camids: tuple[np.ndarray, np.ndarray]
    """int64 [Q] and [G]."""

    @property
    def ids(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        return *self.pids, *self.camids


class Measurement(NamedTuple):
    """Cost and results of one implementation."""

    seconds: dict[str, float]
    """Seconds of each step."""
    metrics: tuple[float, ...]
    """mAP and rank-1 without re-ranking, then with it, in [0, 1]."""


def run(args: argparse.Namespace) -> None:
    """Measure both sides and print the table."""
    if args.growth:
        measure_growth(args)
        return
    size = parse_size(args.size, args.dim)
    ours = in_own_process(run_ours, size, args)
    theirs = None if args.only or too_large(size) else in_own_process(run_torchreid, size, args)
    print(
        f"{size.queries:,} queries, {size.gallery:,} gallery images, {size.dim:,} dimensions; "
        f"{machine(args.device)}\n"
    )
    print(markdown(("", "torchreid", "magnifier_plugin", "ratio"), table_of(ours, theirs)))


def parse_size(text: str, dim: int | None) -> Size:
    """A size by its name or by its number of images, a sixth of which are queries."""
    if text in SIZES:
        size = SIZES[text]
    elif text.isdecimal() and int(text) >= 60:
        queries = int(text) // 6
        size = Size(queries, int(text) - queries, int(text) // 25, 2048)
    else:
        raise ValueError(f"--size: expected market, msmt17 or at least 60 images, got {text!r}")
    return size._replace(dim=dim or size.dim)


def too_large(size: Size) -> bool:
    """Whether torchreid's matrices, about six of N × N float32 at once, exceed the memory."""
    needed = 6 * 4 * (size.queries + size.gallery) ** 2
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > available:
        sizes = f"{needed / GIB:.0f} GiB needed, {available / GIB:.0f} available"
        print(f"torchreid is skipped: {sizes}\n")
    return needed > available


def make_test_data(size: Size, spread: float, seed: int) -> TestData:
    """Random features: those of an identity are around a random direction."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(size.identities, size.dim, generator=generator)
    parts = []
    for count in (size.queries, size.gallery):
        labels = torch.randint(size.identities, (count,), generator=generator)
        rows = torch.randn(count, size.dim, generator=generator)
        for block in torch.arange(count).split(1024):
            noisy = rows[block].mul_(spread).add_(centres[labels[block]])
            rows[block] = torch.nn.functional.normalize(noisy)
        cameras = torch.randint(CAMERAS, (count,), generator=generator)
        parts.append((rows, labels.numpy(), cameras.numpy()))
    (query, q_pids, q_camids), (gallery, g_pids, g_camids) = parts
    return TestData((query, gallery), (q_pids, g_pids), (q_camids, g_camids))


def run_ours(size: Size, args: argparse.Namespace) -> Measurement:
    """The four steps with this package."""
    data, watch = make_test_data(size, args.spread, args.seed), Stopwatch(args.device)
    query, gallery = (features.to(args.device) for features in data.features)
    with watch.step(DISTANCES):
        distances = distance_matrix(query, gallery)
    with watch.step(METRICS):
        plain = evaluate_ranking(distances, *data.ids)
    del distances
    with watch.step(RERANKING):
        distmat = rerank(query, gallery, memory=args.memory)
    with watch.step(AGAIN):
        reranked = evaluate_ranking(distmat, *data.ids)
    metrics = plain.mAP, plain.cmc[0], reranked.mAP, reranked.cmc[0]
    return Measurement(watch.seconds, tuple(map(float, metrics)))


def run_torchreid(size: Size, args: argparse.Namespace) -> Measurement:
    """The four steps with the functions of torchreid's engine, on the CPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        import torchreid
    data, watch = make_test_data(size, args.spread, args.seed), Stopwatch("cpu")
    query, gallery = data.features
    distances, metrics = torchreid.metrics.compute_distance_matrix, torchreid.metrics.evaluate_rank
    with watch.step(DISTANCES):
        distmat = distances(query, gallery).numpy()
    with watch.step(METRICS):
        cmc, mean_ap = metrics(distmat, *data.ids)
    with watch.step(RERANKING):
        among = distances(query, query).numpy(), distances(gallery, gallery).numpy()
        distmat = torchreid.utils.re_ranking(distmat, *among)
    with watch.step(AGAIN):
        cmc_again, mean_ap_again = metrics(distmat, *data.ids)
    values = mean_ap, cmc[0], mean_ap_again, cmc_again[0]
    return Measurement(watch.seconds, tuple(map(float, values)))


def table_of(ours: Run, theirs: Run | None) -> list[tuple[str, ...]]:
    """The table's rows: quantity, torchreid's value, this package's value, ratio."""
    own, other = ours.result.seconds, theirs.result.seconds if theirs else None
    rows: list[tuple[str, ...]] = []
    for name, own_steps, other_steps in (
        ("CMC and mAP", (METRICS,), (METRICS,)),
        ("re-ranking, distances included", (RERANKING,), (DISTANCES, RERANKING)),
        ("all: distances, metrics, re-ranking, metrics", own, own),
    ):
        value = sum(own[step] for step in own_steps)
        reference = sum(other[step] for step in other_steps) if other else None
        rows.append((name, *compared(value, reference, "{:.2f} s")))
    rows.append(
        ("peak memory", *compared(ours.peak, theirs.peak if theirs else None, "{:.2f} GiB"))
    )
    for name, part in (("mAP, rank-1", slice(2)), ("mAP, rank-1, re-ranked", slice(2, 4))):
        sides = (side.result.metrics[part] if side else () for side in (theirs, ours))
        rows.append((name, *(", ".join(f"{100 * v:.2f} %" for v in side) for side in sides), ""))
    return rows


def compared(value: float, reference: float | None, form: str) -> tuple[str, str, str]:
    """The other program's value, this package's value, and their ratio, as text."""
    if reference is None:
        return "", form.format(value), ""
    return form.format(reference), form.format(value), f"{reference / value:.1f} ×"


def measure_growth(args: argparse.Namespace) -> None:
    """Re-rank growing numbers of images; print and plot time and memory."""
    picture = absolute_path(args.growth)
    if picture.suffix != ".png":
        raise ValueError(f"--growth: expected a .png file to write, got {picture}")
    require_writable(picture)  # now, not after the measurements
    rows, points = [], []
    for text in GROWTH:
        size = parse_size(text, args.dim)
        done = in_own_process(run_ours, size, args)
        points.append((size.queries + size.gallery, done.result.seconds[RERANKING], done.peak))
        rows.append([f"{points[-1][0]:,}", f"{points[-1][1]:.1f} s", f"{done.peak:.2f} GiB"])
        print(f"measured {rows[-1][0]} images", file=sys.stderr)
    print(f"{size.dim:,} dimensions; {machine(args.device)}\n")
    print(markdown(("images", "re-ranking", "peak memory"), rows))
    draw(points, picture)
    print(f"Plot: {picture}")


def draw(points: list[tuple[int, float, float]], path: Path) -> None:
    """Plot seconds and memory against the number of images; all axes are logarithmic."""
    images, *values = zip(*points, strict=True)
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    titles = "re-ranking, seconds", "peak memory of the process, GiB"
    for axes, title, costs in zip(figure.subplots(1, 2), titles, values, strict=True):
        axes.loglog(images, costs, "o-", clip_on=False)
        for x, y in zip(images, costs, strict=True):
            axes.annotate(f"{y:.1f}", (x, y), (0, 7), textcoords="offset points", ha="right")
        axes.set_title(title)
        axes.set_xlabel("images (query and gallery)")
        axes.set_xticks(images, [f"{n / 1000:.0f} k" for n in images], minor=False)
        axes.set_xticks([], minor=True)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.margins(0.1, 0.15)
        axes.grid(alpha=0.3)
    squares = [values[0][-1] * (n / images[-1]) ** 2 for n in images]
    line = figure.axes[0].plot(images, squares, ":", color="grey", zorder=0)
    figure.axes[0].legend(line, ["quadratic growth"])
    with write_atomically(path) as part:
        figure.savefig(part, dpi=120)
