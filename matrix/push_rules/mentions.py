"""Evaluating the default rules for a whole room, with no work per member.

Users with default rules differ in their Matrix ID alone, and two of those rules look at it: `.m.rule.invite_for_me`
and `.m.rule.is_user_mention`. For everybody whom an event does not name there, it does the same. Since v1.17 of the
specification a name in the body is not a mention, so neither display names nor the text of messages matter here.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from matrix.globs import fold_case, has_wildcard
from matrix.push_rules.predefined import predefined_override_rules, predefined_underride_rules
from matrix.push_rules.ruleset import compile_ruleset, evaluate
from matrix.push_rules.values import Outcome, Recipient, RoomContext

_PERSONAL_RULE_IDS: Final = frozenset({".m.rule.invite_for_me", ".m.rule.is_user_mention"})

# "*" is no Matrix ID: it has no sigil. Nobody is both the sender of an event and this.
_NOBODY: Final = Recipient(user_id="*", display_name=None)

_IMPERSONAL_RULES: Final = compile_ruleset(
    {
        "override": [
            rule for rule in predefined_override_rules(_NOBODY.user_id) if rule["rule_id"] not in _PERSONAL_RULE_IDS
        ],
        "underride": predefined_underride_rules(),
    }
)


def evaluate_unmentioned(event: Mapping[str, object], room: RoomContext) -> Outcome:
    """What `event` does for every user who has the default rules, is not its sender, and is not singled out by it."""
    return evaluate(_IMPERSONAL_RULES, event, _NOBODY, room)


class MentionIndex:
    """The local users of one room, for finding those whom an event singles out.

    Add the users who are invited as well as those who are joined: the invited user before the invite is evaluated.
    """

    __slots__ = ("_loosely_named", "_user_ids")

    def __init__(self, user_ids: Iterable[str] = ()) -> None:
        self._user_ids: set[str] = set()
        # An invite finds its user by a case-insensitive glob, as all `event_match`es do. The few users whose IDs look
        # different to that than to `==` are candidates for every invite. Such IDs are historical: a server gives out
        # none of them any more (https://spec.matrix.org/v1.19/appendices/#historical-user-ids).
        self._loosely_named: set[str] = set()
        for user_id in user_ids:
            self.add(user_id)

    def add(self, user_id: str) -> None:
        """Take in a user; nothing changes if they are in already."""
        self._user_ids.add(user_id)
        if has_wildcard(user_id) or fold_case(user_id) != user_id:
            self._loosely_named.add(user_id)

    def remove(self, user_id: str) -> None:
        """Let go of a user; nothing changes if they are not in."""
        self._user_ids.discard(user_id)
        self._loosely_named.discard(user_id)

    def candidates(self, event: Mapping[str, object]) -> set[str]:
        """Every user of the index for whom `evaluate` by default rules can differ from `evaluate_unmentioned`.

        The cost depends on how many users the event names, not on how many the room has. The sender is never among
        them: for the sender no event does anything, and that is not for this index to find out.
        """
        content = event.get("content")
        if not isinstance(content, dict):
            return set()
        named: set[str] = set()
        mentions = content.get("m.mentions")
        if isinstance(mentions, dict):
            user_ids = mentions.get("user_ids")
            if isinstance(user_ids, list):
                named.update(user_id for user_id in user_ids if isinstance(user_id, str) and user_id in self._user_ids)
        if "membership" in content:
            named |= self._invited(event, content["membership"])
        sender = event.get("sender")
        if isinstance(sender, str):
            named.discard(sender)
        return named

    def _invited(self, event: Mapping[str, object], membership: object) -> set[str]:
        event_type, state_key = event.get("type"), event.get("state_key")
        if not (isinstance(event_type, str) and isinstance(membership, str) and isinstance(state_key, str)):
            return set()
        if fold_case(event_type) != "m.room.member" or fold_case(membership) != "invite":
            return set()
        return ({fold_case(state_key)} & self._user_ids) | self._loosely_named
