"""Break the package in small ways, one at a time, and show which changes no test notices.

    mutants.py --seed 1 --number 200 --jobs 2
    mutants.py --seed 1 --number 200 --again
    mutants.py --seed 3 --number 30 --only magnifier_plugin/losses

The changes (mutants) are a random sample of those that mutmut's operators make. Each is made in a
copy of the project, in which the tests run that scripts/mutation/tests.yaml lists for the file.
Outcomes are appended to a file; the same command again runs the missing mutants.
scripts/mutation/equivalent.yaml lists mutants that behave as the original does.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from arguments import escape_unencodable, exit_with, path, whole_number

ROOT = Path(__file__).resolve().parents[1]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--seed", type=whole_number(0), default=1, help="seed of the sample (default: %(default)s)")
    add(
        "--number",
        type=whole_number(1),
        default=200,
        help="number of mutants (default: %(default)s)",
    )
    add("--jobs", type=whole_number(1), default=1, help="mutants at a time (default: %(default)s)")
    add(
        "--timeout",
        type=whole_number(1),
        default=30,
        metavar="S",
        help="CPU seconds for a mutant's tests, after which it counts as killed "
        "(default: %(default)s)",
    )
    add(
        "--out",
        type=path,
        default=ROOT / "log" / "mutants.jsonl",
        metavar="FILE",
        help="file of outcomes, one JSON object per line (default: log/mutants.jsonl)",
    )
    add("--again", action="store_true", help="also run the survivors again")
    add("--only", nargs="+", default=[], metavar="PATH", help="mutate only these files and folders")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Draw, run and report; return 0, 2 for wrong arguments or failing tests, 130 after Ctrl-C."""
    escape_unencodable()
    arguments = parse(argv)
    # Imported only now, because the parser of the mutated files takes a moment to import.
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
    except (ValueError, RuntimeError, OSError) as error:
        print(f"mutants.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("mutants.py: interrupted; the same command continues", file=sys.stderr)
        return 130


if __name__ == "__main__":
    exit_with(main)
