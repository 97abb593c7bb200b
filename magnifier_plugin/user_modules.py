"""Import users' modules that register data sets, as torchreid's documentation describes."""

import importlib
import sys
from pathlib import Path

from magnifier_plugin.registry import register

PYPI_PREFIX = "torchreid.reid."


def alias_modules() -> None:
    """Make every loaded module `torchreid.reid.X` available as `torchreid.X`.

    `from torchreid.data import ImageDataset` then works with the package on PyPI too. Modules of
    all levels need the alias: otherwise Python would load a second copy with an empty registry.
    """
    for name, module in list(sys.modules.items()):
        if name.startswith(PYPI_PREFIX):
            sys.modules.setdefault(name.replace(PYPI_PREFIX, "torchreid.", 1), module)


def import_user_module(name: str) -> None:
    """Import a module, and register `<name>_masked` for each data set that it registers.

    Args:
        name: name of a module in the working directory or installed, such as `my_module`, or the
            path of its file.
    Raises:
        ModuleNotFoundError: there is no such module.
    """
    alias_modules()
    path = Path(name)
    folder = path.parent.resolve() if path.suffix == ".py" else Path.cwd()
    module = path.stem if path.suffix == ".py" else name
    missing = ModuleNotFoundError(
        f"--import {name}: expected a Python module in {folder} or an installed one, found none"
    )
    if not all(part.isidentifier() for part in module.split(".")):
        raise missing
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if not error.name or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise missing from error
    register()
