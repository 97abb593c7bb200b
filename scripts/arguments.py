"""Code that the scripts' command lines share: argument types, KEY VALUE pairs, networks, output.

A wrong value ends the script with argparse's message and status 2.

This module imports nothing from the package: scripts parse their arguments before they import the
package, which takes seconds.
"""

import argparse
import contextlib
import ctypes
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

WORDS = ("use_gpu", "amp", "channels_last")  # configuration keys without a dot


def let_idle_threads_sleep() -> None:
    """Let idle OpenMP threads sleep soon, unless the environment sets how they wait.

    Call it before torch is imported. Idle threads then spin for some microseconds, long enough for
    the next small operation of a network, before they sleep, so that data loading workers and
    other programs get the cores.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # GNU OpenMP: overrides the policy


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next step, unless a MALLOC_… variable is set.

    A training step frees the blocks that the next one asks for; if they went back to the system,
    it would clear them page by page each time. With another C library, nothing changes.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: large blocks come from the heap too
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: no memory goes back to the system


def path(text: str) -> Path:
    """The absolute path, as `magnifier_plugin.files.absolute_path` returns it."""
    return Path(os.path.abspath(os.path.expanduser(text)))  # noqa: PTH100, PTH111


def html_file(text: str) -> Path:
    """The absolute path of an HTML page to write."""
    return _file_to_write(text, ".html", ".htm")


def png_file(text: str) -> Path:
    """The absolute path of a PNG image to write."""
    return _file_to_write(text, ".png")


def _file_to_write(text: str, *suffixes: str) -> Path:
    target = path(text)
    if target.suffix not in suffixes or target.is_dir():
        raise argparse.ArgumentTypeError(f"expected a {suffixes[0]} file to write, got {target}")
    return target


def add_data_set(
    parser: argparse.ArgumentParser, name: str = "--source", *, required: bool = True
) -> None:
    """Add the arguments that select one data set: -s, --root, --cuhk03-labeled, --import.

    Args:
        parser: the parser to add them to.
        name: the long form of -s.
        required: whether -s is required.
    """
    parser.add_argument(
        "-s",
        name,
        required=required,
        help="the data set's name in torchreid, or NAME=PATH with your own CSV or folder",
    )
    parser.add_argument(
        "--root",
        type=path,
        default="reid-data",
        help="folder of all data sets (default: %(default)s)",
    )
    parser.add_argument("--cuhk03-labeled", action="store_true", help="cuhk03: labelled boxes")
    add_import(parser)


def check_data_set(
    parser: argparse.ArgumentParser, args: argparse.Namespace, source: str | None
) -> None:
    """End the script if --cuhk03-labeled is given with another data set than cuhk03.

    Data sets of the user's own modules, which are not imported yet, may use it too.
    """
    is_other = (source or "").removesuffix("_masked") != "cuhk03"
    if args.cuhk03_labeled and is_other and not args.modules:
        parser.error(f"--cuhk03-labeled: has no effect on {source or 'images without -s'}")


def add_import(parser: argparse.ArgumentParser) -> None:
    """Add --import MODULE."""
    parser.add_argument(
        "--import",
        dest="modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="your own Python module that registers data sets in torchreid; may be repeated",
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
    """An argument type: whole numbers from `low` to `high`, without a limit if `high` is None."""
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
    """Add the arguments that select the network, for a command line that ends in KEY VALUE."""
    add = parser.add_argument
    add("--weights", type=path, required=True, metavar="FILE", help="a checkpoint")
    add(
        "--config-file",
        type=path,
        metavar="FILE",
        help="YAML file whose values replace those recorded in the checkpoint",
    )
    add("-a", "--arch", metavar="NAME", help="model name, for a torchreid checkpoint")
    add("--flip", action="store_true", help="average each image's and its mirror image's features")
    add("--batch-size", type=whole_number(1), metavar="N", help="images per batch (default: 100)")
    add(
        "--workers",
        type=whole_number(0),
        metavar="N",
        help="loading processes (default: one per core, at most 4)",
    )
    add("pairs", nargs="*", metavar="KEY VALUE", help="override the configuration")


def network_flags(args: argparse.Namespace) -> dict[str, Any]:
    """The flags of `add_network` that were given, as configuration key → value."""
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
    positional: int = 0,
) -> argparse.Namespace:
    """Parse a command line that ends in KEY VALUE pairs; they become the attribute `pairs`.

    Args:
        parser: a parser with an argument `pairs` of any number of words.
        argv, positional: as for `split_pairs`.
    """
    flags, pairs = split_pairs(parser, argv, positional=positional)
    args = parser.parse_args(flags)
    args.pairs = [*args.pairs, *pairs]
    return args


def refuse_keys(
    parser: argparse.ArgumentParser, pairs: Sequence[str], prefixes: tuple[str, ...], flags: str
) -> None:
    """End the script if a key of the pairs begins with a prefix; it has no effect without flags."""
    for key in pairs[::2]:
        if key.startswith(prefixes):
            parser.error(f"{key}: has no effect without {flags}")


def escape_unencodable() -> None:
    """Print characters that a stream cannot encode, such as in file names, as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def split_pairs(
    parser: argparse.ArgumentParser, argv: Sequence[str], *, positional: int = 0
) -> tuple[list[str], list[str]]:
    """Split a command line into its flags and the KEY VALUE pairs that follow them.

    A key has a dot and no slash, or is one of WORDS. A word with = before its first dot is a data
    set (`shop=shop.csv`). The word after a flag that takes one value is that value, even if it
    looks like a key, as a path with a dot does. The first key ends the words of a flag that takes
    several.

    Args:
        parser: knows the flags.
        argv: the words of the command line.
        positional: number of words at the start that are not keys.
    Returns:
        The words before the first key, and the rest, which are the pairs.
    """
    others = {  # flags that take no value, or several
        name
        for action in parser._actions
        if action.nargs is not None
        for name in action.option_strings
    }
    for place in range(positional, len(argv)):
        before = argv[place - 1] if place else ""
        is_value = before.startswith("-") and "=" not in before and before not in others
        before_dot, dot, _ = argv[place].partition(".")
        has_dot = dot and "=" not in before_dot and os.sep not in argv[place]
        is_key = has_dot or argv[place] in WORDS
        if is_key and not is_value and not argv[place].startswith("-"):
            _refuse_flags(parser, argv[place:])
            return list(argv[:place]), list(argv[place:])
    return list(argv), []


def _refuse_flags(parser: argparse.ArgumentParser, pairs: Sequence[str]) -> None:
    """End the script if there is a flag among the KEY VALUE pairs; a value may start with -."""
    for place, word in enumerate(pairs):
        is_key = place % 2 == 0 and word.startswith("-")
        if is_key or word in parser._option_string_actions:
            parser.error(f"{word}: expected flags before the KEY VALUE pairs")


def exit_with(main: Callable[[], int]) -> NoReturn:
    """End the script with the status that `main` returns, or with 130 after Ctrl-C."""
    try:
        status = main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    sys.exit(status)
