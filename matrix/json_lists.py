"""A JSON object whose long lists are cut into their items as the text arrives, so that the whole never has to be held.

What servers answer to a join is such an object: `state` and `auth_chain` have an event for each member of a room.
https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from matrix.canonical_json import JsonError, parse_json

MAX_ITEM_BYTES: Final = 256 * 1024
"""The longest text of an item: an event has 65,536 bytes, but may be written with more escapes and blanks."""
MAX_REST_BYTES: Final = 4 * 1024 * 1024
"""The most text of what is in no list."""

# A whole string, the quote of one whose end has not arrived yet, or what opens and closes.
_TOKEN: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|["{}\[\]]', re.DOTALL)
_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_BLANK: Final = re.compile(rb"[ \t\r\n]*")
# The end of a number or a word.
_SCALAR_END: Final = re.compile(rb"[,}\] \t\r\n]")


class _NeedsMore(Exception):
    """The text goes on in the next piece."""


class ListSplitter:
    """Cuts the lists named in `lists` (key -> the most items that it may have) into items, each an object.

    Items are handed out as text, which is yet to be parsed; that the rest is JSON is checked by `finish`. A list that
    comes twice is refused, as is any that is too long.
    """

    def __init__(self, lists: Mapping[str, int]) -> None:
        self._lists = lists
        self._buffer = bytearray()
        self._at = 0
        self._rest = bytearray(b"{")
        self._seen: set[str] = set()
        self._list: str | None = None
        self._count = 0
        self._step = self._begin
        self._items: list[tuple[str, bytes]] = []
        self._enough = 0

    def feed(self, data: bytes) -> list[tuple[str, bytes]]:
        """Takes the next piece of the text; returns the items that are whole by now, with their lists. Raises
        JsonError.
        """
        self._buffer += data
        self._items = []
        if len(self._buffer) >= self._enough:
            self._go_on()
        if len(self._buffer) > self._limit:
            raise JsonError("an item is too long")
        return self._items

    @property
    def _limit(self) -> int:
        """How much text may wait for its end."""
        return MAX_ITEM_BYTES if self._list is not None else MAX_REST_BYTES

    def _go_on(self) -> None:
        try:
            while True:
                self._skip_blanks()
                self._step()
        except _NeedsMore:
            del self._buffer[: self._at]
            self._at = 0
            # What is not whole is looked at anew from its beginning, but not at each piece: that would take for ever.
            self._enough = min(2 * len(self._buffer), self._limit)

    def finish(self) -> tuple[list[tuple[str, bytes]], dict[str, Any]]:
        """The last items, and the object without its lists, at the end of the text.

        A list that was not there is not in it, one that was is empty. Raises JsonError for a text that is not whole.
        """
        self._items = []
        self._go_on()
        if self._step != self._end or self._buffer:
            raise JsonError("the text ends too early, or too late")
        rest: dict[str, Any] = parse_json(bytes(self._rest))
        return self._items, rest

    def _skip_blanks(self) -> None:
        match = _BLANK.match(self._buffer, self._at)
        assert match is not None
        self._at = match.end()
        if self._at >= len(self._buffer):
            raise _NeedsMore

    def _take(self, expected: bytes) -> bytes:
        """The next character, one of those."""
        found = bytes(self._buffer[self._at : self._at + 1])
        if found not in expected:
            raise JsonError("not an object as it should be")
        self._at += 1
        return found

    def _begin(self) -> None:
        self._take(b"{")
        self._step = self._first_key

    def _first_key(self) -> None:
        if self._buffer[self._at] == 0x7D:  # }
            self._close()
        else:
            self._key()

    def _key(self) -> None:
        """A key, its colon, and where its value begins."""
        match = _STRING.match(self._buffer, self._at)
        if match is None:
            if self._buffer[self._at] == 0x22:  # a quote
                raise _NeedsMore
            raise JsonError("a key is missing")
        start = self._at
        try:
            self._at = match.end()
            self._skip_blanks()
            self._take(b":")
            self._skip_blanks()
        except _NeedsMore:
            self._at = start
            raise
        key = parse_json(match.group())
        self._rest += match.group() + b":"
        if key in self._lists and self._buffer[self._at] == 0x5B:  # [
            if key in self._seen:
                raise JsonError("a list comes twice")
            self._seen.add(key)
            self._rest += b"[]"
            self._list, self._count = key, 0
            self._at += 1
            self._step = self._first_item
        else:
            self._step = self._value

    def _value(self) -> None:
        """The value of a key that is in no list."""
        self._rest += self._take_value()
        if len(self._rest) > MAX_REST_BYTES:
            raise JsonError("too long beside its lists")
        self._step = self._after_value

    def _after_value(self) -> None:
        if self._take(b",}") == b",":
            self._rest += b","
            self._step = self._key
        else:
            self._at -= 1
            self._close()

    def _close(self) -> None:
        self._at += 1
        self._rest += b"}"
        self._step = self._end

    def _end(self) -> None:
        raise JsonError("something follows the object")

    def _first_item(self) -> None:
        if self._buffer[self._at] == 0x5D:  # ]
            self._end_list()
        else:
            self._item()

    def _item(self) -> None:
        if self._buffer[self._at] != 0x7B:  # {
            raise JsonError("an item of a list is no object")
        item = self._take_value()
        self._count += 1
        assert self._list is not None
        if len(item) > MAX_ITEM_BYTES:
            raise JsonError("an item is too long")
        if self._count > self._lists[self._list]:
            raise JsonError("a list is too long")
        self._items.append((self._list, item))
        self._step = self._after_item

    def _after_item(self) -> None:
        if self._take(b",]") == b",":
            self._step = self._item
        else:
            self._at -= 1
            self._end_list()

    def _end_list(self) -> None:
        self._at += 1
        self._list = None
        self._step = self._after_value

    def _take_value(self) -> bytes:
        """The text of a whole value. Raises _NeedsMore, and stays where it is then."""
        start = self._at
        first = self._buffer[start]
        if first in b"{[":
            end = self._end_of_container()
        elif first == 0x22:
            match = _STRING.match(self._buffer, start)
            if match is None:
                raise _NeedsMore
            end = match.end()
        else:
            match = _SCALAR_END.search(self._buffer, start)
            if match is None:
                raise _NeedsMore
            end = match.start()
        self._at = end
        return bytes(self._buffer[start:end])

    def _end_of_container(self) -> int:
        depth = 0
        for match in _TOKEN.finditer(self._buffer, self._at):
            if match.end() - match.start() > 1:
                continue  # a string
            character = self._buffer[match.start()]
            if character in b"{[":
                depth += 1
            elif character in b"}]":
                depth -= 1
                if not depth:
                    return match.end()
            else:
                break  # a string that goes on
        raise _NeedsMore
