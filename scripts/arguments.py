"""Types of command-line arguments; a wrong value ends with argparse's message and status 2.

Nothing of the package is imported: a script parses its arguments before it imports the package,
which takes seconds.
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path


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
