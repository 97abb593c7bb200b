"""Looks at a data set's label maps before they cost a training run.

    python scripts/check_masks.py -s market1501 --root reid-data

counts what is missing, unreadable, of another size, empty or odd (feet above the head, hardly any
body, fewer regions than usual), says how much of each region there is, and writes one HTML page
with the pictures, the worst first. Exit status: 0 these label maps can be trained on, 1 they
cannot, 2 there is nothing to look at.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence

from magnifier_plugin.catalogue.names import dataset_class, plain_name
from magnifier_plugin.data.annotated import MaskedDataset, masked
from magnifier_plugin.files import absolute_path
from magnifier_plugin.masks.checking import (
    KINDS,
    WRONG,
    Finding,
    check_labels,
    check_manifest,
    manifest_folder,
    mean_shares,
)
from magnifier_plugin.visualize.label_page import write_label_page

# More of these are not named on the screen; the page has them.
SHOWN = 20


def main(arguments: list[str] | None = None) -> int:
    """Checks as the arguments say; returns the exit status."""
    args = parse(arguments)
    try:
        dataset = open_dataset(args)
        findings = check_labels(dataset.labels, min_regions=args.min_regions, workers=args.workers)
        label_set, wrong = told_label_set(dataset, args.label_set)
        write_label_page(
            args.out,
            findings,
            title=args.source,
            facts={"label set": label_set},
            limit=args.limit,
            workers=args.workers,
        )
    except (ValueError, OSError, RuntimeError) as error:
        print(f"check_masks.py: {error}", file=sys.stderr)
        return 2
    show(args.source, findings, label_set)
    wrong |= not trainable(findings, args.max_missing)
    print(f"Page: {args.out}")
    return int(wrong)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line; argparse itself ends with status 2 on a wrong one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("-s", "--source", required=True, help="the data set's name in torchreid")
    add(
        "--root",
        type=absolute_path,
        default="reid-data",
        help="folder of all data sets (default: %(default)s)",
    )
    add(
        "--masks",
        type=absolute_path,
        help="folder of all label maps (default: $MAGNIFIER_MASKS, else mask_labels)",
    )
    add("--label-set", default="densepose", help="the expected one (default: %(default)s)")
    add("--out", type=absolute_path, default="check_masks.html", help="the page (%(default)s)")
    add("--limit", type=int, default=500, help="pictures on the page (default: %(default)s)")
    add("--min-regions", type=int, default=3, help="fewer are told (default: %(default)s)")
    add("--max-missing", type=float, default=0.3, help="share, 0..1 (default: %(default)s)")
    add("--cuhk03-labeled", action="store_true", help="cuhk03: the labelled images")
    add("--workers", type=int, help="processes (default: one for each core)")
    return parser.parse_args(arguments)


def open_dataset(args: argparse.Namespace) -> MaskedDataset:
    """The data set's training images and where their label maps are; nothing is downloaded."""
    cls = masked(dataset_class(args.source), plain_name(args.source))
    options = {"cuhk03_labeled": True} if args.cuhk03_labeled else {}
    return cls(
        root=str(args.root),
        masks_dir=args.masks,
        max_missing=1.0,
        mode="train",
        verbose=False,
        **options,
    )


def told_label_set(dataset: MaskedDataset, expected: str) -> tuple[str, bool]:
    """The label set in words, and whether it is not the expected one."""
    folder = manifest_folder(dataset.labels.values())
    try:
        stamp = check_manifest(folder, expected) if folder else None
    except ValueError as error:
        return str(error), True
    if stamp is None:
        return "unknown, no labels.json says how the label maps were made", False
    return f"{stamp.label_set}, from {stamp.source} (checksum {stamp.checksum})", False


def show(name: str, findings: Sequence[Finding], label_set: str) -> None:
    """Prints the counts, the shares of the regions and what is wrong."""
    counts = Counter(finding.kind for finding in findings)
    print(f"{name}: {len(findings):,} training images")
    print(f"Label set: {label_set}")
    for kind in KINDS:
        print(f"{counts[kind]:>11,} {kind}")
    shares = mean_shares(findings)
    if shares:
        print("Area: " + ", ".join(f"{region} {share:.1%}" for region, share in shares.items()))
    wrong = [finding for finding in findings if finding.kind in WRONG]
    for finding in wrong[:SHOWN]:
        print(f"{finding.label}: {finding.reasons[0]}")
    if len(wrong) > SHOWN:
        print(f"… and {len(wrong) - SHOWN:,} more on the page")


def trainable(findings: Sequence[Finding], max_missing: float) -> bool:
    """Whether all label maps can be read and enough of them are there."""
    missing = sum(finding.kind == "missing" for finding in findings)
    if missing > max_missing * len(findings):
        print(f"More than {max_missing:.0%} have no label map: convert_masks.py makes them.")
        return False
    return not any(finding.kind in WRONG for finding in findings)


if __name__ == "__main__":
    sys.exit(main())
