"""Extract features of all images below a folder with a trained network.

    extract.py photos --weights log/model/model-best.pth.tar --out features.npz

The network, the image size and the normalisation are read from the checkpoint; a torchreid
checkpoint does not record them and needs -a NAME (and data.height, data.width). features.npz has
the arrays features (float32 [images, dimensions], raw) and name, and also pid and camid if file
names are like 0002_c1s1_000451_03.jpg. scripts/rerank.py and scripts/search.py read it. Images that
cannot be decoded are listed and skipped. Exit status: 0 done, 2 the input cannot be used.
"""

import argparse
import sys

from arguments import (
    add_network,
    escape_unencodable,
    exit_with,
    let_idle_threads_sleep,
    network_flags,
    parse_with_pairs,
    path,
)

let_idle_threads_sleep()


def parse(argv: list[str]) -> argparse.Namespace:
    """Parse the command line, KEY VALUE pairs into `pairs`; a wrong one ends with status 2."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folder", type=path, metavar="FOLDER", help="folder of images; must come first"
    )
    parser.add_argument("--out", type=path, required=True, metavar="FILE.npz", help="file to write")
    parser.add_argument(
        "--faiss",
        type=path,
        metavar="FILE",
        help="also write a flat faiss index with the rows in the same order",
    )
    add_network(parser)
    args = parse_with_pairs(parser, argv, positional=1)
    if args.out.suffix != ".npz":
        parser.error(f"--out: expected a .npz file to write, got {args.out}")
    taken = {
        file.resolve(): flag
        for flag, file in (("--weights", args.weights), ("--config-file", args.config_file))
        if file
    }
    for flag, file in (("--out", args.out), ("--faiss", args.faiss)):
        if file is None:
            continue
        if file.is_dir():
            parser.error(f"{flag}: expected a file to write, got the folder {file}")
        if other := taken.get(file.resolve()):
            parser.error(f"{flag}: {file} is the file of {other}, which it would overwrite")
        taken[file.resolve()] = flag
    return args


if __name__ == "__main__":
    parse(sys.argv[1:])  # --help and wrong arguments end here: the imports below take seconds

# isort: split
from magnifier_plugin.catalogue.images import list_images
from magnifier_plugin.engine.log import show_log
from magnifier_plugin.evaluation.feature_file import write_feature_file
from magnifier_plugin.evaluation.index_file import require_faiss, write_index
from magnifier_plugin.files import require_writable
from magnifier_plugin.retrieval.network import load_network
from magnifier_plugin.retrieval.photos import extract
from magnifier_plugin.wording import many


def main(argv: list[str] | None = None) -> int:
    """Extract as the arguments say; return the exit status."""
    escape_unencodable()
    args = parse(sys.argv[1:] if argv is None else argv)
    show_log()
    try:
        # Now, not after the extraction.
        require_writable(args.out)
        if args.faiss:
            require_writable(args.faiss)
            require_faiss()
        paths = list_images(args.folder)
        network = load_network(
            args.weights,
            file=args.config_file or "",
            flags=network_flags(args),
            pairs=args.pairs,
            also=("test.normalize_feature", "test.dist_metric") if args.faiss else (),
        )
        images = extract(network, paths, args.folder)
        write_feature_file(args.out, images)
        count, width = images.features.shape
        left_out = len(paths) - count
        images_kept = many(count, "image")
        print(f"{images_kept}, {left_out:,} left out, {width:,} dimensions: {args.out}")
        if args.faiss:
            write_index(args.faiss, images.features, normalise=network.normalises)
            print(f"Index: {args.faiss}")
    except (ValueError, OSError, RuntimeError) as error:
        print(f"extract.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    exit_with(main)
