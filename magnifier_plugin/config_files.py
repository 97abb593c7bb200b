"""Configuration files, which may extend each other."""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from magnifier_plugin.config_values import ConfigError
from magnifier_plugin.text_files import read_yaml

EXTENDS = "extends"


def read_files(path: Path, above: tuple[Path, ...] = ()) -> list[tuple[str, dict[str, Any]]]:
    """Read a file and the files that it extends.

    Args:
        path: the file.
        above: the files that extend this one, directly or indirectly.
    Returns:
        (path, values by key) of each file, the base first.
    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: a file is not valid YAML or sets a key twice, or a base is missing or part of a
            circle.
    """
    content = _read_yaml(path)
    if EXTENDS not in content:
        return [(str(path), _by_key(content, path))]
    base = content.pop(EXTENDS)
    if not isinstance(base, str) or not base:
        raise ConfigError(
            f"{_chain(above, path)}: {EXTENDS}: expected the path of one file, got {base!r}"
        )
    base_path = path.parent / Path(base).expanduser()
    if not base_path.is_file():
        raise ConfigError(
            f"{_chain(above, path)}: {EXTENDS}: {base}: expected a configuration file (YAML) at "
            f"{base_path}, found none; the path is relative to the extending file"
        )
    if any(base_path.samefile(other) for other in (*above, path)):
        raise ConfigError(
            f"{_chain((*above, path), base_path)}: {EXTENDS}: files extend each other in a circle; "
            f"remove {EXTENDS} from one of them"
        )
    return [*read_files(base_path, (*above, path)), (str(path), _by_key(content, path))]


def merge(layers: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """The values of all layers by key; the last layer wins."""
    return {key: value for _, values in layers for key, value in values.items()}


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(key, value) for every value of nested mappings, with keys such as "data.root"."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _by_key(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in flatten(content):
        if key in values:
            raise ConfigError(
                f"{path}: {key}: expected once, found in its section and dotted; remove one"
            )
        values[key] = value
    return values


def _chain(above: Sequence[Path], path: Path) -> str:
    return " → ".join(map(str, (*above, path)))


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        names = [other.name for other in path.parent.glob("*.yaml")]
        near = get_close_matches(path.name, names, n=1)
        hint = f"; did you mean {path.with_name(near[0])}?" if near else ""
        raise FileNotFoundError(f"{path}: expected a configuration file (YAML), found none{hint}")
    try:
        content = read_yaml(path)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected keys and values, found a {type(content).__name__}")
    return content
