"""JSON as Matrix needs it: one canonical encoding, a strict parser for the edge, the limits on values of events.

https://spec.matrix.org/v1.19/appendices/#canonical-json
"""

import json
from typing import Any, Final

import orjson
from canonicaljson import encode_canonical_json as _encode_in_python

MAX_DEPTH: Final = 100
"""How deep objects and arrays may nest in what this server accepts; an object without containers in it has depth 1."""

MAX_WRAPPED_DEPTH: Final = 900
"""How deep JSON may nest whose parts are checked by `check_depth` one by one, so that one of them spoils no others."""

MAX_INTEGER: Final = 2**53 - 1
MIN_INTEGER: Final = -MAX_INTEGER

_INT64_LIMIT: Final = 2.0**63


class JsonError(ValueError):
    """The value or the text is not JSON as Matrix wants it; the message can be shown to who sent it."""


def encode_canonical_json(value: object) -> bytes:
    """Encode a JSON value as Canonical JSON, https://spec.matrix.org/v1.19/appendices/#canonical-json.

    Values that Canonical JSON excludes but room versions 1 to 5 admit (floats, integers of any size) are encoded as
    the specification's Python example encodes them. Raises JsonError for what is no JSON: NaN, infinities, lone
    surrogates, objects of other types, nesting beyond the interpreter's stack.
    """
    try:
        encoded = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:  # integers of more than 64 bits, and all that is no JSON
        return _encode_slowly(value)
    # The C encoder writes exponents in another way than the specification's example, and NaN as null.
    return _encode_slowly(value) if _contains_float(value) else encoded


def encode_checked_json(value: object) -> bytes:
    """Encode a value that passed `check_event_value` as Canonical JSON: the same bytes, without looking for floats."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _contains_float(value: object) -> bool:
    if type(value) is not dict and type(value) is not list:
        return isinstance(value, float)
    pending: list[Any] = [value]
    while pending:
        container = pending.pop()
        for item in container.values() if type(container) is dict else container:
            kind = type(item)
            if kind is float:
                return True
            if kind is dict or kind is list:
                pending.append(item)
    return False


def _encode_slowly(value: object) -> bytes:
    try:
        encoded: bytes = _encode_in_python(value)
    except (ValueError, TypeError, RecursionError) as error:
        raise JsonError(f"not a JSON value: {error}") from error
    return encoded


def parse_json(body: bytes, *, max_depth: int = MAX_DEPTH) -> Any:
    """Parse a JSON text from the network; raise JsonError unless it is unambiguous JSON.

    Refused: encodings other than UTF-8, NaN and infinities, duplicate keys, lone surrogates, nesting beyond
    `max_depth`. Integers of any size stay integers.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise JsonError(f"not JSON: {error}") from error
    string_count, has_huge_number = _measure(value, max_depth)
    # Each key and each string is two quotes; a duplicate key is missing from the parsed value but not from the text.
    if has_huge_number or _count_quotes(body) != 2 * string_count:
        return _parse_slowly(body)
    return value


def _count_quotes(body: bytes) -> int:
    """Count the quotes that begin or end a string."""
    if b"\\" not in body:
        return body.count(b'"')
    # Without the escaped backslashes, every quote after a backslash is an escaped quote.
    rest = body.replace(b"\\\\", b"")
    return rest.count(b'"') - rest.count(b'\\"')


def check_depth(value: object) -> None:
    """Raise JsonError for a JSON value that nests deeper than MAX_DEPTH."""
    _measure(value, MAX_DEPTH)


def _measure(value: object, max_depth: int) -> tuple[int, bool]:
    """Return the number of strings and keys, and whether a number may have lost digits; check the depth.

    Goes level by level instead of calling itself, so that hostile nesting costs no stack.
    """
    string_count = 0
    has_huge_number = False
    depth = 0
    level: list[Any] = [[value]]  # the outer list stands for the text itself
    while level:
        if depth > max_depth:
            raise JsonError(f"nested deeper than {max_depth} levels")
        depth += 1
        below: list[Any] = []
        for container in level:
            if type(container) is dict:
                string_count += len(container)
                container = container.values()
            for item in container:
                kind = type(item)
                if kind is str:
                    string_count += 1
                elif kind is dict or kind is list:
                    below.append(item)
                elif kind is float and abs(item) >= _INT64_LIMIT:
                    has_huge_number = True
        level = below
    return string_count, has_huge_number


def _parse_slowly(body: bytes) -> object:
    try:
        return json.loads(body.decode(), object_pairs_hook=_object_without_duplicates)
    except RecursionError as error:  # deep nesting in a value that a duplicate key hid from the depth check
        raise JsonError(f"nested deeper than {MAX_DEPTH} levels") from error


def _object_without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise JsonError("an object has a duplicate key")
    return result


def check_event_value(value: object) -> None:
    """Raise JsonError unless the value may stand in an event of room versions 6 and later.

    Excluded are floats, integers outside [-(2^53)+1, 2^53-1], lone surrogates, nesting beyond MAX_DEPTH and types
    that JSON does not have. https://spec.matrix.org/v1.19/rooms/v6/#canonical-json
    """
    depth = 0
    level: list[Any] = [[value]]
    while level:
        if depth > MAX_DEPTH:
            raise JsonError(f"nested deeper than {MAX_DEPTH} levels")
        depth += 1
        below: list[Any] = []
        for container in level:
            if type(container) is dict:
                for key in container:
                    _check_string(key)
                container = container.values()
            for item in container:
                kind = type(item)
                if kind is str:
                    if not item.isascii():
                        _check_string(item)
                elif kind is dict or kind is list:
                    below.append(item)
                elif kind is int:
                    if not MIN_INTEGER <= item <= MAX_INTEGER:
                        raise JsonError(f"integer out of range: {item}")
                elif kind is not bool and item is not None:
                    raise JsonError(f"{kind.__name__} values are not allowed in events")
        level = below


def _check_string(text: object) -> None:
    if type(text) is not str:
        raise JsonError("object keys must be strings")
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise JsonError("a string has a lone surrogate") from error


def contains_nul(value: object) -> bool:
    """Tell whether a string or a key in the JSON value contains U+0000, which PostgreSQL's text types cannot hold."""
    try:
        if b"\\u0000" not in orjson.dumps(value):
            return False
    except orjson.JSONEncodeError:  # an integer of more than 64 bits; the walk below decides
        pass
    # The six characters may also come from an escaped backslash before "u0000".
    pending: list[Any] = [value]
    while pending:
        item = pending.pop()
        if type(item) is str:
            if "\0" in item:
                return True
        elif type(item) is dict:
            pending.extend(item)
            pending.extend(item.values())
        elif type(item) is list:
            pending.extend(item)
    return False
