"""Those members of a room whose push rules count otherwise than the default ones, by what they count."""

from __future__ import annotations

from matrix.push_rules import CountingRules


class RuleGroups:
    """The joined members of a room with rules of their own, as the next event finds them.

    False when there are none: then nothing is to be done but what is done for everyone.
    """

    __slots__ = ("by_user", "groups")

    def __init__(self) -> None:
        self.by_user: dict[str, CountingRules] = {}
        self.groups: dict[CountingRules, set[str]] = {}

    def __bool__(self) -> bool:
        return bool(self.by_user)

    def set(self, user_id: str, rules: CountingRules | None) -> None:
        """Notes a member's rules; None for the default ones, and for who is no member any more."""
        before = self.by_user.pop(user_id, None)
        if before is not None:
            users = self.groups[before]
            users.discard(user_id)
            if not users:
                del self.groups[before]
        if rules is not None:
            self.by_user[user_id] = rules
            self.groups.setdefault(rules, set()).add(user_id)
