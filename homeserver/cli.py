"""The `weft` command: runs the server, checks configurations, and looks after users.

What a user did wrong is answered with one line on standard error and exit status 2, never with a traceback.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import errno
import getpass
import ipaddress
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from config import checks
from config.appservices import load_registrations
from config.document import generate_yaml
from config.load import ConfigError, load_config, unknown_variables
from config.schema import Config, Listener
from homeserver.clock import now_ms
from homeserver.commands import (
    ROWS_AT_ONCE,
    Accounts,
    CommandError,
    UserCommand,
    create_registration_token,
    delete_registration_token,
    list_registration_tokens,
    list_reports,
)
from homeserver.companion import SummaryBot
from homeserver.logs import setup_logging
from homeserver.media_commands import add_media_commands
from homeserver.services.accounts.deactivation import Deactivation
from homeserver.services.accounts.login import Login
from homeserver.services.accounts.passwords import Passwords
from homeserver.services.accounts.registration import Registration
from homeserver.services.accounts.sessions import Sessions
from homeserver.services.errors import MatrixError
from homeserver.services.media.moderation import MediaModeration
from homeserver.services.rate_limits import RateLimiter
from homeserver.signing_key import SigningKeyError
from storage.accounts import AccountRepository, UserRow
from storage.database import Database, StorageError
from storage.embedded import EmbeddedPostgres
from storage.media import MediaRepository
from storage.reports import ReportRepository
from storage.tokens import TokenRepository

if TYPE_CHECKING:
    from homeserver.main import RunningServer

DEFAULT_DATA_DIR: Final = Path("weft-data")
DEFAULT_PORT: Final = 8008
CONFIG_FILE_NAME: Final = "homeserver.yaml"
MAX_PASSWORD_FILE_BYTES: Final = 4096
MAX_COUNT: Final = 1_000_000
EXIT_REFUSED: Final = 2
EXIT_INTERRUPTED: Final = 130

FIRST_CONFIG = """\
# Written by `weft up` on its first start: a server to try out, for this machine alone.
# `weft config generate` shows every option with its default.

# The name that users and rooms carry after the colon. It can never be changed: for a server that others talk to,
# start with a new data folder and your own domain here.
server_name: localhost

# Relative to this file.
data_dir: .

listeners:
  - address: 127.0.0.1
    port: {port}
    resources: [client, federation, media, metrics, health]

# Whoever reaches the listener may make an account. That is you, as long as it listens on 127.0.0.1:
# set this to `token` or `off` before you let others reach it.
registration:
  mode: open

logging:
  format: console
"""


Subparsers = Any
"""What `add_subparsers` returns; argparse does not name its type."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of `weft user list | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ConfigError as error:
        return _refuse(*error.problems)
    except (CommandError, StorageError, SigningKeyError) as error:
        return _refuse(str(error))
    except MatrixError as error:
        return _refuse(error.message)
    except subprocess.SubprocessError as error:
        return _refuse(f"the embedded PostgreSQL cannot be set up: {error}")
    except OSError as error:
        return _refuse(_describe(error))
    return 0


def _refuse(*problems: str) -> int:
    for problem in problems:
        print(f"weft: {problem}", file=sys.stderr)
    return EXIT_REFUSED


def _describe(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"{error.strerror}: stop the other program, or choose another port"
    if error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="weft", description="A Matrix homeserver.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    up = commands.add_parser("up", help="run a server, set up on the first start")
    up.add_argument("--data-dir", type=Path, default=DEFAULT_DATA_DIR, metavar="DIR", help="default: %(default)s")
    up.add_argument("--port", type=_port, metavar="N", help=f"port to listen on; default: {DEFAULT_PORT}")
    up.add_argument("--without-bot", action="store_true", help="do not run the summary bot beside the server")
    up.set_defaults(run=run_up)

    serve = commands.add_parser("serve", help="run a server with a configuration of your own")
    serve.add_argument("--config", type=Path, required=True, metavar="FILE")
    serve.set_defaults(run=run_serve)

    config = commands.add_parser("config", help="write or check a configuration")
    config_commands = config.add_subparsers(required=True, metavar="COMMAND")
    generate = config_commands.add_parser("generate", help="print a configuration file with every option")
    generate.add_argument("--server-name", default="localhost", metavar="NAME", help="default: %(default)s")
    generate.set_defaults(run=run_config_generate)
    check = config_commands.add_parser("check", help="say everything that is wrong with a configuration file")
    check.add_argument("--config", type=Path, required=True, metavar="FILE")
    check.set_defaults(run=run_config_check)

    _add_user_commands(commands.add_parser("user", help="look after users, whether the server runs or not"))
    _add_token_commands(commands.add_parser("registration-token", help="look after registration tokens"))
    reports = commands.add_parser("reports", help="what users have reported")
    reports_commands = reports.add_subparsers(required=True, metavar="COMMAND")
    _add_command(reports_commands, "list", list_reports, "print all reports, oldest first")
    add_media_commands(commands.add_parser("media", help="look after files"), _add_command, text=_text, count=_count)
    commands.add_parser("version", help="print the version").set_defaults(run=run_version)
    return parser


def _add_command(commands: Subparsers, name: str, command: UserCommand, description: str) -> argparse.ArgumentParser:
    """A command that works on the database of a configuration."""
    added: argparse.ArgumentParser = commands.add_parser(name, help=description)
    where = added.add_mutually_exclusive_group()
    where.add_argument("--config", type=Path, metavar="FILE")
    where.add_argument(
        "--data-dir", type=Path, default=DEFAULT_DATA_DIR, metavar="DIR", help="of `weft up`; default: %(default)s"
    )
    added.set_defaults(run=run_user_command, user_command=command)
    return added


def _add_token_commands(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    create = _add_command(commands, "create", create_registration_token, "make one, and print it")
    create.add_argument("--token", metavar="TEXT", help="default: a random one")
    create.add_argument(
        "--uses", type=_count, metavar="N", help="how many accounts it is good for; default: any number"
    )
    create.add_argument("--days", type=_count, metavar="N", help="how long it is good for; default: for ever")
    delete = _add_command(commands, "delete", delete_registration_token, "end one")
    delete.add_argument("token", type=_text)
    _add_command(commands, "list", list_registration_tokens, "print all but those of the configuration")


def _add_user_commands(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: UserCommand, description: str, *, password: bool = False) -> argparse.ArgumentParser:
        added = _add_command(commands, name, command, description)
        if password:
            added.add_argument(
                "--password-file", type=Path, metavar="FILE", help="`-` for standard input; default: asks for it"
            )
        return added

    create = add("create", create_user, "make an account", password=True)
    create.add_argument("user", type=_text, help="name, or full user ID")
    create.add_argument("--admin", action="store_true", help="as an administrator of the server")
    create.add_argument("--display-name", type=_text, metavar="NAME")
    reset = add("reset-password", reset_password, "set another password, and end all sessions", password=True)
    reset.add_argument("user", type=_text, help="name, or full user ID")
    deactivate = add("deactivate", deactivate_user, "close an account for ever; rooms keep it as a member")
    deactivate.add_argument("user", type=_text, help="name, or full user ID")
    deactivate.add_argument(
        "--erase",
        action="store_true",
        help="show newcomers nothing of what they wrote, and remove profile and account data",
    )
    add("list", list_users, "print all accounts")


def _text(argument: str) -> str:
    """An argument that goes into the database: bytes that are no text reach Python as lone surrogates."""
    if not argument.isascii() and any("\ud800" <= character <= "\udfff" for character in argument):
        raise argparse.ArgumentTypeError("not UTF-8 text")
    return argument


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_COUNT):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {MAX_COUNT}")
    return int(text)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port number")
    return int(text)


# Running the server --------------------------------------------------------------------------------------------------


def run_up(arguments: argparse.Namespace) -> None:
    """`weft up`: a data folder, a configuration in it unless there is one, the server, an administrator."""
    path = arguments.data_dir / CONFIG_FILE_NAME
    if not path.exists():
        write_first_config(path, port=arguments.port or DEFAULT_PORT)
    config = load_config(path)
    if arguments.port is not None:
        config = with_port(config, arguments.port)
    bot = None if arguments.without_bot else prepare_bot(config)

    async def on_ready(running: RunningServer) -> None:
        administrator = await running.server.registration.ensure_first_administrator()
        print_welcome(config, path, running.addresses, administrator)
        if bot is not None:
            bot.start()

    try:
        _serve(config, on_ready)
    finally:
        if bot is not None:
            bot.stop()


def prepare_bot(config: Config) -> SummaryBot | None:
    """The summary bot; None where no listener of this machine serves clients on a port."""
    for listener in config.listeners:
        if "client" in listener.resources and listener.unix_socket is None and is_loopback(listener):
            bot = SummaryBot(config, config.data_dir / "appservices", f"http://{listener.endpoint}")
            bot.prepare()
            return bot
    return None


def run_serve(arguments: argparse.Namespace) -> None:
    """`weft serve`: the server, and nothing that the configuration does not say."""
    config = load_config(arguments.config)

    async def on_ready(running: RunningServer) -> None:
        where = ", ".join(running.addresses)
        print(f"Weft serves {config.server_name} on {where}. SIGTERM or Ctrl-C stops it.", flush=True)

    _serve(config, on_ready)


def _serve(config: Config, on_ready: Callable[[RunningServer], Awaitable[None]]) -> None:
    from homeserver.main import run  # a second of imports that the other commands do without

    setup_logging(config.logging.level, config.logging.format)
    _warn_about_environment()
    if config.registration.mode == "open" and not all(is_loopback(listener) for listener in config.listeners):
        print("weft: warning: registration is open, and not only to this machine", file=sys.stderr)
    run(config, on_ready=on_ready)


def write_first_config(path: Path, *, port: int) -> None:
    """Makes the data folder and the configuration of a first start, readable for its owner alone."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(FIRST_CONFIG.format(port=port))


def with_port(config: Config, port: int) -> Config:
    """The configuration with the first listener that serves clients on another port. Raises CommandError."""
    for position, listener in enumerate(config.listeners):
        if "client" in listener.resources and listener.unix_socket is None:
            listeners = list(config.listeners)
            listeners[position] = dataclasses.replace(listener, port=port)
            if problem := checks.check_listeners(tuple(listeners)):
                raise CommandError(f"--port {port}: listeners {problem}")
            return dataclasses.replace(config, listeners=tuple(listeners))
    raise CommandError("--port: no listener of the configuration serves clients on a port")


def is_loopback(listener: Listener) -> bool:
    """Whether only this machine reaches the listener, or no client at all uses it."""
    return (
        "client" not in listener.resources
        or listener.unix_socket is not None
        or ipaddress.ip_address(listener.address).is_loopback
    )


def print_welcome(config: Config, path: Path, addresses: Sequence[str], administrator: tuple[str, str] | None) -> None:
    """Says where the server is and how it is stopped; and this once, the first administrator's password."""
    lines = [f"Weft is running at {config.base_url}, listening on {', '.join(addresses)}."]
    if administrator is not None:
        user_id, password = administrator
        lines += [
            f"Log in with any Matrix client as {user_id}",
            f"  with the password {password}",
            f"  It is shown this once: `weft user reset-password admin --data-dir {path.parent}` sets another.",
        ]
    lines += [f"Its configuration is {path}. Ctrl-C stops it."]
    print("\n".join(lines), flush=True)


# Configuration -------------------------------------------------------------------------------------------------------


def run_config_generate(arguments: argparse.Namespace) -> None:
    """`weft config generate`"""
    if problem := checks.check_server_name(arguments.server_name):
        raise CommandError(f"--server-name {problem}")
    print(generate_yaml(arguments.server_name), end="")


def run_config_check(arguments: argparse.Namespace) -> None:
    """`weft config check`"""
    config = load_config(arguments.config)
    load_registrations(config)
    _warn_about_environment()
    endpoints = ", ".join(listener.endpoint for listener in config.listeners)
    print(f"{arguments.config} is good: a server named {config.server_name} on {endpoints}.")


def _warn_about_environment() -> None:
    for name in unknown_variables():
        print(f"weft: warning: the environment variable {name} is no option", file=sys.stderr)


def run_version(_arguments: argparse.Namespace) -> None:
    """`weft version`"""
    print(f"weft {metadata.version('weft-homeserver')}")


# Users ---------------------------------------------------------------------------------------------------------------


def run_user_command(arguments: argparse.Namespace) -> None:
    """`weft user …`: works on the database itself, beside a server that runs or without one."""
    config = load_config(arguments.config or arguments.data_dir / CONFIG_FILE_NAME)
    with _database_url(config) as url:
        asyncio.run(_with_accounts(config, url, arguments))


@contextmanager
def _database_url(config: Config) -> Iterator[str]:
    if config.database.url is not None:
        yield config.database.url
        return
    with EmbeddedPostgres(config.postgres_dir) as postgres:
        yield postgres.url()


async def _with_accounts(config: Config, url: str, arguments: argparse.Namespace) -> None:
    database = Database(url, max_connections=2)
    try:
        await database.open()
        accounts = AccountRepository(database.pool)
        sessions = Sessions(accounts, now_ms, max_cached_tokens=0)
        passwords = Passwords(accounts, sessions)
        tokens = TokenRepository(database.pool)
        limits = RateLimiter(config.rate_limits, now_ms)
        login = Login(config.server_name, accounts, passwords, sessions, limits, tokens, now_ms)
        registration = Registration(config.registration, config.server_name, accounts, passwords, login, now_ms, tokens)
        await arguments.user_command(
            Accounts(
                config.server_name,
                accounts,
                tokens,
                ReportRepository(database.pool),
                passwords,
                registration,
                Deactivation(accounts, sessions),
                MediaModeration(MediaRepository(database.pool), now_ms, server_name=config.server_name),
            ),
            arguments,
        )
    finally:
        await database.close()


async def create_user(accounts: Accounts, arguments: argparse.Namespace) -> None:
    """`weft user create`"""
    username = _localpart(accounts, arguments.user)
    await accounts.registration.check_username(username)  # before a password is asked for
    user_id = await accounts.registration.create_user(
        username, read_password(arguments), is_admin=arguments.admin, displayname=arguments.display_name
    )
    print(f"{user_id} has been made{', an administrator' if arguments.admin else ''}.")


async def reset_password(accounts: Accounts, arguments: argparse.Namespace) -> None:
    """`weft user reset-password`"""
    user = await _open_account(accounts, arguments.user)
    await accounts.passwords.reset(user.user_id, read_password(arguments))
    print(f"{user.user_id} has a new password, and is logged out everywhere.")


async def deactivate_user(accounts: Accounts, arguments: argparse.Namespace) -> None:
    """`weft user deactivate`"""
    user = await _open_account(accounts, arguments.user)
    await accounts.deactivation.deactivate(user.user_id, erase=arguments.erase)
    print(f"{user.user_id} is deactivated.")


async def list_users(accounts: Accounts, _arguments: argparse.Namespace) -> None:
    """`weft user list`: a line per account: user ID, what is special about it, day of its making."""
    after = ""
    while rows := await accounts.accounts.load_users(after=after, limit=ROWS_AT_ONCE):
        for row in rows:
            marks = {
                "admin": row.is_admin,
                "deactivated": row.deactivated,
                "locked": row.locked,
                "suspended": row.suspended,
                "appservice": row.appservice_id is not None,
            }
            created = datetime.fromtimestamp(row.created_ts / 1000, UTC).date()
            print(row.user_id, ",".join(name for name, is_so in marks.items() if is_so) or "user", created, sep="\t")
        after = rows[-1].user_id


def _localpart(accounts: Accounts, user: str) -> str:
    if not user.startswith("@"):
        return user
    localpart, _, server_name = user[1:].partition(":")
    if server_name != accounts.server_name:
        raise CommandError(f"{user} is no user ID of {accounts.server_name}")
    return localpart


async def _open_account(accounts: Accounts, user: str) -> UserRow:
    user_id = f"@{_localpart(accounts, user)}:{accounts.server_name}"
    row = await accounts.accounts.load_user(user_id)
    if row is None:
        raise CommandError(f"there is no user {user_id}")
    if row.deactivated:
        raise CommandError(f"{user_id} is deactivated")
    return row


def read_password(arguments: argparse.Namespace) -> str:
    """The password from `--password-file`, from a prompt, or from standard input where nobody can be asked.

    A line break at its end does not belong to it. Raises CommandError.
    """
    path: Path | None = arguments.password_file
    if path is None and sys.stdin.isatty():
        password = getpass.getpass("Password: ")
        if getpass.getpass("Again: ") != password:
            raise CommandError("the passwords are not the same")
        return password
    if path is None or str(path) == "-":
        content = sys.stdin.buffer.read(MAX_PASSWORD_FILE_BYTES)
    else:
        with path.open("rb") as file:
            content = file.read(MAX_PASSWORD_FILE_BYTES)
    try:
        return content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise CommandError("the password is not UTF-8 text") from None


if __name__ == "__main__":
    sys.exit(main())
