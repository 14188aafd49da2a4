"""What people read, written from the schema: a configuration file with comments, and the manual of the options."""

import dataclasses
import ipaddress
import json
import textwrap
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from config.declare import MAX_INTEGER, REQUIRED, OptionInfo
from config.options import Option, is_group, options_of
from config.schema import Config, IpNetwork
from config.secret import Secret

_YAML_WIDTH = 100

# What some readers of YAML take for something else than text when it is not in quotes.
_YAML_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})

# Longer lists stand below the table of the manual.
_TABLE_ITEMS = 4

_YAML_INTRODUCTION = """\
# Configuration of a Weft homeserver. Every option is here with its default: leave out what you do not change.
# docs/configuration.md explains them, and how secrets and environment variables are given.
"""

_MANUAL_INTRODUCTION = """\
# Configuration

<!-- Written by `python -m config.document` from config/schema.py: change that instead. -->

The configuration is one YAML file. Every option has a default that suits a small server, so that a file may be as
short as its server's name:

```yaml
server_name: example.org
```

`weft config generate` prints a file with every option in it. A file with an unknown option or an unusable value is
refused, with a list of everything that is wrong in it.

- **Paths** that are relative start at the directory of the file.
- **Environment variables** override the file. The variable of an option is `WEFT_` and the option's name in capitals,
  with underscores for dots: `database.url` is overridden by `WEFT_DATABASE_URL`. Items of lists have none. A variable
  that is empty sets an option to null, where null is allowed.
- **Secrets** (marked below) are written as a string, as `{file: path}` to be read from a file, or as `{env: NAME}` to
  be taken from an environment variable. The server never logs them.
- **YAML** is read by its version 1.2: `off`, `12:30` and `2026-01-01` are text, and a key given twice is an error.
"""


def generate_yaml(server_name: str = "localhost") -> str:
    """A configuration file for a server of this name, with every option, its default and a comment."""
    config = Config(server_name=server_name)
    return _YAML_INTRODUCTION + "\n" + "\n".join(_yaml_group(config, indent="", top=True)) + "\n"


def generate_manual() -> str:
    """docs/configuration.md."""
    groups = [option for option in options_of(Config) if is_group(option.hint) or is_group(option.item_hint)]
    plain = [option for option in options_of(Config) if option not in groups]
    sections = [_MANUAL_INTRODUCTION, "## Top level\n", "\n".join(_manual_table(plain, "", Config())) + "\n"]
    for option in groups:
        sections.append("\n".join(_manual_section(option)) + "\n")
    return "\n".join(sections)


def _yaml_group(group: Any, indent: str, top: bool = False) -> Iterator[str]:
    group_type: type = type(group)
    for position, option in enumerate(options_of(group_type)):
        if top and position:
            yield ""
        value = getattr(group, option.name)
        doc = _group_doc(option.hint) if is_group(option.hint) and not option.info.doc else option.info.doc
        width = _YAML_WIDTH - len(indent)
        yield from (f"{indent}# {line}" for line in textwrap.wrap(doc.replace("`", ""), width))
        yield from _yaml_option(option, value, indent)


def _yaml_option(option: Option, value: Any, indent: str) -> Iterator[str]:
    items = value if isinstance(value, tuple) else ()
    if is_group(option.hint) and value is not None and _is_flat(option.hint):
        yield f"{indent}{option.name}: {_yaml_flow(value)}"
    elif is_group(option.hint) and value is not None:
        yield f"{indent}{option.name}:"
        yield from _yaml_group(value, indent + "  ")
    elif items and is_group(option.item_hint):
        yield f"{indent}{option.name}:"
        for item in items:
            first, *rest = _yaml_item(item)
            yield f"{indent}  - {first}"
            yield from (f"{indent}    {line}" for line in rest)
    elif len(items) > 1:
        yield f"{indent}{option.name}:"
        yield from (f"{indent}  - {_yaml_value(item)}" for item in items)
    else:
        yield f"{indent}{option.name}: {_yaml_value(value)}"


def _yaml_item(item: Any) -> Iterator[str]:
    """A member of a list: only what differs from the defaults, and always the first option, which names it."""
    item_type: type = type(item)
    for position, option in enumerate(options_of(item_type)):
        value = getattr(item, option.name)
        if position == 0 or value != option.default or option.name in ("port", "resources"):
            yield f"{option.name}: {_yaml_value(value)}"


def _is_flat(group: Any) -> bool:
    """Whether a group is small enough to be written on one line, as a rate limit is."""
    return len(options_of(group)) == 2 and all(option.hint in (int, float) for option in options_of(group))


def _yaml_flow(group: Any) -> str:
    return "{" + ", ".join(f"{f.name}: {_yaml_value(getattr(group, f.name))}" for f in dataclasses.fields(group)) + "}"


def _yaml_value(value: Any) -> str:
    if isinstance(value, frozenset):
        return "[" + ", ".join(sorted(_yaml_value(item) for item in value)) + "]"
    if isinstance(value, tuple):
        return "[" + ", ".join(_yaml_value(item) for item in value) + "]"
    if isinstance(value, Path | ipaddress.IPv4Network | ipaddress.IPv6Network):
        value = str(value)
    if isinstance(value, str) and value.isalpha() and value.lower() not in _YAML_WORDS:
        return value
    return json.dumps(value)  # JSON is YAML


def _manual_section(option: Option) -> Iterator[str]:
    default = option.default
    if is_group(option.item_hint):
        group, prefix, example = option.item_hint, f"{option.name}[].", None
    else:
        group, prefix, example = option.hint, f"{option.name}.", default
    yield f"## {option.name}"
    yield ""
    yield option.info.doc or _group_doc(group)
    yield ""
    options = [inner for inner in options_of(group) if not is_group(inner.item_hint)]
    yield from _manual_table(options, prefix, example)
    for inner in options_of(group):
        if is_group(inner.item_hint):
            yield ""
            yield f"`{prefix}{inner.name}`: {inner.info.doc} None by default."
            yield ""
            yield from _manual_table(options_of(inner.item_hint), f"{prefix}{inner.name}[].", None)
    if is_group(option.item_hint):
        yield from _manual_example(option, default, option.name)
    for inner in options:
        if _is_long(inner.default):
            yield from _manual_example(inner, inner.default, prefix + inner.name)


def _manual_example(option: Option, default: Any, path: str) -> Iterator[str]:
    yield from ("", f"`{path}` by default:", "", "```yaml")
    yield from _yaml_option(option, default, "")
    yield "```"


def _is_long(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) > _TABLE_ITEMS


def _manual_table(options: list[Option] | tuple[Option, ...], prefix: str, group: Any) -> Iterator[str]:
    yield "| option | type | default | meaning |"
    yield "| --- | --- | --- | --- |"
    for option in options:
        value = option.default if group is None else getattr(group, option.name)
        secret = " Secret." if option.info.secret else ""
        if value is REQUIRED:
            default = "required"
        else:
            default = "below" if _is_long(value) else f"`{_manual_default(value)}`"
        yield f"| `{prefix}{option.name}` | {_type_name(option)} | {default} | {option.info.doc}{secret} |"


def _manual_default(value: Any) -> str:
    return _yaml_flow(value) if dataclasses.is_dataclass(value) else _yaml_value(value)


def _type_name(option: Option) -> str:
    name = _hint_name(option.item_hint or option.hint, option.info)
    if option.item_hint is not None:
        name = f"list of: {name}"
    return f"{name}, or null" if option.optional else name


def _hint_name(hint: Any, info: OptionInfo) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return " / ".join(f"`{choice}`" for choice in typing.get_args(hint))
    if is_group(hint):
        return "`{" + ", ".join(option.name for option in options_of(hint)) + "}`"
    if hint in (int, float):
        return ("integer" if hint is int else "number") + _range(info)
    return {str: "string", Secret: "string", Path: "path", bool: "boolean", IpNetwork: "IP network"}[hint]


def _range(info: OptionInfo) -> str:
    minimum = 0 if info.minimum is None else info.minimum
    if info.maximum is None or info.maximum >= MAX_INTEGER:
        return f" ≥ {minimum}"
    return f", {minimum}..{info.maximum}"


def _group_doc(group: Any) -> str:
    return (group.__doc__ or "").strip().splitlines()[0]


if __name__ == "__main__":
    manual = Path(__file__).parent.parent / "docs" / "configuration.md"
    manual.write_text(generate_manual(), encoding="utf-8")
