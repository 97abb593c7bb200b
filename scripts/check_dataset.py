"""Check a data set before training with it.

    check_dataset.py -s market1501 --root reid-data
    check_dataset.py -s shop=shop.csv
    check_dataset.py -s shop=photos --split 0.5 --seed 1 --write-csv photos/shop.csv

The script counts identities, cameras and images, and lists queries without a match, identities in
both training and test, and images that cannot be decoded. For your own CSV or folder (NAME=PATH),
it prints the first rows as it reads them, and all errors.

--split draws training identities from a folder with one folder per identity, from a folder of
images with names such as 0002_c1s1_000451_03.jpg, or from a CSV. For each other identity, one
random image of each camera with two or more images becomes a query (without cameras: one image);
the rest is the gallery. Nothing is downloaded. Exit status: 0 no errors, 1 errors, 2 the data set
cannot be opened.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from arguments import (
    add_data_set,
    check_data_set,
    escape_unencodable,
    exit_with,
    path,
    share,
    whole_number,
)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line; argparse ends the script with status 2 if it is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add_data_set(parser)
    add("--quick", action="store_true", help="check the lists only, without opening images")
    add(
        "--same-camera",
        choices=["drop", "keep"],
        default="drop",
        help="matches from the query's own camera (test.same_camera, default: %(default)s)",
    )
    add("--split", type=share, help="NAME=PATH: share of identities for training, 0..1")
    add("--seed", type=whole_number(0), help="seed of --split (default: 1)")
    add("--write-csv", type=path, help="NAME=PATH: write the list to a new file")
    add("--workers", type=whole_number(1), help="number of processes (default: one per core)")
    args = parser.parse_args(arguments)
    if "=" not in args.source and (args.split is not None or args.write_csv):
        parser.error("--split, --write-csv: expected -s NAME=PATH, a CSV or a folder of your own")
    if args.seed is not None and args.split is None:
        parser.error("--seed: only used with --split")
    if args.write_csv and os.path.lexists(args.write_csv):
        parser.error(f"--write-csv: {args.write_csv} already exists: remove it, or write another")
    check_data_set(parser, args, args.source)
    return args


if __name__ == "__main__":
    parse(None)  # --help and wrong arguments end here: the imports below take seconds

# isort: split
from magnifier_plugin.catalogue.csv_list import read_image_csv, write_image_csv
from magnifier_plugin.catalogue.folder_list import read_identities
from magnifier_plugin.catalogue.image_list import SPLITS, ImageList
from magnifier_plugin.catalogue.inspection import Images, Lists, check_images, check_lists
from magnifier_plugin.catalogue.layouts import require_dataset
from magnifier_plugin.catalogue.listed import register_source
from magnifier_plugin.catalogue.names import ImageRecord, OriginalIds
from magnifier_plugin.catalogue.numbering import drop_cameras, number_images
from magnifier_plugin.catalogue.opening import open_lists, original_ids
from magnifier_plugin.catalogue.problems import DatasetProblem
from magnifier_plugin.catalogue.splitting import split_identities
from magnifier_plugin.files import require_writable
from magnifier_plugin.user_modules import import_user_module
from magnifier_plugin.wording import many

SHOWN = 20  # errors that are printed, and as many warnings
FIRST_ROWS = 2  # rows of each split that are printed
MARKS = {True: "error  ", False: "warning"}
Parts = tuple[Sequence[ImageRecord], Sequence[ImageRecord], Sequence[ImageRecord]]


def main(arguments: list[str] | None = None) -> int:
    """Check a data set as the arguments say; return the exit status."""
    escape_unencodable()
    args = parse(arguments)
    try:
        if args.write_csv:
            require_writable(args.write_csv)  # now, not after all images are decoded
        for module in args.modules:
            import_user_module(module)
        return check_own(args) if "=" in args.source else check_registered(args)
    except (ValueError, OSError, RuntimeError, ModuleNotFoundError) as error:
        print(f"check_dataset.py: {error}", file=sys.stderr)
        return 2


def check_registered(args: argparse.Namespace) -> int:
    """Check a data set that is registered in torchreid; return the exit status."""
    require_dataset(args.source, args.root)  # nothing is rendered here
    dataset = open_lists(args.source, args.root, cuhk03_labeled=args.cuhk03_labeled)
    parts = dataset.train, dataset.query, dataset.gallery
    compare_names = not getattr(dataset, "identities_compared", False)
    print(f"{args.source} in {args.root}\n")
    return show_problems(check_parts(args, parts, compare_names, original_ids(dataset)))


def check_own(args: argparse.Namespace) -> int:
    """Check a user's CSV or folder, split and written as asked; return the exit status."""
    images = read_own(args)
    print(args.source)
    problems = images.problems
    if images.images:
        show_rows(images)
        numbered = number_images(images)
        parts = numbered.train, numbered.query, numbered.gallery
        problems = problems + check_parts(args, parts, False, images.original_ids)
    status = show_problems(list(dict.fromkeys(problems)))
    if args.write_csv and status:
        print(f"{args.write_csv} is not written: fix the errors first")
    elif args.write_csv:
        write_image_csv(args.write_csv, images)
        print(f"{args.write_csv}: {many(len(images.images), 'image')}")
    return status


def read_own(args: argparse.Namespace) -> ImageList:
    """Read a CSV or a folder, and split it anew if --split is given."""
    source = register_source(*args.source.split("=", 1))
    if args.split is None:
        return source.read()
    if source.path.is_dir():
        images = read_identities(source.path)
    else:
        images = read_image_csv(source.path, need_split=False)
    return split_identities(images, args.split, 1 if args.seed is None else args.seed)


def check_parts(
    args: argparse.Namespace, parts: Parts, compare_names: bool, ids: OriginalIds
) -> list[DatasetProblem]:
    """Check the three lists and, unless --quick, every image; print the counts."""
    train, query, gallery = parts
    lists = check_lists(*parts, compare_names=compare_names, original_ids=ids)
    if args.same_camera == "keep":
        subsets = lists.subsets  # with the cameras as they are
        query, gallery = drop_cameras(query, gallery)
        lists = check_lists(*(train, query, gallery), compare_names=compare_names, original_ids=ids)
        lists = lists._replace(subsets=subsets)
    show_lists(lists)
    if args.quick:
        return lists.problems
    images = check_images(train, [*query, *gallery], workers=args.workers)
    show_sizes(images)
    return lists.problems + images.problems


def show_rows(images: ImageList) -> None:
    """Print the first rows of each split, as they were read, as a Markdown table."""
    folder = images.source if images.source.is_dir() else images.source.parent
    names = ["path", "identity", "camera", "split", *images.conditions]
    print(f"\n| {' | '.join(names)} |\n|{'---|' * len(names)}")
    for split in SPLITS:
        for image in images.of_split(split)[:FIRST_ROWS]:
            place = os.path.relpath(image.path, folder)
            cells = [place, image.pid, image.camid or "its own", split, *image.conditions]
            print(f"| {' | '.join(cells)} |")
    for note in images.notes:
        print(f"\n{note}")
    print()


def show_lists(lists: Lists) -> None:
    """Print the counts as a Markdown table, and the number of queries without a match."""
    print("| list | images | identities | cameras | images per identity: min, median, max |")
    print("|---|---:|---:|---:|---:|")
    for subset in lists.subsets:
        least, middle, most = subset.images_of_identity
        print(
            f"| {subset.name} | {subset.images:,} | {subset.identities:,} | {subset.cameras} "
            f"| {least}, {middle:g}, {most} |"
        )
    print(
        f"\nQueries without a match: {len(lists.absent):,} whose identity is not in the gallery, "
        f"{len(lists.same_camera):,} whose identity is there only in images of the query's own "
        "camera"
    )


def show_sizes(images: Images) -> None:
    """Print the sizes of the images."""
    print(f"Decoded images: {images.sizes.total():,} in {many(len(images.sizes), 'size')}", end="")
    if images.sizes:
        usual = ", ".join(f"{w} × {h} ({n:,})" for (w, h), n in images.sizes.most_common(3))
        widths, heights = zip(*images.sizes, strict=True)
        print(f", most often {usual}; ", end="")
        print(
            f"width {min(widths)} to {max(widths)}, height {min(heights)} to {max(heights)}", end=""
        )
    print()


def show_problems(problems: Sequence[DatasetProblem]) -> int:
    """Print the problems, errors first; return the exit status."""
    errors = sum(problem.is_error for problem in problems)
    print(f"\n{many(errors, 'error')}, {many(len(problems) - errors, 'warning')}")
    for is_error in (True, False):
        texts = [problem.text for problem in problems if problem.is_error == is_error]
        for text in texts[:SHOWN]:
            print(f"{MARKS[is_error]} {text}")
        if len(texts) > SHOWN:
            print(f"{MARKS[is_error]} … and {len(texts) - SHOWN:,} more")
    return int(errors > 0)


if __name__ == "__main__":
    exit_with(main)
