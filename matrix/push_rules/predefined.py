"""The rules that every user starts with.

https://spec.matrix.org/v1.19/client-server-api/#predefined-rules
"""

from typing import Any, Final

SOUND_DEFAULT: Final = {"set_tweak": "sound", "value": "default"}
HIGHLIGHT: Final = {"set_tweak": "highlight"}

LEGACY_MENTION_RULE_IDS: Final = frozenset(
    {".m.rule.contains_display_name", ".m.rule.contains_user_name", ".m.rule.roomnotif"}
)
"""Rules that looked for mentions in the body, until v1.17 removed them.

A stored rule set can still hold them. They do not apply to an event that has `m.mentions`.
https://spec.matrix.org/v1.19/client-server-api/#user-and-room-mentions
"""


def _rule(rule_id: str, conditions: list[object], *actions: object, enabled: bool = True) -> dict[str, object]:
    return {
        "rule_id": rule_id,
        "default": True,
        "enabled": enabled,
        "conditions": conditions,
        "actions": [dict(action) if isinstance(action, dict) else action for action in actions],
    }


def _matches(key: str, pattern: object) -> dict[str, object]:
    return {"kind": "event_match", "key": key, "pattern": pattern}


def _member_count(number: str) -> dict[str, object]:
    return {"kind": "room_member_count", "is": number}


def predefined_override_rules(user: object) -> list[dict[str, Any]]:
    """The override rules, in the specification's order. `user` stands where "the user's Matrix ID" is called for."""
    mentions_user = {"kind": "event_property_contains", "key": r"content.m\.mentions.user_ids", "value": user}
    mentions_room = {"kind": "event_property_is", "key": r"content.m\.mentions.room", "value": True}
    is_edit = {"kind": "event_property_is", "key": r"content.m\.relates_to.rel_type", "value": "m.replace"}
    invites = [_matches("type", "m.room.member"), _matches("content.membership", "invite"), _matches("state_key", user)]
    return [
        _rule(".m.rule.master", [], enabled=False),
        _rule(".m.rule.suppress_notices", [_matches("content.msgtype", "m.notice")]),
        _rule(".m.rule.invite_for_me", [*invites], "notify", SOUND_DEFAULT),
        _rule(".m.rule.member_event", [_matches("type", "m.room.member")]),
        _rule(".m.rule.is_user_mention", [mentions_user], "notify", SOUND_DEFAULT, HIGHLIGHT),
        _rule(
            ".m.rule.is_room_mention",
            [mentions_room, {"kind": "sender_notification_permission", "key": "room"}],
            "notify",
            HIGHLIGHT,
        ),
        _rule(
            ".m.rule.tombstone",
            [_matches("type", "m.room.tombstone"), _matches("state_key", "")],
            "notify",
            HIGHLIGHT,
        ),
        _rule(".m.rule.reaction", [_matches("type", "m.reaction")]),
        _rule(".m.rule.room.server_acl", [_matches("type", "m.room.server_acl"), _matches("state_key", "")]),
        _rule(".m.rule.suppress_edits", [is_edit]),
    ]


def predefined_underride_rules() -> list[dict[str, Any]]:
    """The underride rules, in the specification's order."""
    return [
        _rule(".m.rule.call", [_matches("type", "m.call.invite")], "notify", {"set_tweak": "sound", "value": "ring"}),
        _rule(
            ".m.rule.encrypted_room_one_to_one",
            [_member_count("2"), _matches("type", "m.room.encrypted")],
            "notify",
            SOUND_DEFAULT,
        ),
        _rule(
            ".m.rule.room_one_to_one",
            [_member_count("2"), _matches("type", "m.room.message")],
            "notify",
            SOUND_DEFAULT,
        ),
        _rule(".m.rule.message", [_matches("type", "m.room.message")], "notify"),
        _rule(".m.rule.encrypted", [_matches("type", "m.room.encrypted")], "notify"),
    ]


def default_ruleset(user_id: str) -> dict[str, list[dict[str, Any]]]:
    """The rule set of a user who has changed nothing, as the client-server API spells it.

    The value is the caller's own: changing it changes nothing else.
    """
    return {
        "override": predefined_override_rules(user_id),
        "content": [],
        "room": [],
        "sender": [],
        "underride": predefined_underride_rules(),
    }
