"""Checks a data set's label maps and IUV before they cost a training run.

    python scripts/check_masks.py -s market1501 --root reid-data

counts what is missing, unreadable, of another size, empty or odd (feet above the head, a tiny body,
fewer regions than usual), prints how much of each region there is, and writes one HTML page with
the pictures, the worst first, into the data set's folder of label maps. Exit status: 0 these files
can be trained on, 1 they cannot, 2 the data set cannot be opened.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from arguments import add_data_set, path, share, whole_number

BODY_REGIONS = 7
PAGE = "check_masks.html"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line; argparse itself ends with status 2 on a wrong one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add_data_set(parser)
    add(
        "--masks",
        type=path,
        help="folder of all label maps (default: $MAGNIFIER_MASKS, else mask_labels)",
    )
    add("--label-set", default="densepose", help="the expected one (default: %(default)s)")
    add(
        "--out",
        type=path,
        help=f"the page (default: {PAGE} in the data set's folder of label maps, or in the working "
        "directory if that folder cannot be written to)",
    )
    add(
        "--limit",
        type=whole_number(0),
        default=500,
        help="pictures on the page (default: %(default)s)",
    )
    add(
        "--min-regions",
        type=whole_number(1, BODY_REGIONS),
        default=3,
        help="fewer are a finding (default: %(default)s)",
    )
    add("--max-missing", type=share, default=0.3, help="share, 0..1 (default: %(default)s)")
    add(
        "--textures",
        type=whole_number(0),
        default=0,
        metavar="N",
        help="draw the part images of N people",
    )
    add("--workers", type=whole_number(1), help="processes (default: one for each core)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    parse(None)  # --help and wrong arguments end here: the imports below take seconds

# isort: split
from magnifier_plugin.catalogue.layouts import require_dataset
from magnifier_plugin.catalogue.listed import find_name
from magnifier_plugin.catalogue.opening import open_dataset, own_folder
from magnifier_plugin.files import write_png
from magnifier_plugin.masks.checking import (
    FAULTS,
    KINDS,
    Finding,
    check_labels,
    check_manifest,
    mean_shares,
)
from magnifier_plugin.masks.paths import default_masks_dir, label_path
from magnifier_plugin.user_modules import import_user_module
from magnifier_plugin.visualize.label_page import write_label_page
from magnifier_plugin.visualize.textures import file_texture_sheet, spread_evenly
from magnifier_plugin.wording import many

# Faults that are printed one by one; the page has more.
SHOWN = 20


def main(arguments: list[str] | None = None) -> int:
    """Checks as the arguments say; returns the exit status."""
    args = parse(arguments)
    try:
        for module in args.modules:
            import_user_module(module)
        folder, labels = find_labels(args)
        page = args.out or default_page(folder)
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
    trainable = can_be_trained_on(findings, args.max_missing)
    print("\n".join(f"Page: {page}" for page in pages))
    return 0 if trainable and not is_wrong else 1


def find_labels(args: argparse.Namespace) -> tuple[Path, dict[str, Path]]:
    """The data set's folder of label maps, and each training image → the place of its label map."""
    name = find_name(args.source)
    require_dataset(name, args.root)  # nothing is rendered here
    dataset = open_dataset(name, args.root, cuhk03_labeled=args.cuhk03_labeled)
    # The rendered pedestrians bring label maps of their own.
    masks_dir = getattr(dataset, "masks_dir", None) or args.masks or default_masks_dir()
    name = getattr(dataset, "label_folder", name)
    folder = own_folder(dataset)
    labels = {
        image: label_path(image, folder, name, masks_dir) for image, *_ in sorted(dataset.train)
    }
    return masks_dir / name, labels


def default_page(folder: Path) -> Path:
    """The page in a data set's folder of label maps, or in the working directory.

    The latter where there is no such folder, or it cannot be written to.

    Raises:
        PermissionError: neither can be written to.
    """
    for place in (folder, Path.cwd()):
        if os.access(place, os.W_OK):
            return place / PAGE
    raise PermissionError(
        f"{PAGE}: neither {folder} nor {Path.cwd()} can be written to; name another file by --out"
    )


def describe_label_set(
    folder: Path, findings: Sequence[Finding], expected: str
) -> tuple[str, bool]:
    """The label set in words, and whether it is not the expected one."""
    if not any(finding.label for finding in findings):
        return "no label maps", False
    try:
        manifest = check_manifest(folder, expected)
    except ValueError as error:
        return str(error), True
    if manifest is None:
        return "unknown, no labels.json says how the label maps were made", False
    return f"{manifest.label_set}, from {manifest.source} (checksum {manifest.checksum})", False


def show(name: str, findings: Sequence[Finding], label_set: str) -> None:
    """Prints the counts, the shares of the regions, and what cannot be trained on."""
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
    """A sheet of photo, IUV and textures of people whose files are whole, next to the page."""
    files = [(f.image, f.iuv) for f in findings if f.iuv and f.kind not in FAULTS]
    if not count or not files:
        return []
    path = page.with_name(f"{page.stem}_textures.png")
    write_png(path, file_texture_sheet(spread_evenly(files, count)))
    return [path]


def can_be_trained_on(findings: Sequence[Finding], max_missing: float) -> bool:
    """Whether no file is faulty and enough of them are there; prints why not."""
    what, missing = "label map", sum(finding.label is None for finding in findings)
    without_iuv = sum(finding.iuv is None for finding in findings)
    if missing == len(findings) > without_iuv:
        print("There are no label maps, only IUV: enough for DSA-reID, not for MagnifierNet.")
        what, missing = "IUV", without_iuv
    if missing > max_missing * len(findings):
        print(f"More than {max_missing:.0%} have no {what}: convert_masks.py makes them.")
        return False
    return not any(finding.kind in FAULTS for finding in findings)


if __name__ == "__main__":
    sys.exit(main())
