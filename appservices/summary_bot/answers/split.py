"""Splits a long answer into messages that fit into events.

https://spec.matrix.org/v1.19/client-server-api/#size-limits: an event has at most 65,536 bytes, of which plain and HTML
body share what the envelope leaves.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape

MAX_CONTENT_BYTES = 24_000
"""Well below half of the limit: an edit carries its content twice, once for clients that know no edits."""

MAX_PARTS = 20


@dataclass(frozen=True, slots=True)
class Piece:
    """A line or a heading, plain and as HTML. A heading opens a list that goes on until the next."""

    plain: str
    html: str
    is_item: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """What one message says."""

    plain: str
    html: str


def split(pieces: Iterable[Piece], max_bytes: int = MAX_CONTENT_BYTES) -> list[Part]:
    """As few messages as take all pieces in, in order; at most MAX_PARTS. A piece is never cut unless it alone is
    too long, and then it is left out of the HTML, whose tags could not be cut."""
    parts: list[Part] = []
    waiting: list[Piece] = []
    size = 0
    for piece in _fitting(pieces, max_bytes):
        added = _bytes(piece.plain) + _bytes(piece.html) + 32
        if waiting and size + added > max_bytes:
            parts.append(_part(waiting))
            waiting, size = [], 0
        waiting.append(piece)
        size += added
    if waiting:
        parts.append(_part(waiting))
    return parts[:MAX_PARTS]


def _fitting(pieces: Iterable[Piece], max_bytes: int) -> Iterator[Piece]:
    for piece in pieces:
        if _bytes(piece.plain) + _bytes(piece.html) + 32 <= max_bytes:
            yield piece
            continue
        plain = piece.plain.encode()[: max_bytes // 16].decode(errors="ignore")
        yield Piece(plain, escape(plain, quote=False), piece.is_item)


def _part(pieces: Iterable[Piece]) -> Part:
    plain, html, in_list = [], [], False
    for piece in pieces:
        if piece.is_item != in_list:
            html.append("<ul>" if piece.is_item else "</ul>")
            in_list = piece.is_item
        plain.append(f"- {piece.plain}" if piece.is_item else piece.plain)
        html.append(f"<li>{piece.html}</li>" if piece.is_item else piece.html)
    if in_list:
        html.append("</ul>")
    return Part("\n".join(plain), "".join(html))


def _bytes(text: str) -> int:
    """What a text takes in an event, where a quotation mark or an emoji takes more than it does in memory."""
    return len(json.dumps(text, ensure_ascii=False).encode("utf-8", "surrogatepass"))
