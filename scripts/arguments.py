"""What the scripts' command lines share: types of arguments, KEY VALUE pairs, networks, output.

A wrong value ends with argparse's message and status 2.

Nothing of the package is imported: a script parses its arguments before it imports the package,
which takes seconds.
"""

import argparse
import contextlib
import ctypes
import io
import os
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

WORDS = ("use_gpu", "amp", "channels_last")  # keys of the configuration that have no dot


def let_idle_threads_sleep() -> None:
    """Set how OpenMP's threads wait for each other, unless the user has; call it before torch.

    They spin for some microseconds, until the next of a network's small operations begins, and
    then sleep, so that readers of images and other programs get the cores.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # GNU's; it goes before the policy


def keep_freed_memory() -> None:
    """Have glibc keep freed memory for the next step, unless the environment sets its MALLOC_….

    A training step frees the blocks that the next one asks for; returned to the system, they would
    be cleared page by page each time. With another library nothing changes.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: no block of its own from the system
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: nothing goes back


def path(text: str) -> Path:
    """An absolute path, as `magnifier_plugin.files.absolute_path` makes it."""
    return Path(os.path.abspath(os.path.expanduser(text)))  # noqa: PTH100, PTH111


def add_data_set(
    parser: argparse.ArgumentParser, name: str = "--source", *, required: bool = True
) -> None:
    """Add the arguments that name one data set: -s, --root, --cuhk03-labeled, --import.

    Args:
        parser: to add them to.
        name: the long form of -s.
        required: whether -s has to be given.
    """
    parser.add_argument(
        "-s",
        name,
        required=required,
        help="the data set's name in torchreid, or NAME=PATH: a CSV or a folder of your own",
    )
    parser.add_argument(
        "--root",
        type=path,
        default="reid-data",
        help="folder of all data sets (default: %(default)s)",
    )
    parser.add_argument("--cuhk03-labeled", action="store_true", help="cuhk03: the labelled images")
    add_import(parser)


def add_import(parser: argparse.ArgumentParser) -> None:
    """Add --import MODULE."""
    parser.add_argument(
        "--import",
        dest="modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="a Python module of yours that registers data sets in torchreid; may be repeated",
    )


def share(text: str) -> float:
    """A number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text!r}")
    return value


def whole_number(low: int, high: int | None = None) -> Callable[[str], int]:
    """The type of a whole number from `low` on, up to `high` unless that is None."""
    expected = f"at least {low}" if high is None else f"{low}..{high}"

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < low or (high is not None and value > high):
            raise argparse.ArgumentTypeError(f"expected a whole number, {expected}, got {text!r}")
        return value

    return parse


def add_network(parser: argparse.ArgumentParser) -> None:
    """The arguments that say which network to load, for a command line that ends in KEY VALUE."""
    add = parser.add_argument
    add("--weights", type=path, required=True, metavar="FILE", help="a checkpoint")
    add(
        "--config-file",
        type=path,
        metavar="FILE",
        help="YAML whose values replace those that the checkpoint records",
    )
    add("-a", "--arch", metavar="NAME", help="model, for a checkpoint of torchreid's")
    add("--flip", action="store_true", help="average an image's and its mirror image's features")
    add("--batch-size", type=whole_number(1), metavar="N", help="images (default: 100)")
    add("--workers", type=whole_number(0), metavar="N", help="processes that read (default: 4)")
    add("pairs", nargs="*", metavar="KEY VALUE", help="override the configuration")


def network_flags(args: argparse.Namespace) -> dict[str, Any]:
    """The configuration's values, by key, of the flags of `add_network`."""
    given = {
        "model.name": args.arch,
        "test.flip": args.flip or None,
        "test.batch_size": args.batch_size,
        "data.workers": args.workers,
    }
    return {key: value for key, value in given.items() if value is not None}


def parse_with_pairs(
    parser: argparse.ArgumentParser,
    argv: Sequence[str],
    *,
    lists: Collection[str] = (),
    positional: int = 0,
) -> argparse.Namespace:
    """Parse a command line that ends in KEY VALUE pairs, which become `pairs`.

    Args:
        parser: with an argument `pairs` of any number of words.
        argv, lists, positional: as of `split_pairs`; lists also has flags that take no word.
    """
    flags, pairs = split_pairs(argv, lists=lists, positional=positional)
    args = parser.parse_args(flags)
    args.pairs = [*args.pairs, *pairs]
    for word in args.pairs[::2]:
        if word.startswith("-"):
            parser.error(f"{word}: expected flags before the KEY VALUE pairs")
    return args


def print_any_name() -> None:
    """Print file names that are not Unicode with escapes, rather than fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def split_pairs(
    argv: Sequence[str], *, lists: Collection[str] = (), positional: int = 0
) -> tuple[list[str], list[str]]:
    """Split a command line into its flags and the KEY VALUE pairs that follow them.

    Args:
        argv: the words of the command line.
        lists: flags that take several words; a key ends them.
        positional: number of words at the start that are no keys.
    Returns:
        The words before the first key, and the pairs. A key has a dot or is one of WORDS, and no
        slash; a word with = before its first dot is a data set, `shop=shop.csv`. The word after any
        other flag is that flag's value, such as a path with a dot.
    """
    for place in range(positional, len(argv)):
        before = argv[place - 1] if place else ""
        is_value = before.startswith("-") and before not in lists
        before_dot, dot, _ = argv[place].partition(".")
        has_dot = dot and "=" not in before_dot and os.sep not in argv[place]
        is_key = has_dot or argv[place] in WORDS
        if is_key and not is_value and not argv[place].startswith("-"):
            return list(argv[:place]), list(argv[place:])
    return list(argv), []
