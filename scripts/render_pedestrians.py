"""Render the synthetic pedestrians into a Market-1501 folder, and draw sheets of them.

    python scripts/render_pedestrians.py --root reid-data
    python scripts/render_pedestrians.py --root reid-data --contact-sheet pedestrians.png
    python scripts/render_pedestrians.py --root reid-data --textures textures.png --rows 2

A second call reuses the images of the first.
"""

import argparse
import sys
import time
from dataclasses import fields
from pathlib import Path

from arguments import escape_unencodable, exit_with, path, png_file, whole_number

# SyntheticOptions' fields: default and explanation.
OPTIONS: dict[str, tuple[int | float | str | None, str]] = {
    "identities": (64, "people, for training and testing together"),
    "train_identities": (None, "people for training (default: half)"),
    "cameras": (4, "cameras, 2..6"),
    "images": (4, "images of each person from each camera"),
    "twins": (0.5, "share of people who have a near-twin, 0..1"),
    "twin_details": ("any", "how twins differ, any or regions (a band around one body region)"),
    "occlusion": (0.3, "share of images in which the person is partly occluded, 0..1"),
    "height": (256, "image height, pixels"),
    "width": (128, "image width, pixels"),
    "seed": (0, "random seed"),
}


def parse_arguments() -> argparse.Namespace:
    """Parse --root, a flag for each field of SyntheticOptions, and the flags of the sheets."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--root", type=path, required=True, help="torchreid's folder of data sets")
    for name, (default, text) in OPTIONS.items():
        kind = int if default is None else type(default)
        shown = text if default is None else f"{text} (default: {default})"
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help=shown)
    parser.add_argument(
        "--workers", type=whole_number(1), help="number of processes (default: one per core)"
    )
    parser.add_argument(
        "--contact-sheet",
        type=png_file,
        metavar="FILE.png",
        help="write a sheet of people × cameras",
    )
    parser.add_argument(
        "--textures",
        type=png_file,
        metavar="FILE.png",
        help="write a sheet of photos, IUV and the textures of the 24 parts",
    )
    parser.add_argument(
        "--rows", type=whole_number(1), default=6, help="people per sheet (default: %(default)s)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    parse_arguments()  # --help and wrong arguments end here: the imports below take seconds

# isort: split
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from magnifier_plugin.annotators.densepose import read_iuv
from magnifier_plugin.files import require_writable
from magnifier_plugin.images import read_image, write_png
from magnifier_plugin.synthetic.folder import DENSEPOSE, MARKET, NAME, PARAMETERS, ensure_rendered
from magnifier_plugin.synthetic.options import SyntheticOptions
from magnifier_plugin.text_files import read_json
from magnifier_plugin.visualize.textures import PART_COLOURS, file_texture_sheet
from magnifier_plugin.wording import one_line
from magnifier_plugin.workers import cores

_PAPER, _INK = (250, 250, 248), (30, 30, 34)
_LABEL_WIDTH, _HEADER, _GAP = 118, 30, 6


def chosen_options(arguments: argparse.Namespace) -> SyntheticOptions | None:
    """The options given on the command line; None if there are none."""
    given = {o.name: getattr(arguments, o.name) for o in fields(SyntheticOptions)}
    given = {name: value for name, value in given.items() if value is not None}
    return SyntheticOptions(**given) if given else None


def paint_iuv(file: Path) -> Image.Image:
    """An IUV as a picture: parts by colour, U and V as shading."""
    part, u, v = np.moveaxis(read_iuv(file), -1, 0)
    shade = 0.6 + 0.4 * (0.5 * u + 0.5 * v) / 255
    picture = PART_COLOURS[part] * shade[..., None]
    picture[part == 0] = 236
    return Image.fromarray(picture.astype(np.uint8))


def choose_people(identities: list[dict], rows: int) -> list[dict]:
    """Twin pairs first, at most half of the rows, then people without a twin."""
    pairs = [person for person in identities if person["twin"]]
    rows = min(rows, len(identities))
    first = pairs[: max(2, rows // 2 // 2 * 2)][:rows]
    singles = [person for person in identities if not person["twin"]]
    rest = singles + [person for person in pairs if person not in first]
    return first + rest[: rows - len(first)]


def describe(person: dict) -> str:
    """A row's label: the identity, and the detail in which it differs from its near-twin."""
    worn = person["wardrobe"]
    lines = [
        f"identity {person['pid']}",
        f"{worn['top_colour']} {worn['top']},",
        f"{worn['bottom_colour']} {worn['bottom']}",
    ]
    if person["twin"]:
        detail = person["detail"]
        lines += [
            "",
            f"near-twin of {person['twin']},",
            f"but {_describe_detail(worn, detail)}:",
            worn[detail],
        ]
    return "\n".join(lines)


def _describe_detail(worn: dict, detail: str) -> str:
    return f"{worn['band']} band" if detail == "band_colour" else detail.replace("_", " ")


def contact_sheet(folder: Path, rows: int) -> Image.Image:
    """Draw identities × cameras, each photo with its IUV to the right."""
    parameters = read_json(folder / PARAMETERS)
    people = choose_people(parameters["identities"], rows)
    height, width = parameters["options"]["height"], parameters["options"]["width"]
    cell = 2 * width + _GAP
    sheet = Image.new(
        "RGB",
        (
            _LABEL_WIDTH + (cell + _GAP) * len(parameters["cameras"]),
            _HEADER + (height + _GAP) * len(people),
        ),
        _PAPER,
    )
    pen = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(15), ImageFont.load_default(12)
    first_of: dict[tuple[int, int], dict] = {}
    for shot in parameters["shots"]:
        first_of.setdefault((shot["pid"], shot["camera"]), shot)
    for column, camera in enumerate(parameters["cameras"]):
        x = _LABEL_WIDTH + column * (cell + _GAP)
        pen.text((x, 8), f"camera {camera['index']}", _INK, large)
        for row, person in enumerate(people):
            y = _HEADER + row * (height + _GAP)
            shot = first_of[person["pid"], camera["index"]]
            stem = shot["name"].partition(".")[0]
            sheet.paste(read_image(folder / MARKET / shot["folder"] / shot["name"]), (x, y))
            sheet.paste(paint_iuv(folder / DENSEPOSE / f"{stem}_IUV.png"), (x + width, y))
            if column == 0:
                pen.multiline_text((8, y + 8), describe(person), _INK, small, spacing=3)
    return sheet


def texture_sheet(folder: Path, rows: int) -> Image.Image:
    """Draw photo, IUV and textures of the first image of each chosen identity."""
    parameters = read_json(folder / PARAMETERS)
    first: dict[int, dict] = {}
    for shot in parameters["shots"]:
        first.setdefault(shot["pid"], shot)
    shots = [first[person["pid"]] for person in choose_people(parameters["identities"], rows)]
    stems = [shot["name"].partition(".")[0] for shot in shots]
    photos = [folder / MARKET / shot["folder"] / shot["name"] for shot in shots]
    iuvs = [folder / DENSEPOSE / f"{stem}_IUV.png" for stem in stems]
    return file_texture_sheet(list(zip(photos, iuvs, strict=True)))


def main() -> int:
    """Render or reuse the images; return the exit status."""
    escape_unencodable()
    arguments = parse_arguments()
    try:
        render(arguments)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"render_pedestrians.py: {error}", file=sys.stderr)
        return 2
    return 0


def render(arguments: argparse.Namespace) -> None:
    """Render the images and write the sheets, as the arguments say."""
    for sheet in filter(None, (arguments.contact_sheet, arguments.textures)):
        require_writable(sheet)  # now, not after the rendering
    options = chosen_options(arguments)
    before = (arguments.root / NAME / PARAMETERS).exists()
    started = time.perf_counter()
    folder = ensure_rendered(arguments.root, options, arguments.workers)
    seconds = time.perf_counter() - started
    try:
        show(arguments, folder, None if before else seconds)
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{folder / PARAMETERS}: expected the parameters of a rendered data set, found other "
            f"content ({type(error).__name__}: {one_line(error)}); remove {folder} to render it "
            "again"
        ) from error


def show(arguments: argparse.Namespace, folder: Path, seconds: float | None) -> None:
    """Print what is in the folder, and write the sheets.

    Args:
        arguments: the command line's arguments.
        folder: the rendered data set.
        seconds: how long rendering took; None if it was rendered before.
    """
    images = len(read_json(folder / PARAMETERS)["shots"])
    if seconds is None:
        print(f"{folder}: {images} images, already rendered")
    else:
        workers = min(arguments.workers or cores(), images)
        rate = images / seconds / workers
        print(f"{folder}: {images} images in {seconds:.1f} s, {rate:.0f} images/s/core")
    if arguments.contact_sheet:
        write_png(arguments.contact_sheet, contact_sheet(folder, arguments.rows))
        print(f"{arguments.contact_sheet}: contact sheet")
    if arguments.textures:
        write_png(arguments.textures, texture_sheet(folder, arguments.rows))
        print(f"{arguments.textures}: textures")


if __name__ == "__main__":
    exit_with(main)
