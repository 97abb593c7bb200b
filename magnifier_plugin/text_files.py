"""Read JSON, YAML and CSV from untrusted files; errors are one line that names the file."""

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import yaml

from magnifier_plugin.wording import one_line

SPREADSHEET_DELIMITERS = ",;\t"  # semicolons in countries with a decimal comma


class Table(NamedTuple):
    """The content of a CSV file."""

    header: tuple[str, ...]
    """Names of the columns, without spaces around them; empty in an empty file."""
    rows: list[tuple[int, list[str]]]
    """The other non-empty lines: line number in the file, from 1, and cells."""


def read_json(path: str | os.PathLike[str]) -> Any:
    """The content of a JSON file in UTF-8.

    Raises:
        OSError: the file is missing or cannot be opened.
        ValueError: it is not valid JSON, or is nested too deeply.
    """
    return _parse(path, _read(path, "JSON"), "JSON", json.loads)


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """The content of a YAML file in UTF-8: plain types, no tags and no aliases (`*name`).

    Raises:
        OSError: the file is missing or cannot be opened.
        ValueError: it is not valid YAML, is nested too deeply, or has a tag, an alias or a
            repeated key.
    """
    return parse_yaml(_read(path, "YAML"), path)


def parse_yaml(text: str, name: str | os.PathLike[str]) -> Any:
    """`read_yaml` for a text; `name` stands for the file in errors."""
    return _parse(name, text, "YAML", lambda content: yaml.load(content, _PlainLoader))


def read_csv(
    path: str | os.PathLike[str],
    *,
    delimiters: str = ",",
    errors: str = "strict",
    ragged: bool = False,
) -> Table:
    """The content of a CSV file in UTF-8 with a header.

    Args:
        path: the file.
        delimiters: characters that may separate columns; the most frequent in the header is used.
        errors: how to handle bytes that are not UTF-8, as in `open`.
        ragged: accept lines with more or fewer fields than the header.
    Raises:
        OSError: the file is missing or cannot be opened.
        ValueError: it is not CSV in UTF-8, or a line has more or fewer fields than the header.
    """
    with Path(path).open(newline="", encoding="utf-8-sig", errors=errors) as file:
        reader = csv.reader(file, delimiter=_delimiter(path, file, delimiters))
        try:
            lines = [(reader.line_num, row) for row in reader if row] or [(1, [])]
        except (csv.Error, ValueError) as error:
            raise _other_content(path, "CSV", error, f" after line {reader.line_num}") from error
    header = tuple(name.strip() for name in lines[0][1])
    for number, row in lines[1:]:
        if len(row) != len(header) and not ragged:
            raise ValueError(
                f"{path}, line {number}: expected {len(header)} fields as in the header, found "
                f"{len(row)}"
            )
    return Table(header, lines[1:])


def _delimiter(path: str | os.PathLike[str], file: TextIO, delimiters: str) -> str:
    """Choose the delimiter by the header, and go back to the start of the file."""
    if len(delimiters) == 1:
        return delimiters
    try:
        header = file.readline()
        file.seek(0)
    except ValueError as error:
        raise _other_content(path, "CSV", error) from error
    return max(delimiters, key=header.count)


class _PlainLoader(yaml.SafeLoader):
    """Rejects aliases, tags and repeated keys.

    A few lines of aliases can expand to gigabytes or contain themselves. Even standard tags give
    other types than JSON has, or make PyYAML fail with any exception (`!!bool maybe`). Of repeated
    keys, PyYAML silently keeps the last.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        problem = ""
        if isinstance(event, yaml.AliasEvent):
            problem = "aliases are not supported; write the value out"
        elif event.tag is not None:
            problem = f"tags such as {event.tag} are not supported; write the plain value"
        if problem:
            raise yaml.constructor.ConstructorError(None, None, problem, event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        mapping, keys = super().construct_mapping(node, deep), set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node)
            if key in keys:
                problem = f"the key {key!r} is repeated; write it once, with all of its content"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            keys.add(key)
        return mapping


def _read(path: str | os.PathLike[str], kind: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except ValueError as error:
        raise _other_content(path, kind, error) from error


def _parse(path: str | os.PathLike[str], text: str, kind: str, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise _other_content(path, kind, error) from error


def _other_content(
    path: str | os.PathLike[str], kind: str, error: Exception, where: str = ""
) -> ValueError:
    """A parser's error as one line that names the file."""
    return ValueError(
        f"{path}: expected {kind} in UTF-8, found other content{where} ({one_line(error)})"
    )
