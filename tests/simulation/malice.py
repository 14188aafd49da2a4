"""What a malicious server of a simulation does to what it sends: nothing that any other would have to believe.

It may lie about the state of a room at an event of its own, as the protocol has others take its word for that: where
states are told, all of an answer is nonsense, or nothing. The contents of events stay what they are: an event that does
not match its hash is taken in redacted, and is another one then to those who see it so.
"""

from __future__ import annotations

import copy
import random
from typing import Any

STATES = ("/state/", "/state_ids/", "/send_join/", "/event/")
"""In paths of requests whose answers are believed."""
NONSENSE: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, 2**63, 10**30, "", "a", "\0", "$a:b", "!a:b", "@a:b", [], {}, [[]], [None], {"a": None}
)  # fmt: skip


class Malice:
    """Spoils a share of what one server says."""

    def __init__(self, rng: random.Random, server_name: str, share: float) -> None:
        self._rng = rng
        self.server_name = server_name
        self.share = share

    def request(self, origin: str, target: str, content: Any) -> Any:
        """The content of a request of a server, as it comes."""
        if not self._strikes(origin) or not isinstance(content, dict):
            return content
        content = copy.deepcopy(content)
        if "/send/" in target and content.get("pdus"):
            self._spoil_events(content["pdus"])
        else:
            content[self._rng.choice([*content, "type"])] = self._rng.choice(NONSENSE)
        return content

    def answer(self, server_name: str, target: str, answer: Any) -> Any:
        """The answer of a server, as it comes."""
        if not self._strikes(server_name) or "/event/" in target:
            return answer
        if any(path in target for path in STATES) or not isinstance(answer, dict) or not answer:
            return self._rng.choice(NONSENSE)
        answer = copy.deepcopy(answer)
        name = self._rng.choice(list(answer))
        if isinstance(answer[name], list) and answer[name] and self._rng.random() < 0.7:
            self._spoil_events(answer[name])
        else:
            answer[name] = self._rng.choice(NONSENSE)
        return answer

    def _strikes(self, server_name: str) -> bool:
        return server_name == self.server_name and self._rng.random() < self.share

    def _spoil_events(self, events: list[Any]) -> None:
        place = self._rng.randrange(len(events))
        event = events[place]
        match self._rng.randrange(5):
            case 0:
                del events[place]
            case 1:
                events.append(copy.deepcopy(event))
            case 2:
                self._rng.shuffle(events)
            case 3:
                events[place] = self._rng.choice(NONSENSE)
            case _ if isinstance(event, dict):
                name = self._rng.choice([name for name in event if name not in ("content", "unsigned")])
                event[name] = self._rng.choice((*NONSENSE, event[self._rng.choice(list(event))]))
            case _:
                pass
