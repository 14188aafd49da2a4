"""Commands of `weft` that look after registration tokens and reports: what `homeserver.cli` calls."""

from __future__ import annotations

import argparse
import json
import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final, NamedTuple

from homeserver.clock import now_ms
from homeserver.services.accounts.deactivation import Deactivation
from homeserver.services.accounts.passwords import Passwords
from homeserver.services.accounts.registration import PENDING_MS, REGISTRATION_TOKEN, Registration
from homeserver.services.media.moderation import MediaModeration
from storage.accounts import AccountRepository
from storage.reports import ReportRepository
from storage.tokens import TokenRepository

ROWS_AT_ONCE: Final = 500
REGISTRATION_TOKEN_BYTES: Final = 12


class CommandError(Exception):
    """What cannot be done, in one line for the user."""


class Accounts(NamedTuple):
    """What the commands that work on the database work with."""

    server_name: str
    accounts: AccountRepository
    tokens: TokenRepository
    reports: ReportRepository
    passwords: Passwords
    registration: Registration
    deactivation: Deactivation
    media: MediaModeration


UserCommand = Callable[[Accounts, argparse.Namespace], Awaitable[None]]


async def create_registration_token(accounts: Accounts, arguments: argparse.Namespace) -> None:
    """`weft registration-token create`"""
    token = arguments.token or secrets.token_urlsafe(REGISTRATION_TOKEN_BYTES)
    if not REGISTRATION_TOKEN.fullmatch(token):
        raise CommandError("a registration token may have up to 64 letters, digits and . _ ~ -")
    now = now_ms()
    expires_ts = None if arguments.days is None else now + arguments.days * 24 * 3600 * 1000
    if not await accounts.tokens.insert_registration_token(
        token, uses_allowed=arguments.uses, now_ms=now, expires_ts=expires_ts
    ):
        raise CommandError("there is such a registration token already")
    print(token)


async def delete_registration_token(accounts: Accounts, arguments: argparse.Namespace) -> None:
    """`weft registration-token delete`"""
    if not await accounts.tokens.delete_registration_token(arguments.token):
        raise CommandError("there is no such registration token")


async def list_registration_tokens(accounts: Accounts, _arguments: argparse.Namespace) -> None:
    """`weft registration-token list`: a line per token: text, uses done, under way and allowed, when it expires."""
    after = ""
    since = now_ms() - PENDING_MS
    while rows := await accounts.tokens.load_registration_tokens(
        pending_since_ts=since, after=after, limit=ROWS_AT_ONCE
    ):
        for row in rows:
            uses = f"{row.completed}+{row.pending}/{'any' if row.uses_allowed is None else row.uses_allowed}"
            print(row.token, uses, "never" if row.expires_ts is None else _time(row.expires_ts), sep="\t")
        after = rows[-1].token


async def list_reports(accounts: Accounts, _arguments: argparse.Namespace) -> None:
    """`weft reports list`: a line per report: number, time, who reported, what is reported, why (as JSON)."""
    after = 0
    while rows := await accounts.reports.load_reports(after=after, limit=ROWS_AT_ONCE):
        for row in rows:
            what = " ".join(name for name in (row.user_id, row.room_id, row.event_id) if name is not None)
            print(row.report, _time(row.received_ts), row.reporter, what, json.dumps(row.reason), sep="\t")
        after = rows[-1].report


def _time(timestamp_ms: int) -> str:
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC).isoformat(timespec="seconds")
