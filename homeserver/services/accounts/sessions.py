"""Sessions: access tokens, and the devices that they belong to."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import string
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Hashable
from typing import Any, NamedTuple

from config.schema import SessionLifetimes
from homeserver.clock import Clock
from homeserver.services.errors import InvalidParam, UnknownToken, UserLocked
from storage.accounts import AccountRepository, DeviceIdIsKey, DeviceRow, NewTokens
from storage.database import CONNECTION_ERRORS, StorageError

logger = logging.getLogger(__name__)

DEVICE_ID_ALPHABET = string.ascii_uppercase
DEVICE_ID_LENGTH = 10
SEEN_EVERY_MS = 60_000
MAX_UNWRITTEN_SEEN = 10_000
MAX_ENDED_DEVICES = 10_000
"""Of how many that ended last it is known: of more than end while a request waits."""
MAX_DEVICE_ID_BYTES = 255
MAX_DISPLAY_NAME_BYTES = 255
FOLLOW_AGAIN_AFTER_S = 1.0


class Requester(NamedTuple):
    """Who makes a request. `device` is the device's number in the database, `device_id` its name.

    What a locked or suspended user may do is for the edge to decide. `expires_ts` is when the access token does, in
    milliseconds, None for never. `appservice` is the ID of the application service that acts as the user, which may
    have no device: then `device_id` is "" and `device` a negative number. `is_unlimited`: no rate limit counts.
    """

    user_id: str
    device: int
    device_id: str
    is_admin: bool
    is_locked: bool = False
    is_suspended: bool = False
    expires_ts: int | None = None
    appservice: str | None = None
    is_unlimited: bool = False


class SessionTokens(NamedTuple):
    """What a client is given when a session begins or is refreshed."""

    device_id: str
    access_token: str
    refresh_token: str | None
    expires_in_ms: int | None

    def body(self) -> dict[str, Any]:
        """As the answers of /login, /register and /refresh have it, without what there is not."""
        body = {
            "access_token": self.access_token,
            "refresh_token": self.refresh_token,
            "expires_in_ms": self.expires_in_ms,
        }
        return {name: value for name, value in body.items() if value is not None}


def hash_token(token: str) -> bytes:
    """What the database keeps of a token. Tokens are random, so a plain hash does."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def new_device_id() -> str:
    """A device ID for a client that names none."""
    return "".join(secrets.choice(DEVICE_ID_ALPHABET) for _ in range(DEVICE_ID_LENGTH))


def check_device_id(device_id: str | None) -> None:
    """Raises InvalidParam for a device ID that no client needs: too long, or with a NUL character."""
    if device_id is not None and ("\0" in device_id or len(device_id.encode()) > MAX_DEVICE_ID_BYTES):
        raise InvalidParam(f"device_id must not have more than {MAX_DEVICE_ID_BYTES} bytes, nor a NUL character")


def check_display_name(display_name: str | None) -> None:
    """Raises InvalidParam for a device's name that is too long, or has a NUL character."""
    if display_name is not None and ("\0" in display_name or len(display_name.encode()) > MAX_DISPLAY_NAME_BYTES):
        raise InvalidParam(
            f"A device's name must not have more than {MAX_DISPLAY_NAME_BYTES} bytes, nor a NUL character"
        )


class Sessions:
    """Finds out who a token belongs to (cached), opens and closes sessions.

    The cache is bounded and holds only tokens that were valid; closing a session removes it there. When a token
    expires stands in the cache too: a token that never does costs no look at the clock.
    """

    def __init__(
        self,
        accounts: AccountRepository,
        clock: Clock,
        *,
        max_cached_tokens: int,
        lifetimes: SessionLifetimes | None = None,
    ) -> None:
        self._accounts = accounts
        self._clock = clock
        self._lifetimes = lifetimes or SessionLifetimes()
        self.on_user_changed: list[Callable[[str | None], None]] = []
        self.on_devices_ended: Callable[[str, set[int]], None] = lambda _user_id, _devices: None
        self.on_account_erased: list[Callable[[str, int], None]] = []
        self.on_devices_changed: Callable[[str], Awaitable[None]] | None = None
        self._max_cached_tokens = max_cached_tokens
        self._by_token: OrderedDict[Hashable, Requester] = OrderedDict()
        self._closed_count = 0
        self._ended_devices: OrderedDict[int, None] = OrderedDict()
        self._seen: dict[int, tuple[int, str]] = {}
        self._unwritten_seen: dict[int, tuple[int, str]] = {}

    def known(self, token: Hashable) -> Requester | None:
        """Who has a token (or what else `access_as` was given), if the cache knows: the fast path of every request."""
        requester = self._by_token.get(token)
        if requester is not None:
            if requester.expires_ts is not None and requester.expires_ts <= self._clock():
                return None
            self._by_token.move_to_end(token)
        return requester

    async def access_session(self, token: str) -> Requester:
        """Who has this token. Raises UnknownToken, with `soft_logout` for a token that has expired.

        The first use of a token that was got by a refresh ends the tokens that it replaces.
        https://spec.matrix.org/v1.19/client-server-api/#refreshing-access-tokens
        """
        closed_before = self._closed_count
        row = await self._accounts.load_token(hash_token(token))
        if row is None:
            raise UnknownToken
        if row.expires_ts is not None and row.expires_ts <= self._clock():
            self._by_token.pop(token, None)
            raise UnknownToken("The access token has expired", soft_logout=True)
        if row.replaces is not None and row.refresh_token is not None:
            await self._accounts.finish_refresh(row.user_id, row.device, row.replaces, row.refresh_token)
            self.forget_user(row.user_id)
        requester = Requester(
            row.user_id, row.device, row.device_id, row.is_admin, row.locked, row.suspended, row.expires_ts
        )
        self._keep(token, requester, closed_before)
        return requester

    async def access_as(self, key: Hashable, load: Callable[[], Awaitable[Requester]]) -> Requester:
        """Who an application service acts as. `load` finds out; it is kept under a key as sessions are."""
        closed_before = self._closed_count
        requester = await load()
        self._keep(key, requester, closed_before)
        return requester

    def _keep(self, key: Hashable, requester: Requester, closed_before: int) -> None:
        if closed_before == self._closed_count:  # a session closed meanwhile may be this one
            self._by_token[key] = requester
            if len(self._by_token) > self._max_cached_tokens:
                self._by_token.popitem(last=False)

    def seen(self, requester: Requester, address: str) -> None:
        """Notes that a device made a request; written now and then by `write_seen`."""
        now = self._clock()
        last = self._seen.get(requester.device)
        if last is None or now - last[0] > SEEN_EVERY_MS or last[1] != address:
            if len(self._seen) >= MAX_UNWRITTEN_SEEN:
                self._seen.clear()
            if len(self._unwritten_seen) < MAX_UNWRITTEN_SEEN:
                self._unwritten_seen[requester.device] = (now, address)
            self._seen[requester.device] = (now, address)

    async def write_seen(self) -> None:
        """Writes when devices were last seen."""
        if self._unwritten_seen:
            seen, self._unwritten_seen = self._unwritten_seen, {}
            try:
                await self._accounts.touch_devices(seen)
            except CONNECTION_ERRORS as error:  # it is no loss: devices are seen again
                logger.warning("not written when devices were seen: %s", error)

    async def write_seen_forever(self) -> None:
        """Runs `write_seen` at an interval until cancelled."""
        while True:
            await asyncio.sleep(SEEN_EVERY_MS / 1000)
            await self.write_seen()

    async def open(
        self, user_id: str, *, device_id: str | None, display_name: str | None, refreshable: bool = False
    ) -> SessionTokens:
        """Logs a user in on a device, new or known: its former tokens end.

        The display name is for a new device; `refreshable` for a client that can use refresh tokens.
        Raises InvalidParam.
        https://spec.matrix.org/v1.19/client-server-api/#relationship-between-access-tokens-and-devices
        """
        check_device_id(device_id)
        check_display_name(display_name)
        now = self._clock()
        given, kept = self._new_tokens(device_id or new_device_id(), now, refreshable=refreshable)
        try:
            device, replaced = await self._accounts.start_session(
                user_id, given.device_id, display_name=display_name, tokens=kept, now_ms=now
            )
        except DeviceIdIsKey:
            raise InvalidParam("The device ID is one of your cross-signing keys") from None
        if replaced:
            self._forget({device})
        return given

    async def refresh(self, refresh_token: str) -> SessionTokens:
        """Other tokens for a session; the old ones stay valid until one of these is used.

        Raises UnknownToken, with `soft_logout` for a token that has expired, and UserLocked.
        https://spec.matrix.org/v1.19/client-server-api/#refreshing-access-tokens
        """
        now = self._clock()
        given, kept = self._new_tokens("", now, refreshable=True)
        row = await self._accounts.refresh_session(hash_token(refresh_token), kept, now_ms=now)
        if row is None:
            raise UnknownToken("Unknown refresh token")
        if row.locked:
            raise UserLocked
        if row.expires_ts is not None and row.expires_ts <= now:
            raise UnknownToken("The refresh token has expired", soft_logout=True)
        if row.replaces is not None:
            self.forget_user(row.user_id)
        return given

    def _new_tokens(self, device_id: str, now: int, *, refreshable: bool) -> tuple[SessionTokens, NewTokens]:
        """Tokens as a client gets them, and as the database keeps them."""
        access_token = f"weft_{secrets.token_urlsafe(32)}"
        refresh_token = f"weftr_{secrets.token_urlsafe(32)}" if refreshable else None
        lifetimes = self._lifetimes
        lifetime = lifetimes.refreshable_access_token_ms if refreshable else lifetimes.access_token_ms
        given = SessionTokens(device_id, access_token, refresh_token, lifetime)
        kept = NewTokens(hash_token(access_token), None if lifetime is None else now + lifetime)
        if refresh_token is not None:
            expires_ts = None if lifetimes.refresh_token_ms is None else now + lifetimes.refresh_token_ms
            kept = kept._replace(refresh_token=hash_token(refresh_token), refresh_expires_ts=expires_ts)
        return given, kept

    async def devices(self, user_id: str) -> list[DeviceRow]:
        """A user's devices, with when each was last seen."""
        rows = await self._accounts.load_devices(user_id)
        return [
            row._replace(last_seen_ts=self._seen[row.device][0], last_seen_ip=self._seen[row.device][1])
            if row.device in self._seen
            else row
            for row in rows
        ]

    async def rename(self, user_id: str, device_id: str, display_name: str | None) -> bool:
        """Names a device; False when the user has no such device. Raises InvalidParam."""
        check_display_name(display_name)
        is_there = await self._accounts.rename_device(user_id, device_id, display_name)
        await self.devices_changed(user_id)
        return is_there

    async def close(self, user_id: str, device_ids: list[str]) -> None:
        """Ends sessions, and removes their devices; devices that are not there are passed over."""
        possible = [device_id for device_id in device_ids if "\0" not in device_id]
        await self._removed(user_id, await self._accounts.delete_devices(user_id, possible))

    async def close_others(self, requester: Requester) -> None:
        """Ends all of a user's sessions but the requester's own."""
        removed = await self._accounts.delete_other_devices(requester.user_id, requester.device)
        await self._removed(requester.user_id, removed)

    async def close_all(self, user_id: str) -> None:
        """Ends all of a user's sessions."""
        await self._removed(user_id, await self._accounts.delete_all_devices(user_id))

    async def _removed(self, user_id: str, devices: list[int]) -> None:
        self._ended(user_id, devices)
        if devices:
            await self.devices_changed(user_id)

    async def devices_changed(self, user_id: str) -> None:
        """Takes in that devices of a user were removed or renamed: what all that ends sessions comes to."""
        if self.on_devices_changed is not None:
            await self.on_devices_changed(user_id)

    def forget_user(self, user_id: str) -> None:
        """Drops what is cached of a user whose sessions were ended in the database."""
        self._forget({requester.device for requester in self._by_token.values() if requester.user_id == user_id})

    async def follow_ended_forever(self) -> None:
        """Forgets the sessions that other processes (the command line is one) end, until cancelled.

        While the database is away nothing is heard; when it is back the whole cache goes.
        """
        while True:
            try:
                await self._accounts.follow_ended_sessions(self.session_ended, self.account_erased)
            except StorageError as error:
                logger.warning("not following ended sessions, trying again: %s", error)
            await asyncio.sleep(FOLLOW_AGAIN_AFTER_S)

    def account_erased(self, user_id: str, position: int) -> None:
        """Tells whom it concerns that an account was erased, here or by another process, at a position."""
        for told in self.on_account_erased:
            told(user_id, position)

    def session_ended(self, user_id: str | None) -> None:
        """Drops what is cached of a user whose sessions may have ended; None for all users."""
        if user_id is None:
            self._closed_count += 1
            self._by_token.clear()
        else:
            self.forget_user(user_id)
        for take_in in self.on_user_changed:
            take_in(user_id)

    def has_ended(self, device: int) -> bool:
        """Whether a device was removed of late: what has waited since before that is not for it."""
        return device in self._ended_devices

    def _ended(self, user_id: str, devices: Collection[int]) -> None:
        """Drops what is cached of sessions whose devices are gone."""
        self._forget(set(devices))
        self._ended_devices.update(dict.fromkeys(devices))
        while len(self._ended_devices) > MAX_ENDED_DEVICES:
            self._ended_devices.popitem(last=False)
        self.on_devices_ended(user_id, set(devices))

    def _forget(self, devices: set[int]) -> None:
        self._closed_count += 1
        for token in [token for token, requester in self._by_token.items() if requester.device in devices]:
            del self._by_token[token]
