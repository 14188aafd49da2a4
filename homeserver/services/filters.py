"""Filters that clients store, and those that they give inline.

https://spec.matrix.org/v1.19/client-server-api/#filtering
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import orjson

from homeserver.services.errors import BadJson, InvalidParam, MatrixError, NotFound
from matrix.canonical_json import JsonError, encode_canonical_json, parse_json
from matrix.filters import DEFAULT_FILTER, Filter, InvalidFilter, compile_filter
from storage.user_data import UserDataRepository

MAX_FILTERS = 1000
MAX_FILTER_BYTES = 65_536
MAX_CACHED = 10_000


class Filters:
    """Stores filters, and compiles each once."""

    def __init__(self, repository: UserDataRepository) -> None:
        self._repository = repository
        self._cache: OrderedDict[tuple[str, str], Filter] = OrderedDict()

    async def define(self, user_id: str, filter_json: dict[str, Any]) -> str:
        """Stores a filter; returns its ID, the same for the same filter. Raises BadJson."""
        try:
            compile_filter(filter_json)
            encoded = encode_canonical_json(filter_json)
        except (InvalidFilter, JsonError) as error:
            raise BadJson(str(error)) from None
        if len(encoded) > MAX_FILTER_BYTES:
            raise BadJson("The filter is too large")
        filter_id = await self._repository.insert_filter(user_id, encoded, max_filters=MAX_FILTERS)
        if filter_id is None:
            raise MatrixError(400, "M_LIMIT_EXCEEDED", "Too many filters")
        return str(filter_id)

    async def get(self, user_id: str, filter_id: str) -> dict[str, Any]:
        """A stored filter. Raises NotFound."""
        stored = None
        if filter_id.isascii() and filter_id.isdigit() and len(filter_id) < 9:
            stored = await self._repository.load_filter(user_id, int(filter_id))
        if stored is None:
            raise NotFound("No such filter")
        decoded: dict[str, Any] = orjson.loads(stored)
        return decoded

    async def resolve(self, user_id: str, given: str | None) -> Filter:
        """The filter of a request: an ID or JSON; DEFAULT_FILTER when there is none. Raises InvalidParam, NotFound."""
        if not given:
            return DEFAULT_FILTER
        inline = given.startswith("{")
        key = ("" if inline else user_id, given)
        if (known := self._cache.get(key)) is not None:
            self._cache.move_to_end(key)
            return known
        if inline:
            if len(given) > MAX_FILTER_BYTES:
                raise InvalidParam("The filter is too large")
            try:
                filter_json = parse_json(given.encode())
            except (JsonError, UnicodeEncodeError):
                raise InvalidParam("The filter is not JSON") from None
        else:
            filter_json = await self.get(user_id, given)
        try:
            compiled = compile_filter(filter_json)
        except InvalidFilter as error:
            raise InvalidParam(f"The filter is not valid: {error}") from None
        self._cache[key] = compiled
        if len(self._cache) > MAX_CACHED:
            self._cache.popitem(last=False)
        return compiled
