"""The project's own source files, read once: what the tests beside this module look at."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PRODUCT = ("matrix", "config", "storage", "homeserver", "federation", "appservices")
TOOLS = ("benchmarks", "tests")

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Module(NamedTuple):
    """A source file: `name` is its path below the root, with slashes."""

    name: str
    text: str
    tree: ast.Module


@cache
def modules(*packages: str) -> tuple[Module, ...]:
    """Every module of these packages, in a fixed order."""
    found = []
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            found.append(Module(path.relative_to(ROOT).as_posix(), text, ast.parse(text, str(path))))
    assert found, f"nothing to look at in {packages}"
    return tuple(found)


def functions(module: Module) -> Iterator[tuple[str, Function]]:
    """Every function of a module, methods and inner ones too, each with where it stands: `file.py:12 name`."""
    for node in ast.walk(module.tree):
        if isinstance(node, Function):
            yield f"{module.name}:{node.lineno} {node.name}", node


def calls(module: Module) -> Iterator[tuple[int, str]]:
    """Every call in a module: its line, and what is called with its full name, imports resolved.

    `now()` after `from datetime import datetime` and `datetime.now()` both come out as `datetime.datetime.now`.
    """
    imported = dict(_imports(module.tree))
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and (dotted := _dotted(node.func)):
            first, _, rest = dotted.partition(".")
            first = imported.get(first, first)
            yield node.lineno, f"{first}.{rest}" if rest else first


def imports(module: Module) -> Iterator[str]:
    """The full names that a module imports."""
    for _, full in _imports(module.tree):
        yield full


def _imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.name
                yield (alias.asname, name) if alias.asname else (name.partition(".")[0], name.partition(".")[0])
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _dotted(node: ast.expr) -> str | None:
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    return ".".join([node.id, *reversed(parts)])
