"""Breaks the package in small ways, one at a time, and shows what no test notices.

    mutants.py --seed 1 --number 200 --jobs 2
    mutants.py --seed 1 --number 200 --again
    mutants.py --seed 3 --number 30 --only magnifier_plugin/losses

The changes (mutants) are drawn from those of mutmut's operators. Each is made in a copy of the
project, where the tests that scripts/mutation/tests.yaml names for the file run. Outcomes are
appended to a file; calling it again runs what is missing. mutation/equivalent.yaml lists mutants
that behave as the original does.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from arguments import path, whole_number

ROOT = Path(__file__).resolve().parents[1]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--seed", type=whole_number(0), default=1, help="of the draw (default: %(default)s)")
    add("--number", type=whole_number(1), default=200, help="of mutants (default: %(default)s)")
    add("--jobs", type=whole_number(1), default=1, help="at a time (default: %(default)s)")
    add(
        "--timeout",
        type=whole_number(1),
        default=30,
        metavar="S",
        help="CPU seconds of a mutant's tests; one that takes longer is killed "
        "(default: %(default)s)",
    )
    add(
        "--out",
        type=path,
        default=ROOT / "log" / "mutants.jsonl",
        metavar="FILE",
        help="outcomes, one JSON object per line (default: log/mutants.jsonl)",
    )
    add("--again", action="store_true", help="run the survivors again")
    add("--only", nargs="+", default=[], metavar="PATH", help="draw from these files and folders")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Draw, run and report; returns 0, 2 for mistakes, 130 after Ctrl-C."""
    arguments = parse(argv)
    # Only now: the parser of the mutated files takes a moment to import.
    from mutation.command import Settings, mutate

    settings = Settings(
        root=ROOT,
        seed=arguments.seed,
        number=arguments.number,
        jobs=arguments.jobs,
        seconds=arguments.timeout,
        out=arguments.out,
        again=arguments.again,
        only=arguments.only,
    )
    try:
        return mutate(settings)
    except (ValueError, RuntimeError) as error:
        print(f"mutants.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("mutants.py: ended; the same command goes on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
