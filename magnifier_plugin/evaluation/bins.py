"""The labels of a condition's values: words and few numbers as they are, many numbers in bins."""

import math
from collections.abc import Iterable, Sequence

EMPTY = "none"  # label of an empty cell
_MAX_LABELS, _MAX_BINS = 8, 4  # a column of numbers with more distinct values is binned
_WIDTHS = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 9, 10)  # widths of a bin, times a power of ten


def label_values(values: Sequence[str]) -> dict[str, str]:
    """The label of each value of a column.

    Words are their own labels. So are up to 8 distinct numbers, however each is written; more are
    divided into at most 4 bins: quarters if all are in 0..1, otherwise bins of a round width, which
    begin at 0 unless that would leave half of them empty.

    Args:
        values: all cells of the column; the label of an empty cell is "none".
    Returns:
        Cell → label.
    """
    filled = {value for value in values if value}
    numbers = {value: number for value in filled if (number := _as_number(value)) is not None}
    label = {value: value for value in filled} | {"": EMPTY}
    if len(set(numbers.values())) <= _MAX_LABELS:
        shortest: dict[float, str] = {}
        for value, number in sorted(numbers.items(), key=lambda item: (len(item[0]), item[0])):
            label[value] = shortest.setdefault(number, value)  # "0.50" → "0.5"
        return label
    low, high = min(numbers.values()), max(numbers.values())
    start, width = _cut(low, high)
    last = max(1, math.ceil((high - start) / width - 1e-9)) - 1
    edges = _as_texts([start + width * place for place in range(last + 2)], width)
    for value, number in numbers.items():
        place = min(int((number - start) / width + 1e-9), last)
        label[value] = f"{edges[place]}–{edges[place + 1]}"
    return label


def sort_labels(labels: Iterable[str]) -> list[str]:
    """Sorts labels: numbers, and bins by their lower edge, then words alphabetically."""

    def order(label: str) -> tuple[float, str]:
        number = _as_number(label.partition("–")[0])
        return (math.inf if number is None else number), label

    return sorted(labels, key=order)


def _as_texts(edges: Sequence[float], width: float) -> list[str]:
    """The edges of bins, exact to a tenth of a bin; below 1e15 without an exponent."""
    size = math.floor(math.log10(max(map(abs, edges))))
    digits = max(6, size + 2 - math.floor(math.log10(width)), size + 1 if size < 15 else 0)
    return [f"{edge:.{min(digits, 17)}g}" for edge in edges]


def _as_number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _cut(low: float, high: float) -> tuple[float, float]:
    """The lower edge of the first bin, and the width of the bins."""
    if low >= 0 and high <= 1:
        return 0.0, 1 / _MAX_BINS
    from_zero = 0 <= low <= high / 2
    needed = (high - (0 if from_zero else low)) / _MAX_BINS
    power = 10.0 ** math.floor(math.log10(needed))
    width = power * next(w for w in _WIDTHS if w * power >= needed * (1 - 1e-9))
    if from_zero:
        return 0.0, width
    start = width * math.floor(low / width + 1e-9)
    if high - start <= _MAX_BINS * width:
        return start, width
    return low, width
