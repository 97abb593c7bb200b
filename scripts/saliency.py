"""Show what a trained network looks at, on the query images of a data set.

    saliency.py -s market1501 --root reid-data --weights model-best.pth.tar --out looks
    saliency.py -s market1501 --root reid-data --weights all.pth.tar --against g.pth.tar --out looks

Files in the folder --out:
    activations.png  each image, and where each branch is active (MagnifierNet, Fig. 2)
    influence.png    each image; the colour of a body region shows how far the embedding moves when
                     that region is blanked
    saliency.md      the mean influence by branch and region; the mean cosine of the regions' pooled
                     features (Eq. 3); the IoU of the predicted regions and the label maps; with
                     --branches, mAP and rank-1 of each branch alone
    comparison.png   with --against: queries that the first network gets right and the other wrong
                     (Fig. 3); the number of such queries is printed. --config-file, flags and KEY
                     VALUE pairs count for both networks
Exit status: 0 done, 2 the input cannot be used.
"""

import argparse
import sys
from pathlib import Path

from arguments import (
    add_data_set,
    add_network,
    check_data_set,
    escape_unencodable,
    exit_with,
    let_idle_threads_sleep,
    network_flags,
    parse_with_pairs,
    path,
    refuse_keys,
    whole_number,
)

let_idle_threads_sleep()

TOPK = 5  # hits per query
METRIC_KEYS = ("test.normalize_feature", "test.dist_metric")  # of --branches and --against


def parse(argv: list[str]) -> argparse.Namespace:
    """Parse the command line, KEY VALUE pairs into `pairs`; a wrong one ends with status 2."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add_data_set(parser)
    add("--out", type=path, required=True, metavar="FOLDER", help="folder to write to")
    add("--against", type=path, metavar="FILE", help="checkpoint of a network to compare with")
    add("--branches", action="store_true", help="test each branch's part of the embedding alone")
    add(
        "--masks-dir",
        type=path,
        metavar="FOLDER",
        help="folder of all label maps (default: $MAGNIFIER_MASKS, else mask_labels)",
    )
    add(
        "--images",
        type=whole_number(1),
        default=6,
        help="images per picture (default: %(default)s)",
    )
    add(
        "--numbers",
        type=whole_number(1),
        default=200,
        help="images for saliency.md, at least as many as --images (default: %(default)s)",
    )
    add(
        "--topk",
        type=whole_number(1),
        help=f"with --against: hits per query in comparison.png (default: {TOPK})",
    )
    add_network(parser)
    args = parse_with_pairs(parser, argv)
    if args.topk and not args.against:
        parser.error("--topk: has no effect without --against")
    if not (args.branches or args.against):
        refuse_keys(parser, args.pairs, METRIC_KEYS, "--branches or --against")
    check_data_set(parser, args, args.source)
    return args


if __name__ == "__main__":
    parse(sys.argv[1:])  # --help and wrong arguments end here: the imports below take seconds

# isort: split
import magnifier_plugin  # noqa: F401  registers data sets and models
from magnifier_plugin.data.annotated import AnnotatedDataset
from magnifier_plugin.engine.log import show_log
from magnifier_plugin.files import require_writable, write_atomically
from magnifier_plugin.images import write_png
from magnifier_plugin.retrieval.comparison import branch_table, compare, evaluate_branches
from magnifier_plugin.retrieval.network import TEST_DATA_KEYS, TrainedNetwork, load_network
from magnifier_plugin.retrieval.saliency import (
    activation_sheet,
    describe,
    influence_sheet,
    look_at,
    read_photos,
)
from magnifier_plugin.user_modules import import_user_module
from magnifier_plugin.visualize.sheets import spread_evenly


def main(argv: list[str] | None = None) -> int:
    """Draw and measure as the arguments say; return the exit status."""
    escape_unencodable()
    args = parse(sys.argv[1:] if argv is None else argv)
    show_log()
    try:
        require_writable(args.out / "saliency.md")  # now, not after the extraction
        for module in args.modules:
            import_user_module(module)
        network = load(args, args.weights)
        dataset = open_queries(args, network)
        look(args, network, dataset)
        if args.against:
            show_differences(args, network, dataset)
    except (ValueError, OSError, RuntimeError, ModuleNotFoundError) as error:
        print(f"saliency.py: {error}", file=sys.stderr)
        return 2
    return 0


def load(args: argparse.Namespace, weights: Path) -> TrainedNetwork:
    """Load a network; the configuration of the command line counts for both."""
    boxes = {"cuhk03.labeled_images": True} if args.cuhk03_labeled else {}
    return load_network(
        weights,
        file=args.config_file or "",
        flags={**network_flags(args), **boxes},
        pairs=args.pairs,
        also=(*METRIC_KEYS, *TEST_DATA_KEYS),
    )


def open_queries(args: argparse.Namespace, network: TrainedNetwork) -> AnnotatedDataset:
    """Open the query images, with label maps where there are any."""
    cfg = network.cfg
    return AnnotatedDataset(
        args.source,
        args.root,
        transform=network.compose,
        mode="query",
        masks_dir=args.masks_dir,
        max_missing=1.0,
        label_set=cfg.masks.label_set,
        same_camera=cfg.test.same_camera,
        inputs=("mask",),
        cuhk03_labeled=cfg.cuhk03.labeled_images,
        cuhk03_classic_split=cfg.cuhk03.classic_split,
    )


def look(args: argparse.Namespace, network: TrainedNetwork, dataset: AnnotatedDataset) -> None:
    """Write activations.png, influence.png and saliency.md."""
    measured = spread_evenly(range(len(dataset)), max(args.images, args.numbers))
    found = look_at(network, dataset, measured)
    places = spread_evenly(range(len(measured)), args.images)
    size = network.cfg.data.height, network.cfg.data.width
    photos = read_photos(dataset, [measured[place] for place in places], size)
    write_png(args.out / "activations.png", activation_sheet(photos, found, places))
    write_png(args.out / "influence.png", influence_sheet(photos, found, places))
    text = describe(found)
    if args.branches:
        table = branch_table(evaluate_branches(network, dataset.query, dataset.gallery))
        text += f"\nEach branch tested alone, in % (no re-ranking):\n\n{table}\n"
    with write_atomically(args.out / "saliency.md") as part:
        part.write_text(text, encoding="utf-8")
    print(text)
    print("\n".join(str(args.out / n) for n in ("activations.png", "influence.png", "saliency.md")))


def show_differences(
    args: argparse.Namespace, network: TrainedNetwork, dataset: AnnotatedDataset
) -> None:
    """Write the queries that the network gets right and the other one wrong."""
    other = load(args, args.against)
    names = str(args.weights), str(args.against)
    found = compare(
        (network, other),
        dataset.query,
        dataset.gallery,
        names=names,
        rows=args.images,
        topk=args.topk or TOPK,
    )
    one, two = found.first, found.second
    print(
        f"Queries whose first hit is right: {one.sum()} of {len(one)} with {names[0]}, "
        f"{two.sum()} with {names[1]}; only with the first {(one & ~two).sum()}, only with the "
        f"second {(two & ~one).sum()}"
    )
    picture = args.out / "comparison.png"
    if found.sheet is None:
        picture.unlink(missing_ok=True)  # it shows other networks
        return
    write_png(picture, found.sheet)
    print(picture)


if __name__ == "__main__":
    exit_with(main)
