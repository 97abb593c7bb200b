"""Re-rank features from any toolbox: print metrics before and after, and write a ranking file.

    rerank.py --query query.npy --gallery gallery.npy \\
              --query-ids query.csv --gallery-ids gallery.csv --out ranking.csv

Features are float arrays [images, dimensions] in .npy, .npz or .pt files (FILE:KEY selects one of
several arrays). Ids are CSV files with the columns pid, camid and optionally name, separated by
commas, semicolons or tabs, or .npz files with such arrays. Images of identity -1, Market-1501's
junk, are left out, as in torchreid. Without ids there are no metrics, only the ranking file. Exit
status: 0 done, 2 the input cannot be used.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from arguments import escape_unencodable, exit_with, let_idle_threads_sleep, path, whole_number

let_idle_threads_sleep()

METRICS = ("euclidean", "cosine")
FORMS = ("torchreid", "paper")
TOP, SEED = 50, 0  # defaults of --top and --seed


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line; a wrong one ends the script with status 2."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--query", required=True, type=path, metavar="FILE[:KEY]", help="features of the queries")
    add("--gallery", required=True, type=path, metavar="FILE[:KEY]", help="features of the gallery")
    add("--query-ids", type=path, metavar="FILE", help="identities and cameras of the queries")
    add("--gallery-ids", type=path, metavar="FILE", help="identities and cameras of the gallery")
    add("--out", type=path, metavar="FILE.csv", help="write each query's re-ranked gallery here")
    add(
        "--top",
        type=whole_number(1),
        help=f"gallery images per query in --out (default: {TOP})",
    )
    add("--metric", choices=METRICS, default="cosine", help="distance (default: %(default)s)")
    add("--k1", type=int, help="size of neighbourhoods (default: 20; less with few images)")
    add("--k2", type=int, help="rows in query expansion's mean (default: 6; less with few images)")
    add(
        "--lambda",
        dest="lambda_value",
        type=float,
        default=0.3,
        help="original distance's weight (default: %(default)s)",
    )
    add(
        "--form",
        choices=FORMS,
        default=FORMS[0],
        help="input distances: torchreid (fourth power of Euclidean) or paper (squared) "
        "(default: %(default)s)",
    )
    add("--memory", type=float, help="working memory, GiB (default: 1/64 on a CPU, 2 on a GPU)")
    add("--device", help="cpu or cuda (default: the GPU if there is one)")
    add("--cuhk03", action="store_true", help="use CUHK03's single-gallery-shot metric")
    add(
        "--seed",
        type=whole_number(0),
        help=f"seed of --cuhk03's draws (default: {SEED})",
    )
    args = parser.parse_args(arguments)
    if bool(args.query_ids) != bool(args.gallery_ids):
        parser.error("--query-ids and --gallery-ids: give both or neither")
    if not (args.query_ids or args.out):
        parser.error("nothing to do: give ids for metrics, or --out for a ranking file")
    for flag, value, needed, given in (
        ("--top", args.top, "--out", args.out),
        ("--cuhk03", args.cuhk03 or None, "ids", args.query_ids),
        ("--seed", args.seed, "--cuhk03", args.cuhk03),
    ):
        if value is not None and not given:
            parser.error(f"{flag}: has no effect without {needed}")
    if args.out and (args.out.suffix != ".csv" or args.out.is_dir()):
        parser.error(f"--out: expected a .csv file to write, got {args.out}")
    inputs = [file.resolve() for file in (args.query_ids, args.gallery_ids) if file]
    if args.out and args.out.resolve() in inputs:
        parser.error(f"--out: {args.out} is an input file and would be overwritten")
    return args


if __name__ == "__main__":
    parse(None)  # --help and wrong arguments end here: the imports below take seconds

# isort: split
import numpy as np
import torch
from torch import Tensor

from magnifier_plugin.catalogue.image_list import JUNK
from magnifier_plugin.evaluation.checks import as_features
from magnifier_plugin.evaluation.distances import distance_matrix
from magnifier_plugin.evaluation.features import Ids, load_features, load_ids
from magnifier_plugin.evaluation.ranking import Ranking, evaluate_cuhk03, evaluate_ranking
from magnifier_plugin.evaluation.ranking_file import write_ranking
from magnifier_plugin.evaluation.rerank import fit_neighbours, rerank
from magnifier_plugin.evaluation.scaling import l2_normalise
from magnifier_plugin.files import require_writable
from magnifier_plugin.wording import many

RANKS = (1, 5, 10, 20)


def main(arguments: list[str] | None = None) -> int:
    """Re-rank the features of the command line; return the exit status."""
    escape_unencodable()
    args = parse(arguments)
    try:
        if args.out:
            require_writable(args.out)  # now, not after the re-ranking
        query, gallery = as_features(load_features(args.query), load_features(args.gallery))
        ids: tuple[Ids | None, Ids | None] = None, None
        if args.query_ids:
            query_ids, gallery_ids = read_ids(args, len(query), len(gallery))
            query, query_ids = leave_out_junk(args.query_ids, query, query_ids)
            gallery, gallery_ids = leave_out_junk(args.gallery_ids, gallery, gallery_ids)
            ids = query_ids, gallery_ids
        device = choose_device(args.device)
        evaluate_and_write(args, query.to(device), gallery.to(device), ids)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"rerank.py: {error}", file=sys.stderr)
        return 2
    return 0


def choose_device(given: str | None) -> torch.device:
    """The given device, else the GPU if there is one."""
    has_gpu = torch.cuda.is_available()
    device = torch.device(given or ("cuda" if has_gpu else "cpu"))
    if device.type == "cuda" and not has_gpu:
        raise ValueError("--device cuda: no GPU was found; leave --device out to use the CPU")
    return device


def read_ids(args: argparse.Namespace, num_queries: int, num_gallery: int) -> tuple[Ids, Ids]:
    """Read the ids of query and gallery, and check them against the features."""
    query, gallery = load_ids(args.query_ids), load_ids(args.gallery_ids)
    for file, ids, features, count in (
        (args.query_ids, query, args.query, num_queries),
        (args.gallery_ids, gallery, args.gallery, num_gallery),
    ):
        if len(ids.pids) != count:
            raise ValueError(
                f"{file}: {len(ids.pids)} rows, but {features} has features of {count} images"
            )
    for name in ("pids", "camids"):
        texts = [getattr(ids, name).dtype.kind not in "iu" for ids in (query, gallery)]
        if texts[0] != texts[1]:
            paths = args.query_ids, args.gallery_ids
            raise ValueError(
                f"{paths[texts.index(True)]}: {name} are text (or one value is not an integer), "
                f"but in {paths[texts.index(False)]} they are integers, so none would match; "
                "write both in the same way"
            )
    return query, gallery


def leave_out_junk(file: Path, features: Tensor, ids: Ids) -> tuple[Tensor, Ids]:
    """Leave out the images of identity JUNK, and print how many; `file` is that of the ids."""
    kept = ids.pids.astype(str) != JUNK
    if kept.all():
        return features, ids
    if not kept.any():
        raise ValueError(
            f"{file}: expected images of other identities than {JUNK} (junk, which is left out), "
            "found none"
        )
    number = many(len(kept) - int(kept.sum()), "image")
    print(f"{file}: {number} of identity {JUNK} (junk) left out, as in torchreid")
    # Images without names keep their row numbers.
    names = np.arange(len(kept)).astype(str) if ids.names is None else ids.names
    rest = Ids(ids.pids[kept], ids.camids[kept], names[kept])
    return features[torch.from_numpy(kept)], rest


def evaluate_and_write(
    args: argparse.Namespace, query: Tensor, gallery: Tensor, ids: tuple[Ids | None, Ids | None]
) -> None:
    """Re-rank; print the metrics if there are ids, and write the ranking if --out is given."""
    if args.metric == "cosine":
        query, gallery = l2_normalise(query), l2_normalise(gallery)
    rows = []
    query_ids, gallery_ids = ids
    if query_ids and gallery_ids:
        plain = distance_matrix(query, gallery, args.metric)
        rows.append(("original", measure(args, plain, query_ids, gallery_ids)))
        del plain
    k1, k2 = fit_neighbours(len(query) + len(gallery))
    start = time.perf_counter()
    distmat: Any = rerank(
        query,
        gallery,
        k1 if args.k1 is None else args.k1,
        k2 if args.k2 is None else args.k2,
        args.lambda_value,
        form=args.form,
        memory=args.memory,
    )
    seconds = time.perf_counter() - start
    if query_ids and gallery_ids:
        rows.append(("re-ranked", measure(args, distmat, query_ids, gallery_ids)))
        print_table(rows)
    print(f"{len(query):,} × {len(gallery):,} images re-ranked in {seconds:.1f} s")
    if args.out:
        write_ranking(args.out, distmat, *ids, top=TOP if args.top is None else args.top)
        print(f"Ranking: {args.out}")


def measure(args: argparse.Namespace, distmat: Tensor, query: Ids, gallery: Ids) -> Ranking:
    """The metrics of a distance matrix, CUHK03's with --cuhk03."""
    ids = query.pids, gallery.pids, query.camids, gallery.camids
    if args.cuhk03:
        seed = SEED if args.seed is None else args.seed
        return evaluate_cuhk03(distmat, *ids, max_rank=max(RANKS), seed=seed)
    return evaluate_ranking(distmat, *ids, max_rank=max(RANKS))


def print_table(rows: list[tuple[str, Ranking]]) -> None:
    """Print the metrics as a Markdown table, in percent."""
    names = ["mAP", "mINP", *(f"rank-{rank}" for rank in RANKS)]
    print(f"| distances | {' | '.join(names)} |\n|---|{'---:|' * len(names)}")
    for name, ranking in rows:
        values = [ranking.mAP, ranking.mINP, *(ranking.cmc[rank - 1] for rank in RANKS)]
        print(f"| {name} | {' | '.join(f'{100 * value:.2f}' for value in values)} |")
    left_out = ranking.num_absent + ranking.num_same_camera
    if left_out:
        print(
            f"Queries without a match, left out: {ranking.num_absent:,} whose identity is not in "
            f"the gallery, {ranking.num_same_camera:,} whose identity is there only in images of "
            "the query's own camera"
        )


if __name__ == "__main__":
    exit_with(main)
