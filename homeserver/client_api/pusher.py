"""pusher.yaml"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import msgspec
import orjson

from homeserver.http.request import Request, Result, Route
from homeserver.services.errors import InvalidParam, MatrixError, MissingParam
from homeserver.services.push.pushers import EMAIL, HTTP
from matrix.third_party_ids import canonical_email
from storage.pushers import PusherRow

MAX_PUSHKEY_BYTES = 512
MAX_APP_ID_CHARS = 64
MAX_NAME_CHARS = 255
MAX_LANG_CHARS = 64
MAX_DATA_BYTES = 8192
EMAIL_APP_ID = "m.email"
NOTIFY_PATH = "/_matrix/push/v1/notify"
NO_COUNTS = "org.matrix.msc4076.disable_badge_count"


class PusherBody(msgspec.Struct):
    """The body of postPusher. What is None where `kind` is not is missing."""

    app_id: str
    pushkey: str
    kind: str | None
    app_display_name: str | None = None
    device_display_name: str | None = None
    profile_tag: str | None = None
    lang: str | None = None
    data: dict[str, Any] | None = None
    append: bool = False
    no_counts: bool = msgspec.field(default=False, name=NO_COUNTS)


def _check_text(name: str, text: str | None, max_chars: int) -> None:
    if text is not None and (len(text) > max_chars or "\0" in text):
        raise InvalidParam(f"{name} must not have more than {max_chars} characters, nor a NUL")


def _check_key(body: PusherBody) -> None:
    _check_text("app_id", body.app_id, MAX_APP_ID_CHARS)
    if not body.app_id or not body.pushkey:
        raise InvalidParam("app_id and pushkey must not be empty")
    if len(body.pushkey.encode()) > MAX_PUSHKEY_BYTES or "\0" in body.pushkey:
        raise InvalidParam(f"pushkey must not have more than {MAX_PUSHKEY_BYTES} bytes, nor a NUL")


def _check_url(url: object, *, allow_http: bool) -> None:
    """Whether a URL is one of a push gateway. Raises MissingParam, InvalidParam."""
    if url is None:
        raise MissingParam("Missing parameters: data.url")
    if not isinstance(url, str):
        raise InvalidParam("data.url must be a string")
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port  # which raises when it is none
    except ValueError:
        raise InvalidParam("data.url is not a URL") from None
    schemes = ("https", "http") if allow_http else ("https",)
    if parts.scheme not in schemes or not host or "@" in parts.netloc or any(c.isspace() or c < " " for c in url):
        raise InvalidParam(f"data.url must be a URL with {' or '.join(schemes)}")
    if parts.path != NOTIFY_PATH or parts.fragment:
        raise InvalidParam(f"The path of data.url must be {NOTIFY_PATH}")


async def _check_address(request: Request, body: PusherBody) -> None:
    """Whether mails may be sent where a pusher wants them: to an address that the user has proved to be theirs."""
    server, user_id = request.server, request.requester.user_id
    if server.email is None:
        raise InvalidParam("This server sends no e-mail")
    if body.app_id != EMAIL_APP_ID:
        raise InvalidParam(f"app_id must be {EMAIL_APP_ID} for this kind of pusher")
    if await server.third_party_ids.user_of(EMAIL, body.pushkey) != user_id:
        raise MatrixError(400, "M_THREEPID_NOT_FOUND", "This is not an address of your account")


def _pushkey(body: PusherBody) -> str:
    """The pushkey as it is kept: of the many ways to write an address one."""
    return (body.app_id == EMAIL_APP_ID and canonical_email(body.pushkey)) or body.pushkey


async def _row(request: Request, body: PusherBody, kind: str) -> PusherRow:
    """The pusher of a body. Raises MissingParam, InvalidParam, 400 M_THREEPID_NOT_FOUND."""
    wanted = ("app_display_name", "device_display_name", "lang", "data")
    missing = [name for name in wanted if getattr(body, name) is None]
    if missing:
        raise MissingParam(f"Missing parameters: {', '.join(missing)}")
    assert body.app_display_name is not None
    assert body.device_display_name is not None
    assert body.lang is not None
    assert body.data is not None
    for name in ("app_display_name", "device_display_name", "profile_tag"):
        _check_text(name, getattr(body, name), MAX_NAME_CHARS)
    _check_text("lang", body.lang, MAX_LANG_CHARS)
    if kind == HTTP:
        _check_url(body.data.get("url"), allow_http=request.server.config.push.allow_http)
    elif kind == EMAIL:
        await _check_address(request, body)
    else:
        raise InvalidParam("Not a kind of pusher")
    if body.no_counts:  # clients say so here, as the proposal has it, or in data
        body.data[NO_COUNTS] = True
    try:
        data = orjson.dumps(body.data)
    except orjson.JSONEncodeError:
        raise InvalidParam("A number in data is too large") from None
    if len(data) > MAX_DATA_BYTES:
        raise InvalidParam(f"data must not have more than {MAX_DATA_BYTES} bytes")
    requester = request.requester
    return PusherRow(
        pusher=0,
        user_id=requester.user_id,
        # Mails go on when the device that asked for them is logged out: they are for who has none at hand.
        device=requester.device if kind == HTTP else None,
        app_id=body.app_id,
        pushkey=_pushkey(body),
        kind=kind,
        app_display_name=body.app_display_name,
        device_display_name=body.device_display_name,
        profile_tag=body.profile_tag,
        lang=body.lang,
        data=data,
        set_ts=request.server.clock(),
        pushed_up_to=None,
    )


def _shown(row: PusherRow) -> dict[str, Any]:
    shown = {
        "pushkey": row.pushkey,
        "kind": row.kind,
        "app_id": row.app_id,
        "app_display_name": row.app_display_name,
        "device_display_name": row.device_display_name,
        "lang": row.lang,
        "data": orjson.loads(row.data),
    }
    return shown if row.profile_tag is None else {**shown, "profile_tag": row.profile_tag}


async def get_pushers(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushers"""
    rows = await request.server.pushers.rows(request.requester.user_id)
    return {"pushers": [_shown(row) for row in rows]}


async def post_pusher(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3pushersset"""
    body = await request.body(PusherBody)
    _check_key(body)
    server, user_id = request.server, request.requester.user_id
    if body.kind is None:
        await server.pushers.delete(user_id, body.app_id, _pushkey(body))
        return {}
    row = await _row(request, body, body.kind)
    server.rate_limits.check("pusher", user_id)
    await server.pushers.put(row, append=body.append)
    return {}


ROUTES = [
    Route("GET", "/_matrix/client/v3/pushers", "getPushers", get_pushers),
    Route("POST", "/_matrix/client/v3/pushers/set", "postPusher", post_pusher),
]
