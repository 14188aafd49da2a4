"""Keys of other servers' users, kept for as long as their servers tell of changes: while a room is shared.

1. Who is asked for the first time is fetched from their server, and kept.
2. m.device_list_update is applied where it follows on what is kept. After a gap, and after m.signing_key_update, what
   is kept is stale, and fetched anew when it is next asked for.
3. Where the server cannot be reached what is kept is still given, stale or not.

What is kept counts as long as a room has been shared without a break since it was asked for: nothing has to be done
when users come and go. https://spec.matrix.org/v1.19/server-server-api/#device-management
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import quote
from weakref import WeakValueDictionary

import msgspec
import orjson

from homeserver.logs import get_logger
from homeserver.services.federation.edus.keys import FederationKeys
from homeserver.services.remote import RemoteFailure, RemoteMisbehaved, RemoteRefused, Transport
from homeserver.services.stream import Stream
from storage.remote_device_lists import RemoteDeviceListRepository, RemoteListRow

log = get_logger(__name__)

MAX_SINGLE_USERS = 5
"""Up to how many users are asked for one by one, which tells the number of their last change; else all at once."""
MAX_KEPT_BYTES = 512 * 1024
"""Devices of a user that take more than this are not kept."""
UNKNOWN_STREAM_ID = 0
MAX_STREAM_ID = 2**63 - 1

Devices = dict[str, Any]
"""`device_keys` (device ID -> keys), and `master_key` and `self_signing_key` where the user has them."""


class ListUpdate(msgspec.Struct):
    """https://spec.matrix.org/v1.19/server-server-api/#mdevice_list_update"""

    user_id: str
    device_id: str
    stream_id: int
    prev_id: list[int] = []
    deleted: bool = False
    keys: dict[str, Any] | None = None
    device_display_name: str | None = None


class _Fetch:
    """Users whose keys are on their way, and of whom there was news meanwhile."""

    def __init__(self, user_ids: Sequence[str], position: int) -> None:
        self.user_ids = frozenset(user_ids)
        self.position = position
        self.changed: set[str] = set()


class CachedKeys:
    """The `RemoteKeys` of this server."""

    def __init__(
        self,
        live: FederationKeys,
        transport: Transport,
        repository: RemoteDeviceListRepository,
        stream: Stream,
        *,
        server_name: str,
    ) -> None:
        self.claim = live.claim
        self._live = live
        self._transport = transport
        self._repository = repository
        self._stream = stream
        self._server_name = server_name
        self._fetches: set[_Fetch] = set()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.clean = repository.delete_unshared

    async def query(
        self, server: str, wanted: Mapping[str, Sequence[str]], *, timeout_ms: int
    ) -> tuple[dict[str, Any], RemoteFailure | None]:
        """See `RemoteKeys.query`."""
        storable = [user_id for user_id in wanted if "\0" not in user_id]
        shared_since = await self._repository.load_shared_since(storable, self._server_name)
        kept = await self._repository.load(shared_since)
        found: dict[str, Devices] = {}
        missing, unshared = [], {}
        for user_id, device_ids in wanted.items():
            row = kept.get(user_id)
            if user_id not in shared_since:
                unshared[user_id] = device_ids
            elif row is None or row.stale or row.position < shared_since[user_id]:
                missing.append(user_id)
            else:
                found[user_id] = orjson.loads(row.json)
        failure = None
        try:
            found |= await self._fetch(server, missing, timeout_ms)
        except RemoteFailure as error:
            found |= {user_id: orjson.loads(kept[user_id].json) for user_id in missing if user_id in kept}
            failure = None if set(missing) <= found.keys() else error
        answer = _as_answer(found, wanted)
        if unshared:
            try:
                _merge(answer, await self._live.query(server, unshared, timeout_ms=timeout_ms))
            except RemoteFailure as error:
                failure = error
        return answer, failure

    async def _fetch(self, server: str, user_ids: Sequence[str], timeout_ms: int) -> dict[str, Devices]:
        """Asks for users' devices, and keeps them. Raises RemoteFailure."""
        if not user_ids:
            return {}
        fetch = _Fetch(user_ids, self._stream.current)
        self._fetches.add(fetch)
        try:
            fetched = await self._ask_for_all(server, user_ids, timeout_ms)
            await self._keep(fetch, fetched)
        finally:
            self._fetches.discard(fetch)
        return {user_id: devices for user_id, (_, devices) in fetched.items()}

    async def _keep(self, fetch: _Fetch, fetched: Mapping[str, tuple[int, Devices]]) -> None:
        """Keeps what came, all of it in one statement, while no change is applied to any of it."""
        encoded = {user_id: orjson.dumps(devices) for user_id, (_, devices) in fetched.items()}
        kept = sorted(user_id for user_id, json in encoded.items() if len(json) <= MAX_KEPT_BYTES)
        async with AsyncExitStack() as stack:
            for user_id in kept:  # in one order, so that nobody waits in a circle
                await stack.enter_async_context(self._lock(user_id))
            await self._repository.persist(
                RemoteListRow(user_id, fetched[user_id][0], fetch.position, user_id in fetch.changed, encoded[user_id])
                for user_id in kept
            )

    async def _ask_for_all(
        self, server: str, user_ids: Sequence[str], timeout_ms: int
    ) -> dict[str, tuple[int, Devices]]:
        """Each user's devices, and the number of the last change in them if it was told. Raises RemoteFailure."""
        if len(user_ids) <= MAX_SINGLE_USERS:
            try:
                lists = await asyncio.gather(*(self._ask_for(server, user_id, timeout_ms) for user_id in user_ids))
                return dict(zip(user_ids, lists, strict=True))
            except (RemoteRefused, RemoteMisbehaved) as failure:  # one that has no devices, perhaps
                log.info("no list of devices", destination=server, reason=failure.reason)
        answer = await self._live.query(server, {user_id: [] for user_id in user_ids}, timeout_ms=timeout_ms)
        return {user_id: (UNKNOWN_STREAM_ID, _checked(server, _of_user(answer, user_id))) for user_id in user_ids}

    async def _ask_for(self, server: str, user_id: str, timeout_ms: int) -> tuple[int, Devices]:
        """A user's devices and the number of the last change in them. Raises RemoteFailure.

        https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1userdevicesuserid
        """
        path = f"/_matrix/federation/v1/user/devices/{quote(user_id, safe='')}"
        answer = await self._transport.request(server, "GET", path, timeout_ms=max(timeout_ms, 1))
        listed = answer.get("devices") if isinstance(answer, dict) else None
        if not isinstance(listed, list) or answer.get("user_id") != user_id:
            raise RemoteMisbehaved(server, "this is no list of the user's devices")
        stream_id = answer.get("stream_id")
        devices: Devices = {"device_keys": {}}
        for device in listed:
            if isinstance(device, dict) and isinstance(device.get("device_id"), str):
                _set_device(devices, device["device_id"], device.get("keys"), device.get("device_display_name"))
        for kind in ("master_key", "self_signing_key"):
            if isinstance(answer.get(kind), dict):
                devices[kind] = answer[kind]
        return (stream_id if _is_stream_id(stream_id) else UNKNOWN_STREAM_ID), _checked(server, devices)

    async def on_update(self, user_id: str, content: dict[str, Any]) -> None:
        """Applies an m.device_list_update of a user, whose server has sent it; what is no such thing leaves a gap."""
        try:
            update = msgspec.convert(content, ListUpdate)
        except msgspec.ValidationError:
            await self.on_changed(user_id)
            return
        self._note(user_id)
        async with self._lock(user_id):
            row = (await self._repository.load([user_id])).get(user_id)
            if row is None or row.stale or _has(update, row):
                return  # nothing is kept that it could change, or it is in there
            changed = _apply(update, row)
            await self._repository.persist([row._replace(stale=True) if changed is None else changed])

    async def on_changed(self, user_id: str) -> None:
        """A user's keys have changed in a way that cannot be applied: they are fetched when they are next asked for."""
        self._note(user_id)
        async with self._lock(user_id):
            if (row := (await self._repository.load([user_id])).get(user_id)) is not None:
                await self._repository.persist([row._replace(stale=True)])

    def _note(self, user_id: str) -> None:
        """What is on its way may be from before the change."""
        for fetch in self._fetches:
            if user_id in fetch.user_ids:
                fetch.changed.add(user_id)

    def _lock(self, user_id: str) -> asyncio.Lock:
        return self._locks.setdefault(user_id, asyncio.Lock())


def _has(update: ListUpdate, row: RemoteListRow) -> bool:
    """Whether a list has a change already.

    One that is older than the list and says something else leaves a gap. Its server may count anew, since it was set up
    anew under its old name; or not count at all, and tell of a device that does not exist to have the list fetched.
    """
    if row.stream_id == UNKNOWN_STREAM_ID or update.stream_id > row.stream_id:
        return False
    kept = orjson.loads(row.json)["device_keys"].get(update.device_id)
    if update.deleted or kept is None:
        return update.deleted and kept is None
    told: Devices = {"device_keys": {}}
    _set_device(told, update.device_id, update.keys, update.device_display_name)
    return bool(kept == told["device_keys"].get(update.device_id))


def _apply(update: ListUpdate, row: RemoteListRow) -> RemoteListRow | None:
    """A list with a change; None if that does not follow on the last one, or cannot be kept."""
    if row.stream_id == UNKNOWN_STREAM_ID or update.prev_id != [row.stream_id] or not _is_stream_id(update.stream_id):
        return None
    devices = orjson.loads(row.json)
    keys = None if update.deleted else update.keys
    _set_device(devices, update.device_id, keys, update.device_display_name)
    try:
        json = orjson.dumps(devices)
    except TypeError:  # integers beyond 64 bits
        return None
    return row._replace(stream_id=update.stream_id, json=json) if len(json) <= MAX_KEPT_BYTES else None


def _is_stream_id(value: object) -> bool:
    return type(value) is int and 0 < value <= MAX_STREAM_ID


def _set_device(devices: Devices, device_id: str, keys: object, display_name: object) -> None:
    """Notes a device's keys; one that has none is not there."""
    if not isinstance(keys, dict):
        devices["device_keys"].pop(device_id, None)
        return
    unsigned = {"device_display_name": display_name} if isinstance(display_name, str) else {}
    devices["device_keys"][device_id] = {**keys, "unsigned": unsigned}


def _checked(server: str, devices: Devices) -> Devices:
    """Devices that can be stored. Raises RemoteMisbehaved for integers beyond 64 bits."""
    try:
        orjson.dumps(devices)
    except TypeError as error:
        raise RemoteMisbehaved(server, str(error)) from None
    return devices


def _of_user(answer: dict[str, Any], user_id: str) -> Devices:
    """What the answer to a query says of a user."""
    devices: Devices = {"device_keys": {}}
    of_all = answer.get("device_keys")
    if isinstance(of_all, dict) and isinstance(of_all.get(user_id), dict):
        devices["device_keys"] = of_all[user_id]
    for kind in ("master_key", "self_signing_key"):
        of_all = answer.get(f"{kind}s")
        if isinstance(of_all, dict) and isinstance(of_all.get(user_id), dict):
            devices[kind] = of_all[user_id]
    return devices


def _as_answer(found: Mapping[str, Devices], wanted: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Devices as the answer to a query has them."""
    answer: dict[str, Any] = {"device_keys": {}, "master_keys": {}, "self_signing_keys": {}}
    for user_id, devices in found.items():
        asked = wanted[user_id]
        answer["device_keys"][user_id] = {
            device_id: keys for device_id, keys in devices["device_keys"].items() if not asked or device_id in asked
        }
        for kind in ("master_key", "self_signing_key"):
            if kind in devices:
                answer[f"{kind}s"][user_id] = devices[kind]
    return answer


def _merge(answer: dict[str, Any], live: dict[str, Any]) -> None:
    for kind, of_users in answer.items():
        if isinstance(live.get(kind), dict):
            of_users |= live[kind]
