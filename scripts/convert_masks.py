"""Turns what DensePose or a human parser wrote into the label maps that MagnifierNet learns from.

    convert_masks.py --source densepose-iuv  --iuv DIR
    convert_masks.py --source densepose-dump --dump FILE
    convert_masks.py --source densepose-json --json FILE --annotations FILE
    convert_masks.py --source parsing        --parsing DIR --labels lip|cihp|atr|pascal|FILE.yaml
    convert_masks.py --source npy            --npy DIR

each with `--images reid-data/market1501 --out mask_labels/market1501`: the data set's own folder
or a folder within it, and a folder with the data set's name in torchreid. Finished label maps are
kept: interrupted, it is simply started again. Exit status: 0 all annotations were read, 1 some
could not, 2 nothing could be done.
"""

import argparse
import errno
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from magnifier_plugin.annotators.densepose import IuvFolder
from magnifier_plugin.annotators.densepose_dump import DumpFile
from magnifier_plugin.annotators.densepose_json import ResultsFile
from magnifier_plugin.annotators.detections import MIN_SCORE
from magnifier_plugin.annotators.npy import NpyFolder
from magnifier_plugin.annotators.parsing import ParsingFolder
from magnifier_plugin.annotators.source import Source
from magnifier_plugin.files import absolute_path, write_atomically
from magnifier_plugin.masks.conversion import Summary, convert
from magnifier_plugin.masks.matching import dataset_folder
from magnifier_plugin.workers import cores

# --source → the options it needs, and what opens it.
SOURCES: Mapping[str, tuple[tuple[str, ...], Callable[[argparse.Namespace], Source]]] = {
    "densepose-iuv": (("iuv",), lambda a: IuvFolder(a.iuv, a.hands)),
    "densepose-dump": (("dump",), lambda a: DumpFile(a.dump, a.hands, a.min_score)),
    "densepose-json": (
        ("json", "annotations"),
        lambda a: ResultsFile(a.json, a.annotations, a.hands, a.min_score),
    ),
    "parsing": (("parsing", "labels"), lambda a: ParsingFolder(a.parsing, a.labels)),
    "npy": (("npy",), lambda a: NpyFolder(a.npy)),
}
# More of a kind than these are counted on the screen; a file has them all.
SHOWN = 20
FULL = {errno.ENOSPC, errno.EDQUOT}


def main(arguments: list[str] | None = None) -> int:
    """Converts as the arguments say and prints the summary; returns the exit status."""
    args = parse(arguments)
    try:
        source = SOURCES[args.source][1](args)
        start = time.perf_counter()
        summary = convert(
            source,
            args.images,
            args.out,
            keep_iuv=args.keep_iuv,
            overwrite=args.overwrite,
            workers=args.workers,
        )
        seconds = time.perf_counter() - start
        write_lists(args.out, args.images, summary)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"convert_masks.py: {error}", file=sys.stderr)
        if getattr(error, "errno", None) in FULL:
            print("The disk is full. Make room and start it again.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted. Started again it goes on where it was.", file=sys.stderr)
        return 130
    show(args.out, args.images, summary)
    print(f"{summary.converted / seconds:,.0f} images/s with {args.workers or cores()} processes")
    return 1 if summary.failures else 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line; argparse itself ends with status 2 on a wrong one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--source", required=True, choices=SOURCES)
    add("--iuv", type=absolute_path, help="densepose-iuv: folder of NAME_IUV.png")
    add(
        "--dump", type=absolute_path, help="densepose-dump: what `apply_net.py dump --output` wrote"
    )
    add("--json", type=absolute_path, help="densepose-json: COCO DensePose results")
    add(
        "--annotations",
        type=absolute_path,
        help="densepose-json: COCO annotations of the same images",
    )
    add("--parsing", type=absolute_path, help="parsing: folder of palette PNGs")
    add("--labels", help="parsing: lip, cihp, atr, pascal, or a YAML file of your own")
    add("--npy", type=absolute_path, help="npy: folder of MagnifierNet's authors' NAME.npy")
    add(
        "--images",
        required=True,
        type=absolute_path,
        help="the data set's folder, or one within it",
    )
    add(
        "--out",
        required=True,
        type=absolute_path,
        help="mask_labels/<data set's name in torchreid>",
    )
    add(
        "--hands",
        default="lower arm",
        choices=["lower arm", "background"],
        help="DensePose: the region that hands count as (default: %(default)s)",
    )
    add(
        "--min-score",
        type=float,
        default=MIN_SCORE,
        help="dump, json: leave out detections below (default: %(default)s)",
    )
    add("--keep-iuv", action="store_true", help="DensePose: keep the IUV too, for DSA-reID")
    add("--overwrite", action="store_true", help="do finished label maps again")
    add("--workers", type=int, help="processes (default: one for each core)")
    args = parser.parse_args(arguments)
    missing = [name for name in SOURCES[args.source][0] if getattr(args, name) is None]
    if missing:
        parser.error(f"--source {args.source} needs --{' and --'.join(missing)}")
    return args


def write_lists(out: Path, images: Path, summary: Summary) -> None:
    """Writes `missing.txt`, `failed.txt` and `ambiguous.txt` into the folder of label maps."""
    write_lines(out / "missing.txt", (str(inside(path, images)) for path in summary.missing))
    for name, reasons in (("failed", summary.failures), ("ambiguous", summary.doubts)):
        path = out / f"{name}.txt"
        told = {str(inside(image, images)): why for image, why in reasons.items()}
        if name == "ambiguous" and path.exists():
            # An earlier run's: its label maps are not looked at again.
            earlier = path.read_text(encoding="utf-8").splitlines()
            told = dict(line.split("\t", 1) for line in earlier) | told
        write_lines(path, (f"{image}\t{' '.join(told[image].split())}" for image in sorted(told)))


def write_lines(path: Path, lines: Iterable[str]) -> None:
    with write_atomically(path) as part:
        part.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def inside(image: Path, images: Path) -> Path:
    """An image's path as seen from the folder given on the command line."""
    return image.relative_to(images)


def show(out: Path, images: Path, summary: Summary) -> None:
    """Prints the summary."""
    counts = (
        (summary.converted, "converted"),
        (summary.already_there, "already there"),
        (len(summary.missing), f"images without an annotation ({out / 'missing.txt'})"),
        (len(summary.strays), "annotations without an image"),
        (len(summary.doubts), f"with more than one likely person ({out / 'ambiguous.txt'})"),
        (len(summary.failures), f"failed ({out / 'failed.txt'})"),
    )
    print(f"{out}: label maps of {dataset_folder(images, out.name)}")
    for number, what in counts:
        print(f"{number:>11,} {what}")
    folders = Counter(str(inside(path, images).parent) for path in summary.missing)
    for folder, count in folders.most_common(5):
        print(f"{'':>11} {count:,} without an annotation in {folder}")
    if summary.areas:
        shares = ", ".join(f"{name} {share:.1%}" for name, share in summary.areas.items())
        print(f"Area: {shares}")
    for image in sorted(summary.failures)[:SHOWN]:
        print(f"{inside(image, images)}: {summary.failures[image]}")
    if len(summary.failures) > SHOWN:
        print(f"… and {len(summary.failures) - SHOWN:,} more in {out / 'failed.txt'}")


if __name__ == "__main__":
    sys.exit(main())
