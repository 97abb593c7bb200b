"""Check a data set's label maps and IUV before training with them.

    python scripts/check_masks.py -s market1501 --root reid-data

The script counts label maps and IUV that are missing, unreadable, empty, of another size than the
image, or implausible (feet above the head, a tiny body, few regions). It prints the area of each
region, and writes one HTML page with the pictures, the worst first, into the data set's folder of
label maps. Exit status: 0 these files can be used for training, 1 they cannot, 2 the data set
cannot be opened.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from arguments import (
    add_data_set,
    check_data_set,
    escape_unencodable,
    exit_with,
    html_file,
    path,
    share,
    whole_number,
)

BODY_REGIONS = 7
PAGE = "check_masks.html"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line; argparse ends the script with status 2 if it is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add_data_set(parser)
    add(
        "--masks-dir",
        "--masks",
        type=path,
        help="folder of all label maps (default: $MAGNIFIER_MASKS, else mask_labels)",
    )
    add("--label-set", help="expected label set (default: $MAGNIFIER_LABEL_SET, else densepose)")
    add(
        "--out",
        type=html_file,
        metavar="FILE.html",
        help=f"page to write (default: {PAGE} in the data set's folder of label maps, or in the "
        "working directory if that folder is not writable)",
    )
    add(
        "--limit",
        type=whole_number(0),
        default=500,
        help="largest number of pictures on the page (default: %(default)s)",
    )
    add(
        "--min-regions",
        type=whole_number(1, BODY_REGIONS),
        default=3,
        help="report label maps with fewer regions (default: %(default)s)",
    )
    add(
        "--max-missing",
        type=share,
        default=0.3,
        help="largest share of images without a label map, 0..1 (default: %(default)s)",
    )
    add(
        "--textures",
        type=whole_number(0),
        default=0,
        metavar="N",
        help="also draw the part textures of N people (default: %(default)s)",
    )
    add("--workers", type=whole_number(1), help="number of processes (default: one per core)")
    args = parser.parse_args(arguments)
    check_data_set(parser, args, args.source)
    return args


if __name__ == "__main__":
    parse(None)  # --help and wrong arguments end here: the imports below take seconds

# isort: split
from magnifier_plugin.catalogue.layouts import require_dataset
from magnifier_plugin.catalogue.listed import find_name
from magnifier_plugin.catalogue.opening import open_dataset
from magnifier_plugin.data.checks import default_label_set
from magnifier_plugin.data.map_files import annotations_of
from magnifier_plugin.files import require_writable
from magnifier_plugin.images import write_png
from magnifier_plugin.masks.checking import (
    FAULTS,
    KINDS,
    Finding,
    check_labels,
    check_manifest,
    mean_shares,
)
from magnifier_plugin.masks.paths import label_path
from magnifier_plugin.user_modules import import_user_module
from magnifier_plugin.visualize.label_page import write_label_page
from magnifier_plugin.visualize.sheets import spread_evenly
from magnifier_plugin.visualize.textures import file_texture_sheet
from magnifier_plugin.wording import many

SHOWN = 20  # faulty images that are printed; the page has more


def main(arguments: list[str] | None = None) -> int:
    """Check label maps as the arguments say; return the exit status."""
    escape_unencodable()
    args = parse(arguments)
    try:
        for module in args.modules:
            import_user_module(module)
        args.label_set = args.label_set or default_label_set()
        folder, labels = find_labels(args)
        page = args.out or default_page(folder)
        require_writable(page)  # now, not after all files are checked
        findings = check_labels(labels, min_regions=args.min_regions, workers=args.workers)
        label_set, is_wrong = describe_label_set(folder, findings, args.label_set)
        write_label_page(
            page,
            findings,
            title=args.source,
            facts={"label set": label_set},
            limit=args.limit,
            workers=args.workers,
        )
        pages = [page, *draw_textures(findings, args.textures, page)]
    except (ValueError, OSError, RuntimeError, ModuleNotFoundError) as error:
        print(f"check_masks.py: {error}", file=sys.stderr)
        return 2
    show(args.source, findings, label_set)
    if args.textures and len(pages) == 1:
        print("No textures are drawn: no image with an IUV is free of faulty files.")
    trainable = can_be_trained_on(folder, findings, args.max_missing)
    print("\n".join(f"Page: {page}" for page in pages))
    return 0 if trainable and not is_wrong else 1


def find_labels(args: argparse.Namespace) -> tuple[Path, dict[str, Path]]:
    """The data set's folder of label maps, and training image → path of its label map."""
    name = find_name(args.source)
    require_dataset(name, args.root)  # nothing is rendered here
    dataset = open_dataset(name, args.root, cuhk03_labeled=args.cuhk03_labeled)
    there = annotations_of(dataset, name, args.masks_dir, args.max_missing, args.label_set)
    return there.masks_dir / there.folder, {
        image: label_path(image, there.dataset_dir, there.folder, there.masks_dir)
        for image, *_ in sorted(dataset.train)
    }


def default_page(folder: Path) -> Path:
    """The page's path: in a data set's folder of label maps, or in the working directory.

    The latter if there is no such folder, or it is not writable.

    Raises:
        PermissionError: neither folder is writable.
    """
    for place in (folder, Path.cwd()):
        if os.access(place, os.W_OK):
            return place / PAGE
    raise PermissionError(
        f"{PAGE}: neither {folder} nor {Path.cwd()} is writable; name another file with --out"
    )


def describe_label_set(
    folder: Path, findings: Sequence[Finding], expected: str
) -> tuple[str, bool]:
    """A description of the label set, and whether it is another than the expected one."""
    if not any(finding.label for finding in findings):
        return "no label maps", False
    try:
        manifest = check_manifest(folder, expected)
    except ValueError as error:
        return str(error), True
    if manifest is None:
        return "unknown: there is no labels.json that says how the label maps were made", False
    return f"{manifest.label_set}, from {manifest.source} (checksum {manifest.checksum})", False


def show(name: str, findings: Sequence[Finding], label_set: str) -> None:
    """Print the counts, the area of each region, and the faulty files."""
    counts = Counter(finding.kind for finding in findings)
    print(f"{name}: {many(len(findings), 'training image')}")
    print(f"Label set: {label_set}")
    for kind in KINDS:
        print(f"{counts[kind]:>11,} {kind}")
    with_iuv = sum(finding.iuv is not None for finding in findings)
    print(f"Images with IUV: {with_iuv:,}, without: {len(findings) - with_iuv:,}")
    shares = mean_shares(findings)
    if shares:
        print("Area: " + ", ".join(f"{region} {share:.1%}" for region, share in shares.items()))
    faulty = [finding for finding in findings if finding.kind in FAULTS]
    for finding in faulty[:SHOWN]:
        print(f"{finding.image}: {'; '.join(finding.reasons)}")
    if len(faulty) > SHOWN:
        print(f"… and {len(faulty) - SHOWN:,} more on the page")


def draw_textures(findings: Sequence[Finding], count: int, page: Path) -> list[Path]:
    """Draw photo, IUV and textures of people without faulty files, next to the page.

    Returns:
        The sheet's path in a list, which is empty if none was drawn.
    """
    files = [(f.image, f.iuv) for f in findings if f.iuv and f.kind not in FAULTS]
    if not count or not files:
        return []
    path = page.with_name(f"{page.stem}_textures.png")
    write_png(path, file_texture_sheet(spread_evenly(files, count)))
    return [path]


def can_be_trained_on(folder: Path, findings: Sequence[Finding], max_missing: float) -> bool:
    """Whether no file is faulty and few enough are missing; print the reason if too many are."""
    what, missing = "label map", sum(finding.label is None for finding in findings)
    without_iuv = sum(finding.iuv is None for finding in findings)
    if missing == len(findings) > without_iuv:
        print("There are no label maps, only IUV: enough for DSA-reID but not for MagnifierNet.")
        what, missing = "IUV", without_iuv
    if missing > max_missing * len(findings):
        print(
            f"More than {max_missing:.0%} of the images have no {what} in {folder}; run "
            "convert_masks.py, or correct --masks-dir."
        )
        return False
    return not any(finding.kind in FAULTS for finding in findings)


if __name__ == "__main__":
    exit_with(main)
