"""The keys of other servers: from memory, from the database, from the servers themselves, from notaries.

https://spec.matrix.org/v1.19/server-server-api/#retrieving-server-keys
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from config.schema import Signing
from homeserver.clock import Clock
from homeserver.logs import get_logger
from homeserver.metrics import Metrics
from homeserver.services.remote import RemoteFailure, RemoteMisbehaved, Transport
from matrix.canonical_json import MAX_INTEGER, encode_canonical_json
from matrix.identifiers import is_server_name
from matrix.server_keys import MAX_VALIDITY_MS, ServerKeys, ServerKeysError, parse_server_keys
from matrix.signatures import SigningKey, VerifyKey, signature_key_ids, verify_json_signature
from storage.server_keys import MAX_KEYS_OF_SERVER, ServerKeyAnswer, ServerKeyRepository, ServerKeyRow

log = get_logger(__name__)

SERVER_PATH = "/_matrix/key/v2/server"
QUERY_PATH = "/_matrix/key/v2/query"
MAX_ANSWER_BYTES = 128 * 1024
MAX_NOTARY_ANSWER_BYTES = 1024 * 1024
FETCH_TIMEOUT_MS = 15_000
MAX_FETCHES = 64
MAX_WAITING_FETCHES = 2_000
# How long what a fetch brought, or that it failed, is the last word.
FETCH_AGAIN_AFTER_MS = 60_000
MAX_NOTARY_ANSWERS = 50


class _Keys:
    """What is known of one server: its keys, which of them are out of use, and when to fetch again at the earliest.

    `asked_notaries` is whether notaries were asked, too, since the server itself was.
    """

    __slots__ = ("asked_notaries", "fetch_again_ts", "old", "verify_keys")

    def __init__(self) -> None:
        self.verify_keys: dict[str, VerifyKey] = {}
        self.old: set[str] = set()
        self.fetch_again_ts = 0
        self.asked_notaries = False


class ServerKeyRing:
    """The `KeyRing` of this server, and what it knows as a notary."""

    def __init__(
        self,
        transport: Transport,
        rows: ServerKeyRepository,
        metrics: Metrics,
        clock: Clock,
        *,
        server_name: str,
        signing_key: SigningKey,
        signing: Signing,
        notaries: Sequence[str],
        max_servers: int,
    ) -> None:
        self._transport = transport
        self._rows = rows
        self._metrics = metrics
        self._clock = clock
        self._server_name = server_name
        self._notaries = [name for name in notaries if name != server_name]
        self._max_servers = max_servers
        self._servers: OrderedDict[str, _Keys] = OrderedDict()
        self._figures = metrics.cache("server_keys", lambda: len(self._servers))
        self._fetching: dict[str, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(MAX_FETCHES)
        self._notary_lock = asyncio.Lock()
        self._own = {
            old.key_id: VerifyKey.from_base64(old.key_id, old.public_key, old.expired_ts, is_old=True)
            for old in signing.old_keys
        }
        self._own[signing_key.key_id] = VerifyKey(signing_key.key_id, signing_key.public_key, MAX_INTEGER)

    async def verify_keys(
        self, server_name: str, key_ids: Iterable[str], *, valid_at_ms: int
    ) -> Mapping[str, VerifyKey]:
        """See `KeyRing.verify_keys`."""
        wanted = [key_id for key_id in dict.fromkeys(key_ids) if key_id.startswith("ed25519:")]
        if server_name == self._server_name:
            return _valid(self._own, wanted, valid_at_ms)
        if not is_server_name(server_name) or not wanted:
            return {}
        keys = await self._load(server_name)
        for _ in range(2):  # a fetch that was under way may have been for other keys
            if not self._is_worth_a_fetch(keys, wanted, valid_at_ms) and not self._are_for_notaries(keys, wanted):
                break
            await self._fetch_once(server_name, keys, wanted, valid_at_ms)
        return _valid(keys.verify_keys, wanted, valid_at_ms)

    def known_key(self, server_name: str, key_id: str, *, valid_at_ms: int) -> VerifyKey | None:
        """The key if it is in memory and valid at the time."""
        if server_name == self._server_name:
            found = self._own
        else:
            keys = self._servers.get(server_name)
            if keys is None:
                return None
            self._servers.move_to_end(server_name)
            found = keys.verify_keys
        return _valid(found, (key_id,), valid_at_ms).get(key_id)

    async def load_answer(
        self, server_name: str, key_ids: Mapping[str, int], *, valid_at_ms: int
    ) -> ServerKeyAnswer | None:
        """The newest answer of a server about its keys, for a notary to sign; None where none was ever had.

        It is fetched unless the one at hand is valid at `valid_at_ms`, and has the keys that are asked for, each
        valid at its own time (ms since the epoch). https://spec.matrix.org/v1.19/server-server-api/#querying-keys-through-another-server
        """
        keys = await self._load(server_name)
        answer = await self._rows.load_answer(server_name)
        now = self._clock()
        is_stale = answer is None or answer.valid_until_ts < min(valid_at_ms, now + MAX_VALIDITY_MS)
        # A notary answers from what it has for half of the lifetime, https://spec.matrix.org/v1.19/server-server-api/#get_matrixkeyv2server
        if answer is not None and now - answer.fetched_ts > (answer.valid_until_ts - answer.fetched_ts) // 2:
            is_stale = True
        lacks = any(self._is_worth_a_fetch(keys, [key_id], wanted_ts) for key_id, wanted_ts in key_ids.items())
        if (is_stale or lacks) and now >= keys.fetch_again_ts:
            await self._fetch_once(server_name, keys, list(key_ids), valid_at_ms)
            answer = await self._rows.load_answer(server_name)
        return answer

    async def close(self) -> None:
        """Ends what is under way."""
        tasks = tuple(self._fetching.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _load(self, server_name: str) -> _Keys:
        keys = self._servers.get(server_name)
        if keys is not None:
            self._figures.hits += 1
            self._servers.move_to_end(server_name)
            return keys
        self._figures.misses += 1
        rows = await self._rows.load_keys(server_name)
        keys = self._servers.setdefault(server_name, _Keys())  # another request may have been faster
        for row in rows:
            keys.verify_keys.setdefault(row.key_id, _key_of(row))
            if row.is_old:
                keys.old.add(row.key_id)
        if len(self._servers) > self._max_servers:
            self._servers.popitem(last=False)
        return keys

    def _is_worth_a_fetch(self, keys: _Keys, wanted: Sequence[str], valid_at_ms: int) -> bool:
        """Whether a key is missing, or one in use may live longer than is known, and it is not too soon to ask."""
        now = self._clock()
        if now < keys.fetch_again_ts:
            return False
        for key_id in wanted:
            key = keys.verify_keys.get(key_id)
            if key is None:
                return True
            if key.valid_until_ts < valid_at_ms <= now + MAX_VALIDITY_MS and key_id not in keys.old:
                return True
        return False

    def _are_for_notaries(self, keys: _Keys, wanted: Sequence[str]) -> bool:
        """Whether there are keys that the server itself did not tell a moment ago, and notaries have not been asked."""
        if not self._notaries or keys.asked_notaries or self._clock() >= keys.fetch_again_ts:
            return False
        return any(key_id not in keys.verify_keys for key_id in wanted)

    async def _fetch_once(self, server_name: str, keys: _Keys, wanted: Sequence[str], valid_at_ms: int) -> None:
        """Fetches, or waits for a fetch that is under way: all who ask share one."""
        task = self._fetching.get(server_name)
        if task is None:
            if len(self._fetching) >= MAX_WAITING_FETCHES:
                return
            task = asyncio.create_task(
                self._fetch(server_name, keys, wanted, valid_at_ms), name=f"keys of {server_name}"
            )
            self._fetching[server_name] = task
            task.add_done_callback(lambda _: self._fetching.pop(server_name, None))
        await asyncio.shield(task)

    async def _fetch(self, server_name: str, keys: _Keys, wanted: Sequence[str], valid_at_ms: int) -> None:
        """1. From the server itself, but a moment ago. 2. What that did not bring from the notaries, one by one."""
        async with self._slots:
            has_answered = True
            if self._clock() >= keys.fetch_again_ts:
                keys.asked_notaries = False
                has_answered = await self._fetch_from_server(server_name, keys)
            if not has_answered or self._lacks(keys, wanted, valid_at_ms):
                keys.asked_notaries = True
                for notary in self._notaries:
                    if notary == server_name:
                        continue
                    await self._fetch_from_notary(notary, server_name, keys, valid_at_ms)
                    if not self._lacks(keys, wanted, valid_at_ms):
                        break
        keys.fetch_again_ts = self._clock() + FETCH_AGAIN_AFTER_MS

    def _lacks(self, keys: _Keys, wanted: Sequence[str], valid_at_ms: int) -> bool:
        return any(key_id not in _valid(keys.verify_keys, wanted, valid_at_ms) for key_id in wanted)

    async def _fetch_from_server(self, server_name: str, keys: _Keys) -> bool:
        try:
            answer = await self._transport.request(
                server_name, "GET", SERVER_PATH, timeout_ms=FETCH_TIMEOUT_MS, max_bytes=MAX_ANSWER_BYTES
            )
            now = self._clock()
            found = _parse(server_name, answer, server_name, now)
        except RemoteFailure as failure:
            self._count("server", server_name, failure)
            return False
        self._count("server", server_name, None)
        await self._take_in(found, answer, now, keys, from_notary=False)
        return True

    async def _fetch_from_notary(self, notary: str, server_name: str, keys: _Keys, valid_at_ms: int) -> None:
        now = self._clock()
        wanted_ts = min(max(valid_at_ms, now), now + MAX_VALIDITY_MS)
        try:
            answers = await self._transport.request(
                notary,
                "GET",
                f"{QUERY_PATH}/{quote(server_name, safe='')}",
                query=[("minimum_valid_until_ts", str(wanted_ts))],
                timeout_ms=FETCH_TIMEOUT_MS,
                max_bytes=MAX_NOTARY_ANSWER_BYTES,
            )
            about = _answers_about(notary, answers, server_name)
            signers = await self._keys_of_notary(notary, about)
            found = [
                (_parse(notary, answer, server_name, now), answer)
                for answer in about
                if any(verify_json_signature(answer, notary, key.key_id, key.public_key) for key in signers.values())
            ]
            if not found:
                raise RemoteMisbehaved(notary, f"no keys of {server_name} with a valid signature")
        except RemoteFailure as failure:
            self._count("notary", server_name, failure)
            return
        self._count("notary", server_name, None)
        for parsed, answer in found:
            await self._take_in(parsed, answer, now, keys, from_notary=True)

    async def _keys_of_notary(self, notary: str, answers: Sequence[dict[str, Any]]) -> dict[str, VerifyKey]:
        """The keys that a notary says it signed answers with, from itself alone: no notary vouches for another."""
        key_ids = {key_id for answer in answers for key_id in signature_key_ids(answer, notary)}
        async with self._notary_lock:
            keys, now = await self._load(notary), self._clock()
            if self._is_worth_a_fetch(keys, list(key_ids), now):
                await self._fetch_from_server(notary, keys)
                keys.fetch_again_ts = self._clock() + FETCH_AGAIN_AFTER_MS
        return _valid(keys.verify_keys, key_ids, now)

    def _count(self, source: str, server_name: str, failure: RemoteFailure | None) -> None:
        self._metrics.server_key_fetches.labels(source, "ok" if failure is None else "failed").inc()
        if failure is not None:
            log.info("no keys", server=server_name, source=source, reason=str(failure))

    async def _take_in(
        self, found: ServerKeys, answer: dict[str, Any], now_ms: int, keys: _Keys, *, from_notary: bool
    ) -> None:
        """Keeps keys, in the database first. What a notary says changes nothing that the server itself said."""
        rows = [
            ServerKeyRow(found.server_name, key.key_id, key.public_key, key.valid_until_ts, is_old)
            for group, is_old in ((found.verify_keys, False), (found.old_verify_keys, True))
            for key in group.values()
        ]
        kept = ServerKeyAnswer(found.server_name, encode_canonical_json(answer), found.valid_until_ts, now_ms)
        await self._rows.persist(kept, rows, from_notary=from_notary)
        for row in rows:
            known = keys.verify_keys.get(row.key_id)
            if (
                from_notary
                and known is not None
                and (row.key_id in keys.old or known.valid_until_ts >= row.valid_until_ts)
            ):
                continue
            keys.verify_keys[row.key_id] = _key_of(row)
            if row.is_old:
                keys.old.add(row.key_id)
            else:
                keys.old.discard(row.key_id)
        if len(keys.verify_keys) > MAX_KEYS_OF_SERVER:
            self._servers.pop(found.server_name, None)  # the database keeps the newest


def _key_of(row: ServerKeyRow) -> VerifyKey:
    return VerifyKey(row.key_id, row.public_key, row.valid_until_ts, row.is_old)


def _valid(keys: Mapping[str, VerifyKey], wanted: Iterable[str], valid_at_ms: int) -> dict[str, VerifyKey]:
    found = ((key_id, keys.get(key_id)) for key_id in wanted)
    return {key_id: key for key_id, key in found if key is not None and key.valid_until_ts >= valid_at_ms}


def _parse(source: str, answer: Any, server_name: str, now_ms: int) -> ServerKeys:
    try:
        return parse_server_keys(answer, server_name, fetched_ts=now_ms)
    except ServerKeysError as error:
        raise RemoteMisbehaved(source, str(error)) from None


def _answers_about(notary: str, answers: Any, server_name: str) -> list[dict[str, Any]]:
    """The entries of a notary's answer that are about a server. Raises RemoteMisbehaved."""
    entries = answers.get("server_keys") if isinstance(answers, dict) else None
    if not isinstance(entries, list) or len(entries) > MAX_NOTARY_ANSWERS:
        raise RemoteMisbehaved(notary, "the answer is no list of keys")
    return [entry for entry in entries if isinstance(entry, dict) and entry.get("server_name") == server_name]
