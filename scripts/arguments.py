"""Types of command-line arguments; a wrong value ends with argparse's message and status 2.

Nothing of the package is imported: a script parses its arguments before it imports the package,
which takes seconds.
"""

import argparse
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

WORDS = ("use_gpu", "amp", "channels_last")  # keys of the configuration that have no dot


def path(text: str) -> Path:
    """An absolute path, as `magnifier_plugin.files.absolute_path` makes it."""
    return Path(os.path.abspath(os.path.expanduser(text)))  # noqa: PTH100, PTH111


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


def split_pairs(
    argv: Sequence[str], *, lists: Collection[str] = (), positional: int = 0
) -> tuple[list[str], list[str]]:
    """Split a command line into its flags and the KEY VALUE pairs that follow them.

    Args:
        argv: the words of the command line.
        lists: flags that take several words; a key ends them.
        positional: number of words at the start that are no keys.
    Returns:
        The words before the first key, and the pairs. A key has a dot or is one of WORDS; the
        word after any other flag is that flag's value, such as a path with a dot.
    """
    for place in range(positional, len(argv)):
        before = argv[place - 1] if place else ""
        is_value = before.startswith("-") and before not in lists
        is_key = "." in argv[place] or argv[place] in WORDS
        if is_key and not is_value and not argv[place].startswith("-"):
            return list(argv[:place]), list(argv[place:])
    return list(argv), []
