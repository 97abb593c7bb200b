"""A problem of a data set, in words."""

from typing import NamedTuple


class DatasetProblem(NamedTuple):
    """Something wrong with a data set."""

    is_error: bool
    """An error makes training or testing wrong or impossible, a warning does not."""
    text: str
    """What is wrong, with the first examples."""
