"""The comparisons' command lines, in a module that imports quickly."""

import argparse

from arguments import whole_number

COUNT = whole_number(1)
MODELS = (
    *("magnifiernet", "dsa_reid", "resnet50"),
    *("magnifiernet_resnet18", "dsa_reid_resnet18"),
)


def add_evaluation(parser: argparse.ArgumentParser) -> None:
    """Add the options of `benchmark.py evaluation`."""
    add = parser.add_argument
    add(
        "--size",
        default="market",
        help="market, msmt17 or a number of images (default: %(default)s)",
    )
    add("--dim", type=COUNT, help="feature dimensions (default: 4096 for market, else 2048)")
    add("--spread", type=float, default=4.5, help="noise-to-signal ratio (default: %(default)s)")
    add("--seed", type=int, default=0, help="seed of the random features (default: %(default)s)")
    add("--device", default="cpu", help="device of this package (default: %(default)s)")
    add(
        "--memory",
        type=float,
        help="re-ranking's working memory, GiB (default: 1/64 on a CPU, 2 on a GPU)",
    )
    add("--only", action="store_true", help="measure only this package, not torchreid")
    add("--growth", metavar="FILE.png", help="re-rank 5 k to 94 k images and plot time and memory")


def add_loading(parser: argparse.ArgumentParser) -> None:
    """Add the options of `benchmark.py loading`."""
    add = parser.add_argument
    add(
        "--images",
        type=whole_number(1, 128),
        default=128,
        help="images per pass, at most 128 (default: %(default)s)",
    )
    add(
        "--passes",
        type=COUNT,
        default=5,
        help="passes, the fastest is reported (default: %(default)s)",
    )


def add_masks(parser: argparse.ArgumentParser) -> None:
    """Add the options of `benchmark.py masks`."""
    add = parser.add_argument
    add("--height", type=int, default=256, help="image height, pixels (default: %(default)s)")
    add("--width", type=int, default=128, help="image width, pixels (default: %(default)s)")
    add("--identities", type=int, default=64, help="people, 4 images each (default: %(default)s)")
    add("--seed", type=int, default=1, help="seed of the people (default: %(default)s)")
    add("--picture", metavar="FILE.png", help="draw exact maps above those from COCO's points")


def add_pooling(parser: argparse.ArgumentParser) -> None:
    """Add the options of `benchmark.py pooling`."""
    add = parser.add_argument
    add("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    add(
        "--repeats",
        type=COUNT,
        default=5,
        help="repeats, the fastest is reported (default: %(default)s)",
    )


def add_search(parser: argparse.ArgumentParser) -> None:
    """Add the options of `benchmark.py search`."""
    add = parser.add_argument
    add("--gallery", type=COUNT, default=100_000, help="gallery images (default: %(default)s)")
    add("--queries", type=COUNT, default=100, help="query images (default: %(default)s)")
    add("--dim", type=COUNT, default=4096, help="feature dimensions (default: %(default)s)")
    add("--topk", type=COUNT, default=20, help="neighbours per query (default: %(default)s)")
    add("--seed", type=int, default=0, help="seed of the random features (default: %(default)s)")
    add("--threads", type=COUNT, help="threads of both programs (default: each program's own)")
    add("--folder", help="folder for a temporary file of 1.5 GiB (default: the system's)")


def add_training(parser: argparse.ArgumentParser) -> None:
    """Add the options of `benchmark.py training`."""
    add = parser.add_argument
    add(
        "--models",
        nargs="*",
        default=["magnifiernet", "dsa_reid"],
        help="networks of this package to compare with ResNet-50 (default: magnifiernet dsa_reid)",
    )
    add(
        "--size",
        type=image_size,
        default=(384, 192),
        metavar="HxW",
        help="image size, pixels (default: 384x192)",
    )
    add(
        "--batch",
        type=COUNT,
        default=8,
        help="images per batch, a multiple of 4 (default: %(default)s)",
    )
    add(
        "--amp",
        nargs="+",
        default=["auto"],
        help="on, off, auto, bf16, fp16: a table for each (default: auto)",
    )
    add(
        "--channels-last",
        nargs="+",
        default=["auto"],
        help="on, off, auto: a table for each (default: auto)",
    )
    add("--compile", action="store_true", help="compile the networks with torch.compile")
    add(
        "--rounds",
        type=COUNT,
        default=10,
        help="rounds, the median is reported (default: %(default)s)",
    )
    add("--threads", type=COUNT, help="CPU threads (default: torch's)")
    add("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    add("--no-memory", action="store_true", help="do not measure peak memory; faster")


def add_models(parser: argparse.ArgumentParser) -> None:
    """Add the options of `benchmark.py models`."""
    add = parser.add_argument
    names = " ".join(MODELS)
    add("--models", nargs="+", default=list(MODELS), help=f"names in torchreid (default: {names})")
    add(
        "--sizes",
        nargs="+",
        type=image_size,
        default=[(256, 128), (384, 192)],
        metavar="HxW",
        help="image sizes, pixels (default: 256x128 384x192)",
    )
    add("--facts", action="store_true", help="count only, measure no speed")
    add("--batch", type=COUNT, default=8, help="images per batch (default: %(default)s)")
    add(
        "--gpu-batch",
        type=COUNT,
        default=64,
        help="the same on a GPU (default: %(default)s)",
    )
    add(
        "--rounds",
        type=COUNT,
        default=5,
        help="rounds, the fastest is reported (default: %(default)s)",
    )
    add("--threads", type=COUNT, help="CPU threads (default: one per core)")
    add(
        "--cpu-time",
        action="store_true",
        help="measure the CPU time of one thread instead of wall time, for a busy machine",
    )


def image_size(text: str) -> tuple[int, int]:
    """An argument type: height and width, such as 256x128."""
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH, such as 256x128, got {text!r}")
    return int(height), int(width)
