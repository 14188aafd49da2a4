"""Push rules: which events notify whom, and how loudly.

https://spec.matrix.org/v1.19/client-server-api/#push-rules

A rule set is compiled once (`compile_ruleset`) and then evaluated for any number of events and, where it is the
default one, for any number of users. For a room full of people with default rules there is less to do still: an event
is evaluated once for all whom it does not single out (`evaluate_unmentioned`), and once for each that it does
(`MentionIndex`).
"""

from matrix.push_rules.counting import CountingRules, UserRules
from matrix.push_rules.mentions import MentionIndex, evaluate_unmentioned
from matrix.push_rules.predefined import default_ruleset
from matrix.push_rules.pushing import PushingRules, pushing_rules
from matrix.push_rules.ruleset import DEFAULT_RULES, KINDS, RuleSet, compile_ruleset, evaluate
from matrix.push_rules.values import NO_NOTIFICATION, Outcome, Recipient, RoomContext

__all__ = [
    "DEFAULT_RULES",
    "KINDS",
    "NO_NOTIFICATION",
    "CountingRules",
    "MentionIndex",
    "Outcome",
    "PushingRules",
    "Recipient",
    "RoomContext",
    "RuleSet",
    "UserRules",
    "compile_ruleset",
    "default_ruleset",
    "evaluate",
    "evaluate_unmentioned",
    "pushing_rules",
]
