"""Exact search in a memory-mapped file of embeddings, compared with faiss-cpu's flat index.

Both sides search the same random embeddings of norm 1, each in its own process: first all queries
together, then a single query. faiss keeps its index in memory, so it reads the file first.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.evaluation import compared
from benchmarks.measuring import Run, in_own_process, machine, markdown
from magnifier_plugin.evaluation.index_file import require_faiss
from magnifier_plugin.evaluation.nearest import nearest

READING, ALL, ONE = "reading the file", "all queries", "one query"
GALLERY, QUERY = "gallery.npy", "query.npy"
_ROWS = 1_000  # rows that are read or written at a time


class Cost(NamedTuple):
    """Cost of one step."""

    seconds: float
    """Wall time."""
    cpu: float
    """CPU time of all threads, in user and system mode."""


class SearchRun(NamedTuple):
    """Cost and result of one side."""

    costs: dict[str, Cost]
    """Step → its cost."""
    indices: np.ndarray
    """int64 [Q, topk], rows of the gallery, nearest first."""


def run(args: argparse.Namespace) -> None:
    """Measure both sides and print the table."""
    require_faiss()
    if args.topk > args.gallery:
        raise ValueError(f"--topk: expected at most --gallery {args.gallery}, got {args.topk}")
    torch.set_num_threads(args.threads or torch.get_num_threads())
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        write_embeddings(Path(folder), args)
        ours = in_own_process(search_ours, folder, args)
        theirs = in_own_process(search_faiss, folder, args)
    print(
        f"{args.queries:,} queries, {args.gallery:,} gallery images, {args.dim:,} dimensions, "
        f"{args.topk} neighbours; {machine('cpu')}\n"
    )
    print(markdown(("", "faiss-cpu, flat", "magnifier_plugin", "ratio"), table_of(ours, theirs)))
    same = (ours.result.indices == theirs.result.indices).mean()
    print(f"\nSame neighbour at the same rank: {same:.2%}; rounding in float32 swaps some")


def table_of(ours: Run, theirs: Run) -> list[tuple[str, ...]]:
    """The table's rows: quantity, faiss's value, this package's value, ratio."""
    own, other = ours.result.costs, theirs.result.costs
    rows: list[tuple[str, ...]] = [(READING, f"{other[READING].seconds:.2f} s", "0 s", "")]
    for step in (ALL, ONE):
        rows.append((step, *compared(own[step].seconds, other[step].seconds, "{:.2f} s")))
        rows.append(
            (
                f"{step}, CPU time of all cores",
                *compared(own[step].cpu, other[step].cpu, "{:.2f} s"),
            )
        )
    rows.append(("peak memory", *compared(ours.peak, theirs.peak, "{:.2f} GiB")))
    return rows


def write_embeddings(folder: Path, args: argparse.Namespace) -> None:
    """Write the gallery and the queries, random rows of norm 1."""
    rng = np.random.default_rng(args.seed)
    for name, count in ((GALLERY, args.gallery), (QUERY, args.queries)):
        file = np.lib.format.open_memmap(folder / name, "w+", np.float32, (count, args.dim))
        for start in range(0, count, _ROWS):
            size = min(_ROWS, count - start), args.dim
            block = rng.standard_normal(size, dtype=np.float32)
            file[start : start + _ROWS] = block / np.linalg.norm(block, axis=1, keepdims=True)
        file.flush()


def search_ours(folder: str, args: argparse.Namespace) -> SearchRun:
    """Search the memory-mapped file with this package."""
    torch.set_num_threads(args.threads or torch.get_num_threads())
    gallery = np.load(Path(folder, GALLERY), mmap_mode="r")
    query = np.load(Path(folder, QUERY))
    nearest(query[:1], gallery[:_ROWS], 1)  # loads what the first call loads, untimed
    costs = {}
    start = _clock()
    indices = nearest(query, gallery, args.topk).indices.numpy()
    costs[ALL] = _since(start)
    start = _clock()
    nearest(query[:1], gallery, args.topk)
    costs[ONE] = _since(start)
    return SearchRun(costs, indices)


def search_faiss(folder: str, args: argparse.Namespace) -> SearchRun:
    """Read the file into faiss's flat index and search it."""
    import faiss

    if args.threads:
        faiss.omp_set_num_threads(args.threads)
    query = np.load(Path(folder, QUERY))
    costs = {}
    start = _clock()
    index = faiss.IndexFlatL2(args.dim)
    gallery = np.load(Path(folder, GALLERY), mmap_mode="r")
    for first in range(0, len(gallery), _ROWS):
        index.add(np.array(gallery[first : first + _ROWS]))
    costs[READING] = _since(start)
    start = _clock()
    _, indices = index.search(query, args.topk)
    costs[ALL] = _since(start)
    start = _clock()
    index.search(query[:1], args.topk)
    costs[ONE] = _since(start)
    return SearchRun(costs, indices)


def _clock() -> Cost:
    return Cost(time.perf_counter(), time.process_time())


def _since(start: Cost) -> Cost:
    return Cost(*(now - before for now, before in zip(_clock(), start, strict=True)))
