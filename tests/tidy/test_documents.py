"""The documents say what is: links lead somewhere, names exist, every table and column is described."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import asyncpg
import pytest

from tests.tidy.sources import ROOT, Function

DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "benchmarks" / "README.md"],
    key=lambda path: path.as_posix(),
)
LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
EXTERNAL = re.compile(r"https?://|mailto:")


def ids(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_links_lead_somewhere(document: Path) -> None:
    broken = []
    for link in LINK.finditer(document.read_text(encoding="utf-8")):
        target, _, anchor = link["target"].partition("#")
        if EXTERNAL.match(link["target"]):
            continue
        path = (document.parent / target).resolve() if target else document
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(link[0])
    assert broken == []


@cache
def anchors(path: Path) -> set[str]:
    """The anchors of a Markdown file's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_linked_names_are_in_the_module_they_lead_to(document: Path) -> None:
    missing = []
    for link in LINK.finditer(document.read_text(encoding="utf-8")):
        name = re.fullmatch(r"`([A-Za-z_][\w.]*)`", link["text"])
        if name and link["target"].endswith(".py") and name[1] not in definitions(document.parent / link["target"]):
            missing.append(link[0])
    assert missing == []


@cache
def definitions(path: Path) -> set[str]:
    """What a module defines: functions, classes, and methods as `Class.method`."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, Function | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, Function)}
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_paths_in_documents_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    paths = re.findall(
        r"`((?:matrix|config|storage|homeserver|federation|appservices|tests|benchmarks|docs)/[\w./-]*)`", text
    )
    assert [path for path in paths if "NNNN" not in path and not (ROOT / path).exists()] == []


def documented_columns() -> dict[str, dict[str, str]]:
    """docs/database.md as {table: {column: type}}."""
    tables: dict[str, dict[str, str]] = {}
    for line in (ROOT / "docs" / "database.md").read_text(encoding="utf-8").splitlines():
        if heading := re.fullmatch(r"### (\w+)", line):
            columns = tables[heading[1]] = {}
        elif row := re.match(r"\| `(\w+)` \| ([\w\[\]]+) \|", line):
            columns[row[1]] = row[2]
    return tables


async def test_every_table_and_column_is_described(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch(
            """
            SELECT c.relname AS table, a.attname AS column, format_type(a.atttypid, a.atttypmod) AS type
            FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
            WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
            """
        )
    finally:
        await connection.close()
    schema: dict[str, dict[str, str]] = {}
    for row in rows:
        schema.setdefault(row["table"], {})[row["column"]] = row["type"].replace(
            "timestamp with time zone", "timestamptz"
        )
    assert documented_columns() == schema


def test_every_decision_is_listed_and_has_its_parts() -> None:
    listed = (ROOT / "docs" / "adr" / "README.md").read_text(encoding="utf-8")
    decisions = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
    assert [int(path.name[:4]) for path in decisions] == list(range(1, len(decisions) + 1))
    for path in decisions:
        assert f"({path.name})" in listed
        text = path.read_text(encoding="utf-8")
        assert text.startswith(f"# {path.name[:4]}: ")
        for part in ("**Context.**", "**Decision.**", "**Consequences.**"):
            assert part in text, f"{path.name} lacks {part}"


def test_the_readme_shows_commands_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for document in DOCUMENTS:
        for target in re.findall(r"(?:^|`)make (\w+)", document.read_text(encoding="utf-8"), re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{document.name}: make {target}"
