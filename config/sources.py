"""Reading the files that a configuration is made of: YAML documents and secrets."""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from config.errors import ConfigError

MAX_FILE_BYTES = 1024 * 1024

# https://yaml.org/spec/1.2.2/#1032-tag-resolution: the tag, what its scalars look like, what they begin with.
_CORE_SCHEMA = (
    ("tag:yaml.org,2002:null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("tag:yaml.org,2002:int", r"^[-+]?(?:0|[1-9][0-9]*)$", list("-+0123456789")),
    ("tag:yaml.org,2002:float", r"^[-+]?[0-9]+(?:\.[0-9]*(?:[eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)$", list("-+0123456789")),
)


def read_text(path: Path) -> str:
    """The UTF-8 text of a file. Raises `ConfigError` when there is none."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError([f"{path}: cannot be read: {reason}"]) from error
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError([f"{path}: is larger than {MAX_FILE_BYTES} bytes"])
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: is not UTF-8 text"]) from error


def read_yaml(path: Path) -> object:
    """The value of a YAML file. Raises `ConfigError`, naming the file and the line of every problem."""
    return parse_yaml(read_text(path), str(path))


def parse_yaml(text: str, name: str) -> object:
    """The value of a YAML document that is called `name` in complaints.

    Scalars are read by YAML 1.2's core schema rather than by 1.1's, so that `off`, `12:30` and `2026-01-01` are the
    text that they look like. Keys given twice are refused. Raises `ConfigError`.
    """
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        value = loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}, line {mark.line + 1}, column {mark.column + 1}" if mark else name
        raise ConfigError([f"{where}: {error.problem or error.context or 'is not YAML'}"]) from error
    except (yaml.YAMLError, ValueError, LookupError, RecursionError) as error:
        # A character that YAML forbids, a number beyond Python's limit, `!!bool maybe`, nesting that nobody needs.
        raise ConfigError([f"{name}: is not usable as YAML: {str(error).splitlines()[0]}"]) from error
    finally:
        if loader is not None:
            loader.dispose()
    if loader.duplicates:
        raise ConfigError(f"{name}, {duplicate}" for duplicate in loader.duplicates)
    return value


class _Loader(yaml.SafeLoader):
    """SafeLoader, with YAML 1.2's core schema and an account of the keys given twice."""

    yaml_constructors = {  # noqa: RUF012 -- PyYAML's own attribute
        tag: constructor
        for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in ("null", "bool", "int", "float", "str", "seq", "map")
    }
    yaml_implicit_resolvers: dict[str, list[tuple[str, Any]]] = {}  # noqa: RUF012 -- PyYAML's own attribute

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.duplicates: list[str] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        if isinstance(node, yaml.MappingNode):
            lines: dict[Hashable, int] = {}
            for key_node, _ in node.value:
                key = self.construct_object(key_node, deep=True)
                line = key_node.start_mark.line + 1
                if not isinstance(key, Hashable):
                    continue  # the parent refuses it with a better message
                if key in lines:
                    self.duplicates.append(f"line {line}: {key} is given again, first on line {lines[key]}")
                lines.setdefault(key, line)
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first_characters in _CORE_SCHEMA:
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), _first_characters)
