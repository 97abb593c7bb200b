"""The command lines of the comparisons; nothing that takes long to import is needed for them."""

import argparse

from arguments import whole_number

MODELS = (
    *("magnifiernet", "dsa_reid", "resnet50"),
    *("magnifiernet_resnet18", "dsa_reid_resnet18"),
)


def add_evaluation(parser: argparse.ArgumentParser) -> None:
    """The options of `benchmark.py evaluation`."""
    add = parser.add_argument
    add("--size", default="market", help="market, msmt17, or N images (default: %(default)s)")
    add("--dim", type=int, help="dimensions (default: 4096, for msmt17 and N images 2048)")
    add("--spread", type=float, default=4.5, help="noise to signal (default: %(default)s)")
    add("--seed", type=int, default=0, help="of the features (default: %(default)s)")
    add("--device", default="cpu", help="for this package (default: %(default)s)")
    add("--memory", type=float, help="GiB that re-ranking works in (default: 1/64, on a GPU 2)")
    add("--only", action="store_true", help="measure this package only, not torchreid")
    add("--growth", metavar="FILE.png", help="re-rank 5 k to 94 k images and draw the cost")


def add_loading(parser: argparse.ArgumentParser) -> None:
    """The options of `benchmark.py loading`."""
    parser.add_argument("--images", type=int, default=128, help="images in a pass, at most 128")
    parser.add_argument("--passes", type=int, default=5, help="the quickest counts")


def add_masks(parser: argparse.ArgumentParser) -> None:
    """The options of `benchmark.py masks`."""
    add = parser.add_argument
    add("--height", type=int, default=256, help="of an image, pixels (default: %(default)s)")
    add("--width", type=int, default=128, help="of an image, pixels (default: %(default)s)")
    add("--identities", type=int, default=64, help="one image in each of 4 cameras")
    add("--seed", type=int, default=1, help="of the people")
    add("--picture", metavar="FILE.png", help="draw exact maps, and those from COCO's points below")


def add_pooling(parser: argparse.ArgumentParser) -> None:
    """The options of `benchmark.py pooling`."""
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5, help="the quickest counts")


def add_search(parser: argparse.ArgumentParser) -> None:
    """The options of `benchmark.py search`."""
    add = parser.add_argument
    add("--gallery", type=int, default=100_000, help="images (default: %(default)s)")
    add("--queries", type=int, default=100, help="images (default: %(default)s)")
    add("--dim", type=int, default=4096, help="dimensions (default: %(default)s)")
    add("--topk", type=int, default=20, help="neighbours of a query (default: %(default)s)")
    add("--seed", type=int, default=0, help="of the features (default: %(default)s)")
    add("--threads", type=int, help="of both sides (default: as they choose)")
    add("--folder", help="for the file, 1.5 GiB by default (default: the system's)")


def add_training(parser: argparse.ArgumentParser) -> None:
    """The options of `benchmark.py training`."""
    add = parser.add_argument
    add("--models", nargs="*", default=["magnifiernet", "dsa_reid"], help="besides resnet50")
    add(
        "--size",
        type=image_size,
        default=(384, 192),
        metavar="HxW",
        help="pixels (default: 384x192)",
    )
    add("--batch", type=whole_number(1), default=8, help="images, a multiple of 4 (%(default)s)")
    add("--amp", nargs="+", default=["auto"], help="on, off, auto, bf16, fp16: a table for each")
    add("--channels-last", nargs="+", default=["auto"], help="on, off, auto: a table for each")
    add("--compile", action="store_true", help="by torch.compile")
    add("--rounds", type=whole_number(1), default=10, help="the median counts (%(default)s)")
    add("--threads", type=whole_number(1), help="of the CPU (default: as torch chooses)")
    add("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    add("--no-memory", action="store_true", help="leave out peak memory, which takes longer")


def add_models(parser: argparse.ArgumentParser) -> None:
    """The options of `benchmark.py models`."""
    add = parser.add_argument
    add("--models", nargs="+", default=list(MODELS), help="names of torchreid (%(default)s)")
    add(
        "--sizes",
        nargs="+",
        type=image_size,
        default=[(256, 128), (384, 192)],
        metavar="HxW",
        help="pixels (default: 256x128 384x192)",
    )
    add("--facts", action="store_true", help="count only, measure no speed")
    add("--batch", type=whole_number(1), default=8, help="images (default: %(default)s)")
    add("--gpu-batch", type=whole_number(1), default=64, help="on a GPU (default: %(default)s)")
    add("--rounds", type=whole_number(1), default=5, help="the quickest counts (%(default)s)")
    add("--threads", type=whole_number(1), help="of the CPU (default: one for each core)")
    add(
        "--cpu-time",
        action="store_true",
        help="one thread, and its CPU time instead of the clock's: for a machine that is busy",
    )


def image_size(text: str) -> tuple[int, int]:
    """Height and width, such as 256x128."""
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH, such as 256x128, got {text!r}")
    return int(height), int(width)
