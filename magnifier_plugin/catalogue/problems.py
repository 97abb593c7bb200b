"""What is wrong with a data set, in words."""

from collections.abc import Sequence
from typing import NamedTuple

_LISTED = 3  # examples that a problem names


class DatasetProblem(NamedTuple):
    """Something wrong with a data set."""

    is_error: bool
    """An error makes training or testing wrong or impossible, a warning does not."""
    text: str
    """What is wrong, with the first examples."""


def many(count: int, noun: str) -> str:
    """`many(1, "identity")` is "1 identity", `many(2000, "batch")` "2,000 batches"."""
    if count != 1 and noun.endswith("y"):
        noun = noun.removesuffix("y") + "ies"
    elif count != 1:
        noun += "es" if noun.endswith(("s", "ch")) else "s"
    return f"{count:,} {noun}"


def name_examples(examples: Sequence[str]) -> str:
    """The end of a problem's text: ": first, second, third, …"."""
    more = ", …" if len(examples) > _LISTED else ""
    return f": {', '.join(examples[:_LISTED])}{more}"
