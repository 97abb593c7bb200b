"""Rank a gallery of images for each query, and write one HTML page to browse the hits.

    search.py --weights model-best.pth.tar --gallery photos --query lost.jpg --out page.html

The gallery is a folder of images, or features.npz, which scripts/extract.py makes from one. The
page works offline and needs no other file: choose a query, filter its hits by folder, camera or
name, mark some, and save the marks as CSV. With MagnifierNet, it also shows for each hit the cosine
of every body region, and the predicted regions over the pictures. Exit status: 0 done, 2 the input
cannot be used.
"""

import argparse
import sys

from arguments import (
    add_network,
    escape_unencodable,
    exit_with,
    html_file,
    let_idle_threads_sleep,
    network_flags,
    parse_with_pairs,
    path,
    refuse_keys,
    whole_number,
)

let_idle_threads_sleep()


def parse(argv: list[str]) -> argparse.Namespace:
    """Parse the command line, KEY VALUE pairs into `pairs`; a wrong one ends with status 2."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--gallery", type=path, required=True, metavar="FOLDER|FILE.npz", help="images to search")
    add("--query", type=path, required=True, metavar="IMAGE|FOLDER", help="images to search for")
    add("--out", type=html_file, required=True, metavar="FILE.html", help="page to write")
    add("--images", type=path, metavar="FOLDER", help="image folder of FILE.npz, if it was moved")
    add("--rerank", action="store_true", help="k-reciprocal re-ranking (test.rerank_*)")
    add(
        "--topk",
        type=whole_number(1),
        default=20,
        help="hits shown at once, with their regions (default: %(default)s)",
    )
    add(
        "--depth",
        type=whole_number(1),
        default=200,
        help="hits stored per query, for filtering (default: %(default)s)",
    )
    add_network(parser)
    args = parse_with_pairs(parser, argv)
    if args.images and args.gallery.suffix != ".npz":
        parser.error("--images: has no effect if the gallery is a folder")
    if not args.rerank:
        refuse_keys(parser, args.pairs, ("test.rerank_",), "--rerank")
    return args


if __name__ == "__main__":
    parse(sys.argv[1:])  # --help and wrong arguments end here: the imports below take seconds

# isort: split
from magnifier_plugin.builders import build_reranking
from magnifier_plugin.catalogue.images import list_images
from magnifier_plugin.engine.log import show_log
from magnifier_plugin.evaluation.feature_file import SUFFIX, ImageFeatures, read_feature_file
from magnifier_plugin.files import require_writable
from magnifier_plugin.retrieval.network import COMPARISON_KEYS, TrainedNetwork, load_network
from magnifier_plugin.retrieval.photos import extract
from magnifier_plugin.retrieval.search import (
    Comparison,
    page_of,
    require_images,
    require_same_network,
    same_files,
    search,
)
from magnifier_plugin.visualize.search_page import write_search_page
from magnifier_plugin.wording import many


def main(argv: list[str] | None = None) -> int:
    """Search as the arguments say; return the exit status."""
    escape_unencodable()
    args = parse(sys.argv[1:] if argv is None else argv)
    show_log()
    try:
        run(args)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"search.py: {error}", file=sys.stderr)
        return 2
    return 0


def run(args: argparse.Namespace) -> None:
    """Read queries and gallery, rank, and write the page."""
    require_writable(args.out)  # now, not after the extraction
    if not args.query.exists():
        raise FileNotFoundError(f"{args.query}: expected an image or a folder of images")
    query_paths = [args.query] if args.query.is_file() else list_images(args.query)
    query_folder = args.query.parent if args.query.is_file() else args.query
    network = load_network(
        args.weights,
        file=args.config_file or "",
        flags=network_flags(args),
        pairs=args.pairs,
        also=COMPARISON_KEYS,
    )
    gallery = read_gallery(args, network)
    queries = extract(network, query_paths, query_folder, "Queries")
    test = network.cfg.test
    comparison = Comparison(
        test.dist_metric,
        test.normalize_feature,
        build_reranking(network.cfg) if args.rerank else None,
    )
    own = same_files(queries.paths, gallery.paths)
    hits = search(queries.features, gallery.features, max(args.depth, args.topk), comparison, own)
    images, pages = page_of(network, queries, gallery, hits, args.topk)
    write_search_page(
        args.out,
        images,
        pages,
        title=f"{args.query.name} in {gallery.folder.name}",
        facts={
            "queries": f"{len(queries.names):,} from {args.query}",
            "gallery": f"{many(len(gallery.names), 'image')} from {gallery.folder}",
            "network": f"{network.cfg.model.name}, {args.weights}",
            "ranked by": str(comparison),
        },
        metric=str(comparison),
        topk=args.topk,
        gallery=len(gallery.names),
        workers=network.cfg.data.workers or 1,
    )
    print(f"{many(len(queries.names), 'query')}, {many(len(gallery.names), 'gallery image')}")
    print(f"Page: {args.out} ({args.out.stat().st_size / 1e6:.1f} MB)")


def read_gallery(args: argparse.Namespace, network: TrainedNetwork) -> ImageFeatures:
    """Read the gallery's features from their file, or extract them from the images."""
    if args.gallery.suffix != SUFFIX:
        return extract(network, list_images(args.gallery), args.gallery, "Gallery")
    gallery = read_feature_file(args.gallery)
    require_same_network(network, gallery, str(args.gallery))
    gallery = gallery._replace(folder=args.images or gallery.folder)
    require_images(gallery.paths, str(args.gallery))
    return gallery


if __name__ == "__main__":
    exit_with(main)
