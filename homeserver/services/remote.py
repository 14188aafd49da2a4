"""What services may ask of other servers, and how that fails. `federation.outbound` provides both.

A `RemoteFailure` says in `str()` what happened, in words that are fit for logs and for clients: who let a request
depend on another server answers it as that request's specification says, usually with 502 M_UNKNOWN.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import orjson

from homeserver.services.errors import MatrixError, NotFound
from homeserver.services.media.remote import RemoteMedia
from homeserver.services.media.web import Web
from matrix.signatures import VerifyKey
from storage.server_keys import ServerKeyAnswer

TakeItems = Callable[[Sequence[tuple[str, bytes]]], Awaitable[None]]
"""Takes some items of lists, each with the key of its list, as the text of a JSON object that is yet to be parsed."""


class RemoteFailure(Exception):
    """Another server did not give what it was asked for. The message is fit for logs and for clients."""

    def __init__(self, destination: str, reason: str) -> None:
        super().__init__(f"{destination}: {reason}")
        self.destination = destination
        self.reason = reason


class RemoteUnreachable(RemoteFailure):
    """There was no answer: the server was not found, or not reached, or took too long, or is left alone for now."""


class RemoteRefused(RemoteFailure):
    """An error answer: its HTTP status, and `errcode` and `error` of its body ("M_UNKNOWN" and "" where missing)."""

    def __init__(self, destination: str, status: int, errcode: str, message: str) -> None:
        super().__init__(destination, f"{status} {errcode}: {message}")
        self.status = status
        self.errcode = errcode
        self.message = message


class RemoteMisbehaved(RemoteFailure):
    """An answer that no server should give: too large, no JSON, of the wrong shape, or signed by somebody else."""


class NoFederation(RemoteUnreachable):
    """This server does not talk with others."""

    def __init__(self, destination: str) -> None:
        super().__init__(destination, "this server does not federate")


def for_clients(server: str, answer: Any) -> Any:
    """An answer of which clients are shown a part, if it can be written as they get it. Raises RemoteMisbehaved."""
    try:
        orjson.dumps(answer)
    except TypeError:  # integers beyond 64 bits
        raise RemoteMisbehaved(server, "the answer has numbers that no client could read") from None
    return answer


def bad_gateway(failure: RemoteFailure) -> MatrixError:
    """What to answer to a client whose request depended on another server: 502 M_UNKNOWN, with the reason.

    Where there is no federation, nothing of other servers exists: 404 M_NOT_FOUND.
    """
    if isinstance(failure, NoFederation):
        return NotFound(str(failure))
    return MatrixError(502, "M_UNKNOWN", str(failure))


class Transport(Protocol):
    """Requests to other servers, in this server's name."""

    async def request(
        self,
        destination: str,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        content: Any = None,
        timeout_ms: int | None = None,
        max_bytes: int | None = None,
    ) -> Any:
        """The JSON of the 2xx answer to a signed request.

        `path` begins with /_matrix/ and is encoded already; `query` is encoded here. `content` is the JSON body, None
        for no body. Without `timeout_ms` and `max_bytes` the configuration's bounds hold; a request may be given more
        time than that, ten minutes at most, and no more bytes. However long it may take, its answer has to arrive at
        some speed once it began. The answer is any JSON value, checked by `parse_json` alone.

        Raises RemoteFailure, and nothing else.
        """

    async def request_lists(
        self,
        destination: str,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        content: Any = None,
        lists: Mapping[str, int],
        take: TakeItems,
    ) -> dict[str, Any]:
        """The same for an answer, a JSON object, that has long lists of objects: `lists` says how many items each may
        have. They are handed to `take` as they arrive, some at a time, and no more is read meanwhile: the whole is
        never in memory. Returns the rest, with the lists empty.

        Raises RemoteFailure, and what `take` raises.
        """


class KeyRing(Protocol):
    """The keys that other servers sign with, and this server's own."""

    async def verify_keys(
        self, server_name: str, key_ids: Iterable[str], *, valid_at_ms: int
    ) -> Mapping[str, VerifyKey]:
        """Those of the keys, by key ID, that can be had and are or were valid at that time (ms since the epoch).

        Every key is valid at 0: that is what to ask for where validity does not count, as in room versions 1 to 4
        (`RoomVersion.enforce_key_validity`). Never raises for what cannot be had. Keys that are not known are fetched,
        which takes as long as a request may.
        """


class ServerKeys(KeyRing, Protocol):
    """The key ring with what authentication and a notary want of it."""

    def known_key(self, server_name: str, key_id: str, *, valid_at_ms: int) -> VerifyKey | None:
        """The key if it is in memory and valid at the time: the fast path."""

    async def load_answer(
        self, server_name: str, key_ids: Mapping[str, int], *, valid_at_ms: int
    ) -> ServerKeyAnswer | None:
        """What a server last said of its keys, fetched if need be; None where nothing was ever had.

        `key_ids` says until when which of its keys should be valid, `valid_at_ms` until when the answer should be.
        """


class Reachability(Protocol):
    """Which servers do not answer, and are left alone for a while."""

    on_recovered: list[Callable[[str], None]]
    """Called with the name of a server that was failing and is alive again, or that has signed a request."""

    def retry_ts(self, destination: str) -> int:
        """When a server may be tried (ms since the epoch); 0 for one that does not fail."""

    def is_alive(self, destination: str) -> None:
        """A server answered something: it may be tried at once."""

    def has_signed(self, origin: str) -> None:
        """A server signed a request: it may be tried at once, also where it answered with errors alone."""


class Network(Protocol):
    """The federation as one part of the server: what the composition root starts, hands out and stops."""

    @property
    def transport(self) -> Transport: ...

    @property
    def keys(self) -> ServerKeys: ...

    @property
    def destinations(self) -> Reachability: ...

    @property
    def media(self) -> RemoteMedia: ...

    @property
    def web(self) -> Web: ...

    async def open(self) -> None:
        """Takes up what was known before the restart."""

    async def run_forever(self) -> None:
        """Does what is to be done now and then, until cancelled."""

    async def close(self) -> None:
        """Ends what is under way, and closes all connections."""
