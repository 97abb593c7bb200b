"""Measures this package against the installed torchreid and prints Markdown.

    benchmark.py evaluation --size market
    benchmark.py loading
    benchmark.py pooling

Each side runs in a process of its own, one after the other; other programs disturb the figures.
"""

import argparse
import sys

from benchmarks import evaluation, loading, pooling

COMMANDS = {"evaluation": evaluation, "loading": loading, "pooling": pooling}


def main(arguments: list[str] | None = None) -> int:
    """Runs one comparison; returns the exit status, 2 for wrong arguments or a failed process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, module in COMMANDS.items():
        module.add_arguments(commands.add_parser(name, description=module.__doc__))
    args = parser.parse_args(arguments)
    try:
        COMMANDS[args.command].run(args)
    except (ValueError, RuntimeError) as error:
        print(f"benchmark.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
