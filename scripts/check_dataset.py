"""Checks a data set before it costs a training run.

    check_dataset.py -s market1501 --root reid-data

counts identities, cameras and images, and names the queries without a match, the identities that
are trained and tested on, and the files that do not decode. Nothing is downloaded. Exit
status: 0 no errors, 1 errors, 2 the data set cannot be opened.
"""

import argparse
import sys
from collections.abc import Sequence

from arguments import path, whole_number


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line; argparse itself ends with status 2 on a wrong one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("-s", "--source", required=True, help="the data set's name in torchreid")
    add(
        "--root",
        type=path,
        default="reid-data",
        help="folder of all data sets (default: %(default)s)",
    )
    add("--quick", action="store_true", help="check the lists only, open no image")
    add("--cuhk03-labeled", action="store_true", help="cuhk03: the labelled images")
    add("--workers", type=whole_number(1), help="processes (default: one for each core)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    parse(None)  # --help and wrong arguments end here: the imports below take seconds

# isort: split
from magnifier_plugin.catalogue.inspection import (
    DatasetProblem,
    Images,
    Lists,
    check_images,
    check_lists,
    many,
)
from magnifier_plugin.catalogue.layouts import require_dataset
from magnifier_plugin.catalogue.opening import open_dataset

SHOWN = 20  # errors, and warnings, that are printed
MARKS = {True: "error  ", False: "warning"}


def main(arguments: list[str] | None = None) -> int:
    """Checks as the arguments say; returns the exit status."""
    args = parse(arguments)
    try:
        require_dataset(args.source, args.root)  # nothing is rendered here
        dataset = open_dataset(args.source, args.root, cuhk03_labeled=args.cuhk03_labeled)
        lists = check_lists(dataset.train, dataset.query, dataset.gallery)
        show_lists(f"{args.source} in {args.root}", lists)
        problems = lists.problems
        if not args.quick:
            test = [*dataset.query, *dataset.gallery]
            images = check_images(dataset.train, test, workers=args.workers)
            show_sizes(images)
            problems = problems + images.problems
    except (ValueError, OSError, RuntimeError) as error:
        print(f"check_dataset.py: {error}", file=sys.stderr)
        return 2
    return show_problems(problems)


def show_lists(title: str, lists: Lists) -> None:
    """Prints the counts as a Markdown table, and the queries without a match."""
    print(f"{title}\n")
    print("| list | images | identities | cameras | images of an identity: min, median, max |")
    print("|---|---:|---:|---:|---:|")
    for subset in lists.subsets:
        least, middle, most = subset.images_of_identity
        print(
            f"| {subset.name} | {subset.images:,} | {subset.identities:,} | {subset.cameras} "
            f"| {least}, {middle:g}, {most} |"
        )
    print(
        f"\nQueries without a match: {len(lists.absent):,} of an identity not in the gallery, "
        f"{len(lists.same_camera):,} seen there by their own camera only"
    )


def show_sizes(images: Images) -> None:
    """Prints the sizes of the images."""
    print(
        f"Images that decode: {images.sizes.total():,} in {many(len(images.sizes), 'size')}", end=""
    )
    if images.sizes:
        usual = ", ".join(f"{w} × {h} ({n:,})" for (w, h), n in images.sizes.most_common(3))
        widths, heights = zip(*images.sizes, strict=True)
        print(f", most often {usual}; ", end="")
        print(
            f"width {min(widths)} to {max(widths)}, height {min(heights)} to {max(heights)}", end=""
        )
    print()


def show_problems(problems: Sequence[DatasetProblem]) -> int:
    """Prints the problems, errors first; returns the exit status."""
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
    sys.exit(main())
