"""The share of killed mutants per package, and the survivors."""

from collections.abc import Mapping, Sequence

from mutation.choice import Equivalent, package_of, reason_of
from mutation.drawing import Mutant
from mutation.running import KILLED, SURVIVED, TIMEOUT, Outcome

_HEAD = ("", "drawn", "equivalent", "killed", "of these by timeout", "survived", "killed, %")


def table(
    mutants: Sequence[Mutant],
    outcomes: Mapping[str, Outcome],
    equivalent: Sequence[Equivalent],
) -> str:
    """A Markdown table with a row per package and one for all.

    The last column is the percentage of killed mutants among those that are not equivalent.
    """
    rows = [_HEAD, ("---", *["---:"] * (len(_HEAD) - 1))]
    packages = dict.fromkeys(package_of(mutant.path) for mutant in mutants)
    for package in packages:
        own = [mutant for mutant in mutants if package_of(mutant.path) == package]
        rows.append((f"`{package}`", *_counts(own, outcomes, equivalent)))
    if len(packages) != 1:
        rows.append(("all", *_counts(mutants, outcomes, equivalent)))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _counts(
    mutants: Sequence[Mutant],
    outcomes: Mapping[str, Outcome],
    equivalent: Sequence[Equivalent],
) -> tuple[str, ...]:
    names = [outcomes[m.key].name for m in mutants if not reason_of(m, equivalent)]
    by_time, survived = names.count(TIMEOUT), names.count(SURVIVED)
    killed = names.count(KILLED) + by_time
    share = f"{100 * killed / len(names):.1f}" if names else "–"
    return (*map(str, (len(mutants), len(mutants) - len(names), killed, by_time, survived)), share)


def survivors(
    mutants: Sequence[Mutant],
    outcomes: Mapping[str, Outcome],
    equivalent: Sequence[Equivalent],
) -> str:
    """The diffs of the mutants that no test noticed and that are not equivalent."""
    return "\n".join(
        f"{mutant.path}:{mutant.line} {mutant.function or '(top of the file)'}\n{mutant.diff}"
        for mutant in mutants
        if not reason_of(mutant, equivalent) and outcomes[mutant.key].name == SURVIVED
    )
