"""How the facts of many chunks are folded into one answer. Pure: which folds are made, not how.

Few facts are folded at once. Many are folded in groups first, and groups of groups, so that none is left out of a long
history; groups end where the keys of their chunks say so, and are found again when the history has grown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from appservices.summary_bot.engines.models.cache import Node
from appservices.summary_bot.engines.models.facts import MAX_ITEMS, Fact

MAX_FACTS = 240
"""How many facts are folded at once."""

MIN_GROUP, MAX_GROUP = 3, 10
MAX_GROUP_FACTS = 120
GROUP_END_ONE_IN = 4
_WEIGHT = {"decision": 0, "action": 1, "disagreement": 2, "open_question": 3, "outcome": 4}


def facts_of(nodes: Iterable[Node]) -> list[Fact]:
    """All facts of some nodes, in order."""
    return [fact for node in nodes for fact in node.facts]


def groups_of(nodes: Sequence[Node]) -> list[list[Node]]:
    """Nodes in groups that are folded each by itself."""
    groups: list[list[Node]] = [[]]
    for node in nodes:
        groups[-1].append(node)
        size = len(groups[-1])
        is_full = size >= MAX_GROUP or len(facts_of(groups[-1])) >= MAX_GROUP_FACTS
        if size >= MIN_GROUP and (is_full or node.key[0] % GROUP_END_ONE_IN == 0):
            groups.append([])
    return [group for group in groups if group]


def pays_to_grow(beginning: Node, rest: Sequence[Node], all_nodes: Sequence[Node]) -> bool:
    """Whether an earlier answer and what is new are folded, in the place of everything. Not once more is new than was
    folded then: an answer that only ever grows forgets."""
    new = len(facts_of(rest))
    return 2 * new <= len(facts_of(all_nodes)) and len(beginning.facts) + new <= MAX_FACTS


def heaviest(facts: Sequence[Fact]) -> list[Fact]:
    """As many facts as one fold brings at most, decisions and actions first: for a model that folds all away."""
    ranked = sorted(range(len(facts)), key=lambda place: (_WEIGHT[facts[place].kind], place))
    return [facts[place] for place in sorted(ranked[:MAX_ITEMS])]
