"""Keys of devices: uploading one's own, looking up and claiming those of others.

https://spec.matrix.org/v1.19/client-server-api/#key-distribution
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import orjson

from homeserver.clock import Clock
from homeserver.metrics import Metrics
from homeserver.services.accounts.sessions import Requester
from homeserver.services.encryption.device_cache import DeviceCache
from homeserver.services.encryption.device_lists import DeviceLists
from homeserver.services.encryption.remote import RemoteKeys
from homeserver.services.errors import InvalidParam, MatrixError, UnknownToken
from homeserver.services.remote import NoFederation, RemoteFailure
from matrix.identifiers import get_domain, is_user_id
from matrix.key_objects import (
    InvalidKey,
    check_claimable_key,
    check_device_keys,
    check_signatures,
    encode_key,
    split_key_id,
    visible_key,
)
from storage.cross_signing import USER_SIGNING, CrossSigningRepository
from storage.device_keys import DeviceKeyRepository, KeyCountsRow, KeyIdTaken, TooManyKeys, UploadedKey

MAX_ONE_TIME_KEYS = 5_000
"""Most keys of a device that wait to be claimed."""
MAX_QUERIED_USERS = 10_000
MAX_CLAIMED_KEYS = 10_000
MAX_REMOTE_TIMEOUT_MS = 60_000
SPENT_KEPT_MS = 24 * 3600 * 1000
"""For how long it is remembered which keys were given out: as long as an upload may be on its way."""

CROSS_SIGNING_KEYS = ("master_keys", "self_signing_keys", "user_signing_keys")

CountObserver = Callable[[str, str, int], None]
"""Called with a user, a device ID and the device's number when the device has more keys to give, or less."""

ClaimedKeys = dict[str, dict[str, dict[str, Any]]]
"""User ID -> device ID -> key ID -> key."""


class DeviceKeys:
    """Stores, finds and gives out keys; those of other servers' users through `remote`, where there is one."""

    def __init__(
        self,
        repository: DeviceKeyRepository,
        cross_signing: CrossSigningRepository,
        device_lists: DeviceLists,
        metrics: Metrics,
        clock: Clock,
        *,
        server_name: str,
        max_devices: int,
        remote: RemoteKeys | None = None,
    ) -> None:
        self._repository = repository
        self._cross_signing = cross_signing
        self._device_lists = device_lists
        self._clock = clock
        self._server_name = server_name
        self.remote = remote
        self.on_changed: Callable[[int], None] = lambda _device: None
        self.observers: list[CountObserver] = []
        self._counts: DeviceCache[bytes] = DeviceCache(
            "key_counts", self._read_counts, metrics, max_devices=max_devices
        )

    def known_counts(self, device: int) -> bytes | None:
        """What a /sync tells a device of its keys, as members of a JSON object, if it is in memory."""
        return self._counts.known(device)

    async def load_counts(self, device: int) -> bytes:
        """The same, read if need be. https://spec.matrix.org/v1.19/client-server-api/#e2e-extensions-to-sync"""
        return await self._counts.load(device)

    async def _read_counts(self, device: int) -> bytes:
        return counts_json(await self._repository.load_counts(device))

    async def upload(
        self,
        requester: Requester,
        *,
        device_keys: dict[str, Any] | None,
        one_time_keys: Mapping[str, object],
        fallback_keys: Mapping[str, object],
    ) -> dict[str, int]:
        """Stores keys of the requester's device, all or none; returns how many one-time keys it has, by algorithm.

        Raises InvalidParam, MatrixError (400 M_INVALID_PARAM) for another key under an ID that is in use.
        https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysupload
        """
        encoded, one_time, fallback = encode_upload(
            requester.user_id, requester.device_id, device_keys, one_time_keys, fallback_keys
        )
        if encoded is None and not one_time and not fallback:
            return (await self._repository.load_counts(requester.device)).one_time
        try:
            stored = await self._repository.upload(
                requester.user_id,
                requester.device,
                device_keys=encoded,
                one_time_keys=one_time,
                fallback_keys=fallback,
                max_one_time_keys=MAX_ONE_TIME_KEYS,
            )
        except KeyIdTaken:
            raise InvalidParam("Another key by this ID was uploaded before") from None
        except TooManyKeys:
            raise InvalidParam(f"A device can have {MAX_ONE_TIME_KEYS} one-time keys") from None
        if stored is None:
            raise UnknownToken
        counts, is_new = stored
        self._forget_counts(requester.user_id, requester.device_id, requester.device)
        if is_new:
            await self._device_lists.announce(requester.user_id)
        return counts.one_time

    def _forget_counts(self, user_id: str, device_id: str, device: int) -> None:
        self._counts.forget(device)
        self.on_changed(device)
        for observer in self.observers:
            observer(user_id, device_id, device)

    async def query(self, asker: str, wanted: Mapping[str, Sequence[str]], *, timeout_ms: int) -> dict[str, Any]:
        """Identity keys of devices and users: user ID -> device IDs, none for all. Other servers that fail are named.

        Raises InvalidParam. https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysquery
        """
        if len(wanted) > MAX_QUERIED_USERS:
            raise InvalidParam(f"No more than {MAX_QUERIED_USERS} users can be asked for at once")
        by_server = self._by_server(wanted)
        local = by_server.pop(self._server_name, {})
        answer = await self.query_local(asker, local)
        answer["failures"] = {}
        answers = await asyncio.gather(*(self._query_remote(*item, timeout_ms) for item in by_server.items()))
        remote = dict(zip(by_server, answers, strict=True))
        for server, (found, failure) in remote.items():
            if failure is not None:
                answer["failures"][server] = _failure(failure)
            _add_remote(answer, found, by_server[server])
        if remote:
            await self._add_own_signatures(answer, asker, [user for users in by_server.values() for user in users])
        return answer

    async def query_local(self, asker: str | None, wanted: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """The same for users of this server; `asker` is None for another server."""
        answer: dict[str, Any] = {"device_keys": {}, **{name: {} for name in CROSS_SIGNING_KEYS}}
        if not wanted:
            return answer
        devices = await self._repository.load_device_keys(wanted)
        keys = await self._cross_signing.load_keys(wanted)
        more = await self._cross_signing.load_signatures(wanted, asker)
        for row in devices:
            of_user = answer["device_keys"].setdefault(row.user_id, {})  # who has none is told of, too
            if row.device_id is None or row.json is None:
                continue
            if not wanted[row.user_id] or row.device_id in wanted[row.user_id]:
                signatures = more.get((row.user_id, row.device_id), {})
                shown = visible_key(orjson.loads(row.json), row.user_id, asker, signatures)
                shown["unsigned"] = {} if row.display_name is None else {"device_display_name": row.display_name}
                of_user[row.device_id] = shown
        for key in keys:
            if key.usage == USER_SIGNING and key.user_id != asker:
                continue
            signatures = more.get((key.user_id, key.public_key), {})
            shown = visible_key(orjson.loads(key.json), key.user_id, asker, signatures)
            answer[f"{key.usage}_keys"][key.user_id] = shown
        return answer

    async def _query_remote(
        self, server: str, wanted: Mapping[str, Sequence[str]], timeout_ms: int
    ) -> tuple[dict[str, Any], RemoteFailure | None]:
        if self.remote is None:
            return {}, NoFederation(server)
        return await self.remote.query(server, wanted, timeout_ms=min(timeout_ms, MAX_REMOTE_TIMEOUT_MS))

    async def _add_own_signatures(self, answer: dict[str, Any], asker: str, user_ids: Collection[str]) -> None:
        """Adds to other servers' users' keys what the asker has signed."""
        for (user_id, name), signatures in (await self._cross_signing.load_signatures(user_ids, asker)).items():
            key = answer["master_keys"].get(user_id)
            if key is not None and f"ed25519:{name}" in key["keys"]:
                answer["master_keys"][user_id] = visible_key(key, user_id, asker, signatures)

    async def claim(
        self, wanted: Mapping[str, Mapping[str, str]], *, timeout_ms: int
    ) -> tuple[ClaimedKeys, dict[str, Any]]:
        """A key for each of user ID -> device ID -> algorithm, given to nobody else; and which servers have failed.

        Raises InvalidParam. https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysclaim
        """
        if sum(map(len, wanted.values())) > MAX_CLAIMED_KEYS:
            raise InvalidParam(f"No more than {MAX_CLAIMED_KEYS} keys can be claimed at once")
        by_server = self._by_server(wanted)
        claimed = await self.claim_local(by_server.pop(self._server_name, {}))
        answers = await asyncio.gather(*(self._claim_remote(*item, timeout_ms) for item in by_server.items()))
        failures = {}
        for server, found in zip(by_server, answers, strict=True):
            if isinstance(found, RemoteFailure):
                failures[server] = _failure(found)
            else:
                keys = found.get("one_time_keys")
                keys = keys if isinstance(keys, dict) else {}
                claimed |= {
                    user_id: keys[user_id] for user_id in by_server[server] if isinstance(keys.get(user_id), dict)
                }
        return claimed, failures

    async def claim_local(self, wanted: Mapping[str, Mapping[str, str]]) -> ClaimedKeys:
        """The same for users of this server."""
        keys = [
            (user_id, device_id, algorithm)
            for user_id, devices in wanted.items()
            for device_id, algorithm in devices.items()
            if "\0" not in device_id + algorithm
        ]
        claimed: ClaimedKeys = {}
        if not keys:
            return claimed
        for row in await self._repository.claim(keys, now_ms=self._clock()):
            self._forget_counts(row.user_id, row.device_id, row.device)
            of_device = claimed.setdefault(row.user_id, {}).setdefault(row.device_id, {})
            of_device[f"{row.algorithm}:{row.key_id}"] = orjson.loads(row.json)
        return claimed

    async def _claim_remote(
        self, server: str, wanted: Mapping[str, Mapping[str, str]], timeout_ms: int
    ) -> dict[str, Any] | RemoteFailure:
        if self.remote is None:
            return NoFederation(server)
        try:
            return await self.remote.claim(server, wanted, timeout_ms=min(timeout_ms, MAX_REMOTE_TIMEOUT_MS))
        except RemoteFailure as failure:
            return failure

    async def clean(self) -> None:
        """Forgets keys that were given out long ago."""
        await self._repository.forget_spent(before_ts=self._clock() - SPENT_KEPT_MS)

    def _by_server(self, wanted: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """What is wanted, by server. Raises InvalidParam for what is no user ID."""
        found: dict[str, dict[str, Any]] = {}
        for user_id, value in wanted.items():
            if not is_user_id(user_id):
                raise InvalidParam("Not a user ID")
            found.setdefault(get_domain(user_id), {})[user_id] = value
        return found


def encode_upload(
    user_id: str,
    device_id: str,
    device_keys: dict[str, Any] | None,
    one_time_keys: Mapping[str, object],
    fallback_keys: Mapping[str, object],
) -> tuple[bytes | None, list[UploadedKey], list[UploadedKey]]:
    """Keys of a device as they are stored. Raises InvalidParam for what is none of them, or somebody else's."""
    try:
        if device_keys is not None:
            check_device_keys(device_keys, user_id, device_id)
        one_time = [_uploaded(key_id, key) for key_id, key in one_time_keys.items()]
        fallback = [_uploaded(key_id, key) for key_id, key in fallback_keys.items()]
        if len({key.algorithm for key in fallback}) != len(fallback):
            raise InvalidKey("There can be one fallback key for each algorithm")
        return None if device_keys is None else encode_key(device_keys), one_time, fallback
    except InvalidKey as error:
        raise InvalidParam(str(error)) from None


def _uploaded(key_id: str, key: object) -> UploadedKey:
    algorithm, name = split_key_id(key_id)
    check_claimable_key(key)
    return UploadedKey(algorithm, name, encode_key(key))


def counts_json(counts: KeyCountsRow) -> bytes:
    """What a /sync tells of keys. The algorithm that all clients use is named even when there is no key of it."""
    one_time = {"signed_curve25519": 0, **counts.one_time}
    return b',"device_one_time_keys_count":%s,"device_unused_fallback_key_types":%s' % (
        orjson.dumps(one_time),
        orjson.dumps(counts.unused_fallback),
    )


def _failure(failure: RemoteFailure) -> dict[str, Any]:
    return MatrixError(503, "M_UNKNOWN", str(failure)).body()


def _add_remote(answer: dict[str, Any], found: dict[str, Any], wanted: Mapping[str, Sequence[str]]) -> None:
    """Adds what another server says of its own users, and of nobody else; never a user-signing key."""
    for name in ("device_keys", "master_keys", "self_signing_keys"):
        by_user = found.get(name)
        if not isinstance(by_user, dict):
            continue
        for user_id in wanted:
            value = by_user.get(user_id)
            if name == "device_keys" and isinstance(value, dict):
                answer[name][user_id] = {device_id: keys for device_id, keys in value.items() if _are_keys(keys)}
            elif name != "device_keys" and _are_keys(value):
                answer[name][user_id] = value


def _are_keys(value: object) -> bool:
    """Whether it has the form of keys with signatures: nobody has checked what another server says."""
    if not isinstance(value, dict) or not isinstance(value.get("keys"), dict):
        return False
    try:
        check_signatures({"signatures": {}, **value})
    except InvalidKey:
        return False
    return True
