"""What a new event does to its room's running counts and to single members' counts (docs/adr/0004, docs/adr/0007)."""

from __future__ import annotations

from collections.abc import Mapping

from homeserver.services.rooms.event_cache import EventCache
from homeserver.services.rooms.room import CREATE, NotLoaded, Room
from matrix.pdu import Pdu
from matrix.push_rules import (
    DEFAULT_RULES,
    Outcome,
    Recipient,
    RoomContext,
    evaluate,
    evaluate_unmentioned,
)
from storage.stream import Writes
from storage.unread import RoomHighlightRow
from storage.user_data import PersonalCountRow


def display_names(room: Room, events: EventCache) -> dict[str, str]:
    """The names of those members whose rules look for them in messages: few have such rules. Raises NotLoaded."""
    names: dict[str, str] = {}
    if not room.rule_groups:
        return names
    missing = []
    for rules, users in room.rule_groups.groups.items():
        for user_id in users if rules.needs_display_name else ():
            key = ("m.room.member", user_id)
            member = room.tip_event(key)
            if member is None and (position := room.tip_position(key)) is not None:
                member = events.get(position)
                if member is None:
                    missing.append(position)
            name = member.pdu.content.get("displayname") if member is not None else None
            if isinstance(name, str):
                names[user_id] = name
    if missing:
        raise NotLoaded(missing)
    return names


def count_event(
    room: Room, pdu: Pdu, position: int, thread: str | None, names: Mapping[str, str], writes: Writes
) -> bool:
    """Advances the running counts by what an event does for everyone, and notes what it does for some.

    Returns whether it notifies by the default rules. `thread` is None for the main timeline.
    """
    context = room.power_context(pdu.sender) if room.tip_event(CREATE) is not None else None
    if context is None:
        return False
    outcome = evaluate_unmentioned(pdu.json, context)
    room.tip.notify_count += outcome.notify
    room.tip.highlight_count += outcome.highlight
    if outcome.highlight:
        writes.room_highlights.append(RoomHighlightRow(room.room, position))
    if thread is not None:
        row = room.threads.advance(room.room, position, thread, notify=outcome.notify, highlight=outcome.highlight)
        writes.thread_events.append(row)
    named = room.mentions.candidates(pdu.json)
    if room.rule_groups:
        _count_by_own_rules(room, pdu, position, named, names, outcome, context, writes)
        named -= room.rule_groups.by_user.keys()
    for user_id in named:
        personal = evaluate(DEFAULT_RULES, pdu.json, Recipient(user_id, None), context)
        _add(writes, room, user_id, position, personal, outcome)
    return outcome.notify


def _count_by_own_rules(
    room: Room,
    pdu: Pdu,
    position: int,
    named: set[str],
    names: Mapping[str, str],
    outcome: Outcome,
    context: RoomContext,
    writes: Writes,
) -> None:
    """For members with rules of their own: once for all who have the same, and once for each who is singled out."""
    for rules, users in room.rule_groups.groups.items():
        base = None if rules.is_own else outcome
        if rules.needs_display_name:
            single = users
        else:
            single = users & named
            shared = rules.evaluate_unmentioned(pdu.json, context)
            if _differs(shared, base):
                for user_id in users - named - {pdu.sender}:
                    _add(writes, room, user_id, position, shared, base)
        for user_id in single - {pdu.sender}:
            recipient = Recipient(user_id, names.get(user_id))
            _add(writes, room, user_id, position, rules.evaluate(pdu.json, recipient, context), base)


def _differs(personal: Outcome, base: Outcome | None) -> bool:
    if base is None:
        return personal.notify
    return personal.notify != base.notify or personal.highlight != base.highlight


def _add(writes: Writes, room: Room, user_id: str, position: int, personal: Outcome, base: Outcome | None) -> None:
    """Notes what an event does for one member, beyond what the running counts say (`base`, None: they are not used)."""
    if not _differs(personal, base):
        return
    notify, highlight = int(personal.notify), int(personal.highlight)
    if base is not None:
        notify, highlight = notify - base.notify, highlight - base.highlight
    writes.personal_counts.append(PersonalCountRow(room.room, user_id, position, notify, highlight))
