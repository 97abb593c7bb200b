"""Convert the output of DensePose, a parser or a pose estimator to label maps and IUV.

    convert_masks.py --source densepose-iuv  --iuv DIR
    convert_masks.py --source densepose-dump --dump FILE
    convert_masks.py --source densepose-json --json FILE --annotations FILE
    convert_masks.py --source parsing        --parsing DIR
                     --label-set lip|cihp|atr|pascal|sapiens|FILE
    convert_masks.py --source npy            --npy DIR
    convert_masks.py --source keypoints      --keypoints FILE|DIR [--annotations FILE]

Add `-s market1501 --root reid-data`, or `-s shop=PATH` for your own CSV or folder, or
`--images reid-data/market1501 --out mask_labels/market1501`: the data set's folder or one within
it, and a folder with the data set's name in torchreid. MagnifierNet learns from label maps,
DSA-reID from IUV (`--keep-iuv`: both, `--iuv-only`: no label maps). Finished files are kept; after
an interruption, run the same command again. Exit status: 0 all annotations were read, 1 some could
not be read, 2 the conversion could not be started or finished.
"""

import argparse
import errno
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from arguments import (
    add_data_set,
    check_data_set,
    escape_unencodable,
    exit_with,
    path,
    share,
    whole_number,
)

# --source → the options it needs.
NEEDED: Mapping[str, tuple[str, ...]] = {
    "densepose-iuv": ("iuv",),
    "densepose-dump": ("dump",),
    "densepose-json": ("json", "annotations"),
    "parsing": ("parsing", "label_set"),
    "npy": ("npy",),
    "keypoints": ("keypoints",),
}
# --source → the options that it can also use. Other sources' options are an error.
OPTIONAL: Mapping[str, tuple[str, ...]] = {
    "densepose-iuv": ("hands",),
    "densepose-dump": ("hands", "min_score"),
    "densepose-json": ("hands", "min_score"),
    "parsing": (),
    "npy": (),
    "keypoints": ("annotations", "min_score"),
}
HANDS = "lower arm"  # the default of --hands
# --source → the default of --min-score.
MIN_SCORES = {"densepose-dump": 0.5, "densepose-json": 0.5, "keypoints": 0.3}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line; argparse ends the script with status 2 if it is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, add_path = parser.add_argument, partial(parser.add_argument, type=path)
    add("--source", required=True, choices=NEEDED, help="format of the annotations")
    add_path("--iuv", help="densepose-iuv: folder of NAME_IUV.png")
    add_path("--dump", help="densepose-dump: file written by `apply_net.py dump --output`")
    add_path("--json", help="densepose-json: COCO DensePose results")
    add_path(
        "--annotations",
        help="densepose-json, and keypoints with numbered images: COCO annotations of the images",
    )
    add_path("--parsing", help="parsing: folder of palette PNGs, or of .npy files of class ids")
    add(
        "--label-set",
        "--labels",
        help="parsing: lip, cihp, atr, pascal, sapiens, or your own YAML file",
    )
    add_path("--npy", help="npy: folder of the NAME.npy files of MagnifierNet's authors")
    add_path(
        "--keypoints",
        metavar="PATH",
        help="keypoints: COCO results, or a folder of OpenPifPaf, OpenPose or Ultralytics",
    )
    add_data_set(parser, "--dataset", required=False)
    add_path("--images", help="the data set's folder, or one within it (default: all of -s)")
    add_path(
        "--out",
        help="folder to write to (default with -s: $MAGNIFIER_MASKS/NAME, else mask_labels/NAME)",
    )
    add(
        "--hands",
        choices=[HANDS, "background"],
        help=f"DensePose: region that hands become (default: {HANDS})",
    )
    add(
        "--min-score",
        type=share,
        help="lowest score, of detections (densepose-dump, densepose-json; default: 0.5) or of "
        "people and points (keypoints; default: 0.3)",
    )
    outputs = parser.add_mutually_exclusive_group()
    outputs.add_argument("--keep-iuv", action="store_true", help="write label maps and IUV")
    outputs.add_argument("--iuv-only", action="store_true", help="write IUV, no label maps")
    add(
        "--overwrite",
        action="store_true",
        help="convert finished files again, and remove those of images without an annotation",
    )
    add("--workers", type=whole_number(1), help="number of processes (default: one per core)")
    args = parser.parse_args(arguments)
    if args.dataset is None and not (args.images and args.out):
        parser.error("expected -s DATASET, or both --images and --out")
    check_data_set(parser, args, args.dataset)
    check_source_options(parser, args)
    if args.hands is None:
        args.hands = HANDS
    if args.min_score is None:
        args.min_score = MIN_SCORES.get(args.source)
    return args


def check_source_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the script with status 2 if an option of --source is missing, or one of another given."""
    needed, optional = NEEDED[args.source], OPTIONAL[args.source]
    missing = [name for name in needed if getattr(args, name) is None]
    if missing:
        parser.error(f"--source {args.source} needs {flags(missing)}")
    known = dict.fromkeys(
        name for names in (*NEEDED.values(), *OPTIONAL.values()) for name in names
    )
    given = [name for name in known if getattr(args, name) is not None]
    unused = [name for name in given if name not in (*needed, *optional)]
    if unused:
        pronoun = "them" if len(unused) > 1 else "it"
        parser.error(f"{flags(unused)}: --source {args.source} does not use {pronoun}")
    if args.iuv_only and args.hands is not None:
        parser.error("--hands: has no effect with --iuv-only, which writes no label maps")


def flags(names: Sequence[str]) -> str:
    """The flags that set these attributes, such as "--json and --label-set"."""
    return " and ".join(f"--{name.replace('_', '-')}" for name in names)


if __name__ == "__main__":
    parse(None)  # --help and wrong arguments end here: the imports below take seconds

# isort: split
from magnifier_plugin.annotators.densepose import IuvFolder
from magnifier_plugin.annotators.densepose_dump import DumpFile
from magnifier_plugin.annotators.densepose_json import ResultsFile
from magnifier_plugin.annotators.keypoints import KeypointSource
from magnifier_plugin.annotators.npy import NpyFolder
from magnifier_plugin.annotators.parsing import ParsingFolder
from magnifier_plugin.annotators.source import Source
from magnifier_plugin.catalogue.layouts import require_dataset
from magnifier_plugin.catalogue.listed import find_name
from magnifier_plugin.catalogue.opening import open_lists, own_folder
from magnifier_plugin.files import absolute_path
from magnifier_plugin.masks.conversion import ConversionSummary, convert
from magnifier_plugin.masks.lists import inside, write_lists
from magnifier_plugin.masks.matching import dataset_folder
from magnifier_plugin.masks.paths import default_masks_dir
from magnifier_plugin.user_modules import import_user_module
from magnifier_plugin.wording import many, name_examples
from magnifier_plugin.workers import cores

# --source → the function that opens it.
SOURCES: Mapping[str, Callable[[argparse.Namespace], Source]] = {
    "densepose-iuv": lambda a: IuvFolder(a.iuv, a.hands),
    "densepose-dump": lambda a: DumpFile(a.dump, a.hands, a.min_score),
    "densepose-json": lambda a: ResultsFile(a.json, a.annotations, a.hands, a.min_score),
    "parsing": lambda a: ParsingFolder(a.parsing, a.label_set),
    "npy": lambda a: NpyFolder(a.npy),
    "keypoints": lambda a: KeypointSource(a.keypoints, a.annotations, a.min_score),
}
SHOWN = 20  # failures that are printed; the file has all
FULL = {errno.ENOSPC, errno.EDQUOT}


def main(arguments: list[str] | None = None) -> int:
    """Convert as the arguments say and print the summary; return the exit status."""
    escape_unencodable()
    args = parse(arguments)
    try:
        check_paths(args)
        source = SOURCES[args.source](args)
        dataset_dir, images = choose_images(args)
        start = time.perf_counter()
        summary = convert(
            source,
            args.images,
            args.out,
            dataset_dir=dataset_dir,
            images=images,
            keep_iuv=args.keep_iuv,
            iuv_only=args.iuv_only,
            overwrite=args.overwrite,
            workers=args.workers,
        )
        seconds = time.perf_counter() - start
        lists = write_lists(summary, args.out, dataset_dir, iuv_only=args.iuv_only)
    except (ValueError, OSError, RuntimeError, ModuleNotFoundError) as error:
        print(f"convert_masks.py: {error}", file=sys.stderr)
        if getattr(error, "errno", None) in FULL:
            print("The disk is full. Free some space and run the same command.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted. Finished files are kept; the same command continues.", file=sys.stderr)
        return 130
    show(args, dataset_dir, summary, lists)
    print(f"{summary.converted / seconds:,.0f} images/s, processes: {args.workers or cores()}")
    return 1 if summary.failures else 0


def check_paths(args: argparse.Namespace) -> None:
    """Raise a FileNotFoundError if a path of the annotations does not exist."""
    for name in (*NEEDED[args.source], *OPTIONAL[args.source]):
        value = getattr(args, name)
        if isinstance(value, Path) and not value.exists():
            raise FileNotFoundError(
                f"{flags([name])}: expected a file or folder of annotations, found none at {value}"
            )


def choose_images(args: argparse.Namespace) -> tuple[Path, list[Path] | None]:
    """The data set's own folder, and its images; None, all below --images, if -s is not given.

    Sets `args.images` and `args.out`, if they were not given, as -s implies.
    """
    for module in args.modules:
        import_user_module(module)
    if args.dataset is None:
        return dataset_folder(args.images, args.out.name), None
    name = find_name(args.dataset)
    require_dataset(name, args.root)  # nothing is rendered here
    dataset = open_lists(name, args.root, cuhk03_labeled=args.cuhk03_labeled)
    folder = own_folder(dataset)
    args.images, args.out = args.images or folder, args.out or default_masks_dir() / name
    records = [*dataset.train, *dataset.query, *dataset.gallery]
    paths = sorted({absolute_path(record[0]) for record in records})
    return folder, images_below(args.images, paths, folder)


def images_below(chosen: Path, images: Sequence[Path], folder: Path) -> list[Path]:
    """The data set's images that are below the chosen folder.

    Args:
        chosen: --images.
        images: absolute paths of all images of the data set.
        folder: the data set's own folder, for the message.
    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it contains none of the images.
    """
    found = [path for path in images if path.is_relative_to(chosen)]
    if found:
        return found
    where = f"the data set's {many(len(images), 'image')}, which are in {folder}"
    if not chosen.is_dir():
        raise FileNotFoundError(f"--images {chosen}: no such folder, expected one with {where}")
    raise ValueError(f"--images {chosen}: contains none of {where}; name that folder or one in it")


def show(
    args: argparse.Namespace,
    dataset_dir: Path,
    summary: ConversionSummary,
    lists: Mapping[str, Path],
) -> None:
    """Print the summary."""
    examples = name_examples(summary.unmatched) if summary.unmatched else ""
    counts = (
        (summary.converted, "converted"),
        (summary.already_there, "already there"),
        (len(summary.missing), f"images without an annotation ({lists['missing']})"),
        (len(summary.removed), "of these had files of an earlier run, now removed (--overwrite)"),
        (len(summary.unmatched), f"annotations that match none of these images{examples}"),
        (len(summary.ambiguous), f"with more than one likely person ({lists['ambiguous']})"),
        (len(summary.failures), f"failed ({lists['failed']})"),
    )
    written = "IUV" if args.iuv_only else "label maps and IUV" if args.keep_iuv else "label maps"
    print(f"{args.out}: {written} of {dataset_dir}")
    for number, what in counts:
        print(f"{number:>11,} {what}")
    folders = Counter(str(path.relative_to(dataset_dir).parent) for path in summary.missing)
    for folder, count in folders.most_common(5):
        print(f"{'':>11} {count:,} without an annotation in {folder}")
    if summary.areas:
        shares = ", ".join(f"{name} {share:.1%}" for name, share in summary.areas.items())
        print(f"Area: {shares}")
    for image in sorted(summary.failures)[:SHOWN]:
        print(f"{inside(image, dataset_dir)}: {summary.failures[image]}")
    if len(summary.failures) > SHOWN:
        print(f"… and {len(summary.failures) - SHOWN:,} more in {lists['failed']}")


if __name__ == "__main__":
    exit_with(main)
