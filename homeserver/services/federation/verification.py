"""The first three checks on an event of another server: its format, its signatures, its hash.

https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import orjson

from homeserver.services.remote import KeyRing
from matrix.canonical_json import JsonError, parse_json
from matrix.hashes import content_hash_matches
from matrix.identifiers import get_domain, is_user_id
from matrix.pdu import InvalidPdu, Pdu, parse_pdu
from matrix.policy_servers import POLICY_KEY_ID
from matrix.redaction import redact_event
from matrix.room_versions import EventIdFormat, RoomVersion
from matrix.signatures import VerifyKey, signature_key_ids, verify_event_signature

IN_THREAD_FROM_EVENTS = 8
"""From how many events on signatures are checked in a thread: libsodium lets go of the interpreter meanwhile."""

YIELD_AFTER_EVENTS = 500
"""How many events are parsed before others get their turn: the state of a large room has a hundred thousand."""

SERVERS_AT_ONCE = 32
MAX_KEYS_TRIED = 5
"""How many of the keys with which a server claims to have signed an event are looked at."""


Keys = Mapping[tuple[str, str], VerifyKey]
"""Keys by server and key ID."""


class Verified(NamedTuple):
    """An event with the signatures and the hash that it needs (redacted, where the hash was another)."""

    pdu: Pdu
    servers: frozenset[str]
    """The servers whose signatures were needed, and are there."""
    is_recommended: bool = True
    """Whether the policy server of its room recommends it, if there is one: see `policy_servers`."""


class Verification:
    """Checks events, with keys from the key ring."""

    def __init__(self, key_ring: KeyRing) -> None:
        self._key_ring = key_ring

    async def verify(self, events: Sequence[object], version: RoomVersion) -> list[Verified | InvalidPdu]:
        """Each of the events checked, or why it must be dropped, in the same order."""
        parsed: list[Pdu | InvalidPdu] = []
        for number, event in enumerate(events, 1):
            if number % YIELD_AFTER_EVENTS == 0:
                await asyncio.sleep(0)
            parsed.append(_parse(event, version))
        return await self._verify(parsed, version)

    async def verify_texts(self, texts: Sequence[bytes], version: RoomVersion) -> list[Verified | InvalidPdu]:
        """The same for events that are still to be parsed, which is done in a thread."""
        return await self._verify(await asyncio.to_thread(_parse_texts, texts, version), version)

    async def _verify(self, parsed: Sequence[Pdu | InvalidPdu], version: RoomVersion) -> list[Verified | InvalidPdu]:
        pdus = [pdu for pdu in parsed if isinstance(pdu, Pdu)]
        keys = await self._load_keys(pdus, version)
        if len(pdus) < IN_THREAD_FROM_EVENTS:
            checked = {id(pdu): check_event(pdu, keys) for pdu in pdus}
        else:
            checked = await asyncio.to_thread(lambda: {id(pdu): check_event(pdu, keys) for pdu in pdus})
        return [checked[id(pdu)] if isinstance(pdu, Pdu) else pdu for pdu in parsed]

    async def _load_keys(self, pdus: Iterable[Pdu], version: RoomVersion) -> Keys:
        """The keys with which these events claim to be signed: each server is asked once, for the newest time."""
        wanted: dict[str, set[str]] = {}
        newest: dict[str, int] = {}
        for pdu in pdus:
            for server in {*needed_signatures(pdu), get_domain(pdu.sender)}:
                wanted.setdefault(server, set()).update(_key_ids(pdu, server))
                newest[server] = max(newest.get(server, 1), pdu.origin_server_ts)
        gate = asyncio.Semaphore(SERVERS_AT_ONCE)
        found: dict[tuple[str, str], VerifyKey] = {}

        async def load(server: str, key_ids: set[str]) -> None:
            async with gate:
                valid_at = newest[server] if version.enforce_key_validity else 0
                keys = dict(await self._key_ring.verify_keys(server, key_ids, valid_at_ms=valid_at))
                if valid_at and (others := key_ids - keys.keys()):  # they may be good for the older of the events
                    keys.update(await self._key_ring.verify_keys(server, others, valid_at_ms=0))
                found.update({(server, key_id): key for key_id, key in keys.items()})

        await asyncio.gather(*(load(server, key_ids) for server, key_ids in wanted.items() if key_ids))
        return found


def _parse_texts(texts: Sequence[bytes], version: RoomVersion) -> list[Pdu | InvalidPdu]:
    parsed: list[Pdu | InvalidPdu] = []
    for text in texts:
        try:
            parsed.append(_parse(parse_json(text), version))
        except JsonError as error:
            parsed.append(InvalidPdu(str(error)))
    return parsed


def _parse(event: object, version: RoomVersion) -> Pdu | InvalidPdu:
    try:
        return _storable(parse_pdu(_without_unsigned(event), version))
    except InvalidPdu as error:
        return error


def _storable(pdu: Pdu) -> Pdu:
    """An event as it is. Raises InvalidPdu for integers beyond 64 bits, which room versions before 6 do not exclude:
    what is stored has none."""
    if not pdu.room_version.strict_canonical_json:
        try:
            orjson.dumps(pdu.json)
        except TypeError as error:
            raise InvalidPdu(str(error)) from error
    return pdu


def _without_unsigned(event: object) -> object:
    """An event without what its server says beside it: nobody has signed that, and this server says its own."""
    if isinstance(event, dict) and "unsigned" in event:
        return {key: value for key, value in event.items() if key != "unsigned"}
    return event


def needed_signatures(pdu: Pdu) -> frozenset[str]:
    """The servers that must have signed an event.

    https://spec.matrix.org/v1.19/server-server-api/#validating-hashes-and-signatures-on-received-events
    """
    needed = {get_domain(pdu.sender)}
    if pdu.room_version.event_id_format is EventIdFormat.OPAQUE:
        needed.add(get_domain(pdu.event_id))
    if pdu.type == "m.room.member":
        authoriser = pdu.content.get("join_authorised_via_users_server")
        if pdu.room_version.restricted_allowed and is_user_id(authoriser):
            needed.add(get_domain(authoriser))
        if pdu.content.get("membership") == "invite" and "third_party_invite" in pdu.content:
            # "The sender's server, unless the invite was created as a result of 3rd party invite. The sender must
            # already match the 3rd party invite, and the event_id's server is not required to have signed it."
            needed.discard(get_domain(pdu.sender))
    return frozenset(needed)


def _key_ids(pdu: Pdu, server: str) -> list[str]:
    """The keys with which a server claims to have signed an event, without that of a policy server: rooms have that,
    and it "is not expected to be published and therefore should be skipped at this stage"."""
    return [key_id for key_id in signature_key_ids(pdu.json, server) if key_id != POLICY_KEY_ID][:MAX_KEYS_TRIED]


def check_event(pdu: Pdu, keys: Keys) -> Verified | InvalidPdu:
    """Check an event's signatures and its hash."""
    needed = needed_signatures(pdu)
    if not content_hash_matches(pdu.json):
        # "... the event is redacted before being processed further." What is left of an invitation by a third party is
        # one of its sender, who must have signed it then.
        pdu = Pdu(pdu.room_version, pdu.event_id, redact_event(pdu.json, pdu.room_version))
        needed |= needed_signatures(pdu)
    for server in needed:
        if not any(_is_signed(pdu, server, keys.get((server, key_id))) for key_id in _key_ids(pdu, server)):
            return InvalidPdu(f"{server} has not signed the event with a key that can be had")
    return Verified(pdu, needed)


def _is_signed(pdu: Pdu, server: str, key: VerifyKey | None) -> bool:
    if key is None:
        return False
    # "Any keys that are known to have expired prior to the event's origin_server_ts are ignored" in all room versions;
    # that a key may be good for longer than is known is for versions from 5 on to find out.
    if (key.is_old or pdu.room_version.enforce_key_validity) and key.valid_until_ts < pdu.origin_server_ts:
        return False
    return verify_event_signature(pdu.json, pdu.room_version, server, key.key_id, key.public_key)
