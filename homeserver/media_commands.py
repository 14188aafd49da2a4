"""`weft media`: commands that look after files. They change the database; a server that runs deletes the bytes soon
after, and one that does not when it starts."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from homeserver.clock import now_ms
from homeserver.commands import Accounts, CommandError, UserCommand

DAY_MS = 24 * 3600 * 1000


def add_media_commands(
    parser: argparse.ArgumentParser,
    add: Callable[[Any, str, UserCommand, str], argparse.ArgumentParser],
    *,
    text: Callable[[str], str],
    count: Callable[[str], int],
) -> None:
    """Makes the commands by `add`; `text` and `count` read arguments."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command, description in (
        ("list", list_media, "print all files of a user"),
        ("delete-of", delete_media_of, "delete all files of a user"),
    ):
        add(commands, name, command, description).add_argument("user", type=text, help="name, or full user ID")
    delete = add(commands, "delete", delete_media, "delete a file")
    delete.add_argument("mxc", type=text, help="mxc://…")
    quarantine = add(commands, "quarantine", quarantine_media, "serve a content under none of its names")
    quarantine.add_argument("mxc", type=text, help="mxc://…, one of the names")
    quarantine.add_argument("--lift", action="store_true", help="serve it again")
    purge = add(commands, "purge-remote", purge_remote_media, "delete files of other servers")
    purge.add_argument("--days", type=count, required=True, metavar="N", help="those that nobody asked for so long")


async def list_media(accounts: Accounts, arguments: argparse.Namespace) -> None:
    """`weft media list`: a line per file: URI, time, bytes, type, what is special about it, name (as JSON)."""
    async for row in accounts.media.files_of(_user_id(accounts, arguments.user)):
        marks = {"awaited": not row.blob, "quarantined": row.quarantined}
        print(
            f"mxc://{row.origin}/{row.media_id}",
            datetime.fromtimestamp(row.created_ts / 1000, UTC).isoformat(timespec="seconds"),
            row.size,
            row.content_type or "unknown",
            ",".join(name for name, is_so in marks.items() if is_so) or "served",
            json.dumps(row.filename),
            sep="\t",
        )


async def delete_media(accounts: Accounts, arguments: argparse.Namespace) -> None:
    """`weft media delete`"""
    await accounts.media.delete(arguments.mxc)
    print(f"{arguments.mxc} is deleted.")


async def delete_media_of(accounts: Accounts, arguments: argparse.Namespace) -> None:
    """`weft media delete-of`"""
    user_id = _user_id(accounts, arguments.user)
    print(f"{await accounts.media.delete_files_of(user_id)} files of {user_id} are deleted.")


async def quarantine_media(accounts: Accounts, arguments: argparse.Namespace) -> None:
    """`weft media quarantine`"""
    await (accounts.media.end_quarantine if arguments.lift else accounts.media.quarantine)(arguments.mxc)
    print(f"{arguments.mxc} is {'served again' if arguments.lift else 'quarantined'}.")


async def purge_remote_media(accounts: Accounts, arguments: argparse.Namespace) -> None:
    """`weft media purge-remote`"""
    count = await accounts.media.purge_remote(before_ts=now_ms() - arguments.days * DAY_MS)
    print(f"{count} files of other servers are deleted.")


def _user_id(accounts: Accounts, user: str) -> str:
    if not user.startswith("@"):
        return f"@{user}:{accounts.server_name}"
    if user.partition(":")[2] != accounts.server_name:
        raise CommandError(f"{user} is no user ID of {accounts.server_name}")
    return user
