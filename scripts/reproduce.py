"""Reproduce the papers' tables and figures; each row is an ordinary training run with overrides.

    reproduce.py table2 --config-file configs/magnifier_demo.yaml --seeds 1 2 3 --out log/table2
    reproduce.py dsa --config-file configs/dsa_market.yaml --root reid-data --seeds 1 --out log/dsa

KEY VALUE pairs at the end apply to every row in which the key has an effect. The same command
again keeps finished rows, resumes interrupted ones and retries failed ones; table.md, results.json
and the figure are rewritten.
Exit status: 0 done, 1 a row failed, 2 wrong input, 130 after Ctrl-C.
"""

import argparse
import errno
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from arguments import escape_unencodable, let_idle_threads_sleep, path, split_pairs, whole_number
from reproduction.rows import TABLES

let_idle_threads_sleep()


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Parse the flags and the KEY VALUE pairs after them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", choices=TABLES, help="; ".join(t.title for t in TABLES.values()))
    parser.add_argument("--config-file", required=True, help="YAML file that all rows share")
    parser.add_argument(
        "--seeds",
        type=whole_number(0, 2**32 - 1),
        nargs="+",
        required=True,
        metavar="S",
        help="each row is trained once with each seed",
    )
    parser.add_argument(
        "--rows", nargs="+", metavar="ROW", help="train only some rows, such as G (default: all)"
    )
    parser.add_argument("--out", type=path, required=True, help="folder of the rows and results")
    parser.add_argument("--root", help="folder of all data sets (data.root)")
    parser.add_argument(
        "--jobs", type=whole_number(1), help="runs at a time (default: one per GPU of --gpus, or 1)"
    )
    parser.add_argument(
        "--gpus",
        type=whole_number(0),
        nargs="+",
        default=[],
        metavar="N",
        help="GPUs that the runs share, such as 0 1",
    )
    parser.add_argument(
        "--start",
        type=whole_number(0, 2**32 - 1),
        metavar="S",
        help="rendered data: every row's backbone starts from a plain network that is trained once "
        "on the people of this seed and stored next to them",
    )
    parser.add_argument("--quick", action="store_true", help="at most two epochs per stage")
    parser.add_argument("pairs", nargs="*", metavar="KEY VALUE", help="for every row")
    flags, pairs = split_pairs(parser, argv, positional=1)
    arguments = parser.parse_args(flags)
    arguments.table = TABLES[arguments.table]
    if arguments.rows:
        try:
            arguments.table = arguments.table.with_rows(arguments.rows)
        except ValueError as error:
            parser.error(f"--rows: {error}")
    return arguments, [*arguments.pairs, *pairs]


if __name__ == "__main__":
    parse(sys.argv[1:])  # --help and wrong arguments end here: the imports below take seconds

# isort: split
import magnifier_plugin  # noqa: F401  before torchreid, one of whose warnings it suppresses

# isort: split
from reproduction.command import reproduce
from reproduction.settings import Settings


class OnlyOnce(logging.Filter):
    """Drop messages that were logged before: many rows share the reason for a warning."""

    def __init__(self) -> None:
        super().__init__()
        self._logged: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        is_new = message not in self._logged
        self._logged.add(message)
        return is_new


def main(argv: Sequence[str]) -> int:
    """Reproduce a table; return 0, 1 if a row failed, 2 for wrong input, 130 after Ctrl-C."""
    escape_unencodable()
    arguments, pairs = parse(argv)
    asked = settings(arguments, pairs)
    try:
        return reproduce(asked, jobs=arguments.jobs, gpus=arguments.gpus)
    except (ValueError, OSError) as error:
        reason = str(error)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            reason = (
                f"{asked.out}: the disk is full; free some space and run the same command again, "
                "which keeps finished rows and resumes the others"
            )
        print(f"error: {reason}", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted; the same command continues from here", file=sys.stderr)
        return 130
    return 2


def settings(arguments: argparse.Namespace, pairs: Sequence[str]) -> Settings:
    """The settings of a command line."""
    root = ("data.root", arguments.root) if arguments.root else ()
    return Settings(
        table=arguments.table,
        config_file=Path(arguments.config_file),
        seeds=tuple(dict.fromkeys(arguments.seeds)),
        out=arguments.out,
        pairs=(*root, *pairs),
        quick=arguments.quick,
        start=arguments.start,
    )


if __name__ == "__main__":
    if logging.lastResort:
        logging.lastResort.addFilter(OnlyOnce())
    sys.exit(main(sys.argv[1:]))
