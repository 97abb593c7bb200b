"""Compare this package with the installed torchreid, faiss or plain code; print Markdown.

    benchmark.py evaluation --size market
    benchmark.py loading
    benchmark.py masks
    benchmark.py models
    benchmark.py pooling
    benchmark.py search
    benchmark.py training

Each command has its own --help. Other programs on the machine disturb the timings.
"""

import argparse
import importlib
import sys

from arguments import escape_unencodable, exit_with, keep_freed_memory, let_idle_threads_sleep
from benchmarks.command_line import (
    add_evaluation,
    add_loading,
    add_masks,
    add_models,
    add_pooling,
    add_search,
    add_training,
)

let_idle_threads_sleep()
if __name__ in ("__main__", "__mp_main__"):  # the second: a child process that measures
    keep_freed_memory()
COMMANDS = {
    "evaluation": add_evaluation,
    "loading": add_loading,
    "masks": add_masks,
    "models": add_models,
    "pooling": add_pooling,
    "search": add_search,
    "training": add_training,
}


def main(arguments: list[str] | None = None) -> int:
    """Run one comparison; return the exit status, 2 for wrong arguments or a failed process."""
    escape_unencodable()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, add_options in COMMANDS.items():
        add_options(commands.add_parser(name))
    args = parser.parse_args(arguments)
    # Imported only now, because the comparisons' own imports take seconds.
    comparison = importlib.import_module(f"benchmarks.{args.command}")
    try:
        comparison.run(args)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"benchmark.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    exit_with(main)
