"""Types of configuration values: how each is read, and how errors describe it."""

import math
import os
from collections.abc import Callable
from typing import Any, NamedTuple


class Check(NamedTuple):
    """The values that a key accepts."""

    read: Callable[[Any], Any]
    """Converts a value to the key's type; raises TypeError, ValueError or OverflowError."""
    expected: str
    """The words after "expected" in an error, such as "a whole number of at least 1"."""
    choices: tuple[str, ...] = ()
    """The accepted names; empty for numbers and free text."""


def _require(fits: bool) -> None:
    if not fits:
        raise ValueError


def whole(low: int, high: int | None = None, step: int = 1) -> Check:
    """A whole number in low..high, a multiple of step; also as text, as in "40,70"."""

    def read(value: Any) -> int:
        value = int(value) if isinstance(value, str) else value
        _require(type(value) is int and value >= low and value % step == 0)
        _require(high is None or value <= high)
        return value

    kind = "a whole number" if step == 1 else f"a multiple of {step}"
    return Check(read, f"{kind} {_range(low, high)}")


def number(low: float, high: float | None = None, *, open_ends: str = "") -> Check:
    """A finite number in low..high; also as text, since YAML reads 1e-3 as text.

    Args:
        low: the lowest value.
        high: the highest value; None for no limit.
        open_ends: "low" or "high" excludes that limit itself; "" excludes none.
    """

    def read(value: Any) -> float:
        _require(not isinstance(value, bool))
        value = float(value)
        _require(math.isfinite(value) and value >= low and (high is None or value <= high))
        _require(value != {"low": low, "high": high}.get(open_ends))
        return value

    if open_ends == "low":
        limit = "" if high is None else f", at most {high}"
        return Check(read, f"a number above {low}{limit}")
    below = f"of at least {low} and below {high}" if open_ends == "high" else _range(low, high)
    return Check(read, f"a number {below}")


def _range(low: float, high: float | None) -> str:
    return f"of at least {low}" if high is None else f"from {low} to {high}"


def one_of(*choices: str) -> Check:
    """One of several names."""

    def read(value: Any) -> str:
        _require(value in choices)
        return value

    return Check(read, f"one of {', '.join(choices)}", choices)


def list_of(item: Check, length: int | None = None, least: int = 0) -> Check:
    """A list, also as text "a,b"; a single value becomes a list of one.

    Args:
        item: the check of each entry.
        length: the exact number of entries; None for any number.
        least: the lowest number of entries, if length is None.
    """

    def read(value: Any) -> list[Any]:
        if isinstance(value, str):
            value = [word.strip() for word in value.split(",") if word.strip()]
        value = value if isinstance(value, (list, tuple)) else [value]
        _require(len(value) == length or (length is None and len(value) >= least))
        return [item.read(entry) for entry in value]

    amount = f"{length} entries" if length else "at least one entry" if least else "entries"
    return Check(read, f"a list of {amount}, each {item.expected}", item.choices)


def optional(check: Check) -> Check:
    """The values that a check accepts, or None."""

    def read(value: Any) -> Any:
        return None if value is None else check.read(value)

    return Check(read, f"{check.expected}, or None", check.choices)


def _truth(value: Any) -> bool:
    value = {"true": True, "false": False}.get(value.lower()) if isinstance(value, str) else value
    _require(isinstance(value, bool))
    return value


def _switch(*choices: str) -> Check:
    """One of several names; True and False count as "on" and "off", as YAML reads them."""

    def read(value: Any) -> str:
        value = {True: "on", False: "off"}[value] if isinstance(value, bool) else value
        _require(value in choices)
        return value

    return Check(read, f"one of {', '.join(choices)}", choices)


def _text(value: Any) -> str:
    _require(isinstance(value, str))
    return value


def _path(value: Any) -> str:
    # A shell replaces `~` on the command line, but nobody does in a YAML file.
    return os.path.expanduser(_text(value))  # noqa: PTH111


def _path_or(nothing: str) -> Check:
    """A path; None, or "none" in upper or lower case, becomes `nothing`."""

    def read(value: Any) -> str:
        is_none = value is None or (isinstance(value, str) and value.strip().lower() == "none")
        return nothing if is_none else _path(value)

    return Check(read, "a path, or none")


SWITCHES = "on", "off", "auto"
TRUTH = Check(_truth, "True or False")
SWITCH = _switch(*SWITCHES)
AMP = _switch(*SWITCHES, "bf16", "fp16")
TEXT = Check(_text, "text")
TEXTS = list_of(TEXT)
PATH = Check(_path, "a path")
# PATH_OR_NONE: "" means no path. WEIGHTS_OR_NONE: "" means the default file, "none" no file.
PATH_OR_NONE = _path_or("")
WEIGHTS_OR_NONE = _path_or("none")
SHARE = number(0, 1)
WEIGHT = number(0)
ABOVE_0 = number(0, open_ends="low")
DECAY = number(0, 1, open_ends="high")  # of a moving average
COUNT = whole(0)
SIZE = whole(1)
SEED = whole(0, 2**32 - 1)  # numpy's range
