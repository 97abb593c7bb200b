"""Shared wording of messages: counted nouns, examples, other programs' text as one line."""

from collections.abc import Sequence

_MAX_LINE = 300  # characters
_LISTED = 3  # examples in a message


def many(count: int, noun: str) -> str:
    """`many(1, "identity")` is "1 identity", `many(2000, "batch")` "2,000 batches"."""
    if count != 1 and noun.endswith("y"):
        noun = noun.removesuffix("y") + "ies"
    elif count != 1:
        noun += "es" if noun.endswith(("s", "ch")) and noun != "epoch" else "s"
    return f"{count:,} {noun}"


def name_examples(examples: Sequence[str]) -> str:
    """The end of a message: ": first, second, third, …"."""
    more = ", …" if len(examples) > _LISTED else ""
    return f": {', '.join(examples[:_LISTED])}{more}"


def one_line(message: object) -> str:
    """A library's message, or text of an untrusted file, as one line of at most 300 characters."""
    return " ".join(str(message).split())[:_MAX_LINE]
