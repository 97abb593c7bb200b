"""Run any torchreid script with this package's models and data sets registered.

    python -m magnifier_plugin PATH_TO_SCRIPT ARGS…

torchreid's own scripts import from `torchreid.utils`, but the package on PyPI has these modules
under `torchreid.reid`; this program makes both names work. The scripts also read their own
checkpoints with `torch.load`, which since torch 2.6 rejects the numpy scalar in them; this program
allows numpy's scalars and nothing else.
"""

import runpy
import sys
from pathlib import Path

import torch

import magnifier_plugin
from magnifier_plugin.engine.checkpoint import numpy_scalars
from magnifier_plugin.user_modules import alias_modules


def main(argv: list[str]) -> None:
    """Run the script `argv[0]` with the remaining arguments.

    Raises:
        SystemExit: no script was given, or there is no such file.
    """
    usage = f"{__doc__}\nversion {magnifier_plugin.__version__}"
    if not argv:
        sys.exit(usage)
    if argv[0] in ("-h", "--help"):
        print(usage)
        return
    script = Path(argv[0])
    if not script.is_file():
        sys.exit(f"python -m magnifier_plugin: expected a script, found no file {script}")
    alias_modules()
    torch.serialization.add_safe_globals(numpy_scalars())
    sys.path.insert(0, str(script.resolve().parent))
    sys.argv = argv
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
