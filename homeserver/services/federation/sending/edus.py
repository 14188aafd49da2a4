"""EDUs as they wait: each about one thing, put together by type when they are sent.

https://spec.matrix.org/v1.19/server-server-api/#edus
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple


class Edu(NamedTuple):
    """An EDU of its own, or a part of one: several receipts, and the presence of several users, go into one."""

    edu_type: str
    content: dict[str, Any]


def combine(edus: Iterable[Edu]) -> list[dict[str, Any]]:
    """The EDUs of a transaction, in order; receipts are joined by room, and what is told of users' presence."""
    combined: list[dict[str, Any]] = []
    receipts: list[dict[str, Any]] = []
    presence: list[dict[str, Any]] = []
    for edu_type, content in edus:
        if edu_type == "m.receipt":
            if not any(_add_receipts(known, content) for known in receipts):
                receipts.append(content := _copy(content))
                combined.append({"edu_type": edu_type, "content": content})
        elif edu_type == "m.presence":
            if not presence:
                combined.append({"edu_type": edu_type, "content": {"push": presence}})
            presence += content["push"]
        else:
            combined.append({"edu_type": edu_type, "content": content})
    return combined


def _copy(content: dict[str, Any]) -> dict[str, Any]:
    return {room_id: {kind: dict(readers) for kind, readers in kinds.items()} for room_id, kinds in content.items()}


def _add_receipts(known: dict[str, Any], content: dict[str, Any]) -> bool:
    """Adds receipts, unless one of the same user in the same room is there: they are of different threads."""
    for room_id, kinds in content.items():
        for kind, readers in kinds.items():
            if not readers.keys().isdisjoint(known.get(room_id, {}).get(kind, {})):
                return False
    for room_id, kinds in content.items():
        for kind, readers in kinds.items():
            known.setdefault(room_id, {}).setdefault(kind, {}).update(readers)
    return True
