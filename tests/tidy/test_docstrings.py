"""Everything public says what it is for."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.tidy.sources import PRODUCT, TOOLS, Function, Module, modules

# A property of one line that is named for what it returns says nothing new in a docstring.
MAX_PLAIN_PROPERTY_LINES = 3


def public_definitions(module: Module) -> Iterator[tuple[str, ast.AST]]:
    """Public classes and functions of a module, and the public methods of its public classes."""
    for node in module.tree.body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            yield f"{module.name}:{node.lineno} {node.name}", node
            if isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, Function) and not inner.name.startswith("_"):
                        yield f"{module.name}:{inner.lineno} {node.name}.{inner.name}", inner


def needs_docstring(node: ast.AST) -> bool:
    assert isinstance(node, Function | ast.ClassDef)
    if ast.get_docstring(node):
        return False
    decorators = {d.id for d in node.decorator_list if isinstance(d, ast.Name)}
    assert node.end_lineno is not None
    return not ("property" in decorators and node.end_lineno - node.lineno < MAX_PLAIN_PROPERTY_LINES)


def test_every_module_says_what_it_is() -> None:
    silent = [m.name for m in modules(*PRODUCT, *TOOLS) if m.text.strip() and not ast.get_docstring(m.tree)]
    assert silent == []


def test_everything_public_is_documented() -> None:
    silent = [where for m in modules(*PRODUCT) for where, node in public_definitions(m) if needs_docstring(node)]
    assert silent == []
