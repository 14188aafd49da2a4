"""The `weft-summary-bot` command."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from appservices.summary_bot.config import Config, ConfigError, load_config, with_homeserver
from appservices.summary_bot.registration import write_registration
from appservices.summary_bot.storage.database import StorageError

EXIT_REFUSED = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="weft-summary-bot", description="A Matrix bot that says what people missed in a room."
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the configuration, YAML")
    commands = parser.add_subparsers(metavar="COMMAND")
    run = commands.add_parser("run", help="run the bot (the default)")
    run.add_argument("--until-stdin-ends", action="store_true", help="stop when standard input ends, too")
    run.add_argument(
        "--homeserver", metavar="URL", help="where the homeserver is; default: as the configuration has it"
    )
    run.set_defaults(command=_run)
    commands.add_parser("check", help="say what is wrong with the configuration").set_defaults(command=_check)
    registration = commands.add_parser("registration", help="write the registration file for the homeserver")
    registration.add_argument("--out", type=Path, metavar="FILE", help="default: as the configuration has it")
    registration.set_defaults(command=_register)
    parser.set_defaults(command=_run, until_stdin_ends=False, homeserver=None)
    arguments = parser.parse_args(argv)
    try:
        arguments.command(load_config(arguments.config), arguments)
    except (ConfigError, StorageError) as error:
        print(f"weft-summary-bot: {error}", file=sys.stderr)
        return EXIT_REFUSED
    except OSError as error:
        print(f"weft-summary-bot: {error.strerror or error}", file=sys.stderr)
        return EXIT_REFUSED
    return 0


def _check(config: Config, arguments: argparse.Namespace) -> None:
    print(f"{arguments.config} is good: {config.user_id} beside {config.homeserver.url}.")


def _register(config: Config, arguments: argparse.Namespace) -> None:
    path = arguments.out or Path(config.appservice.registration)
    write_registration(config, path)
    print(f"Wrote {path}. Name it in the configuration of the homeserver, too.")


def _run(config: Config, arguments: argparse.Namespace) -> None:
    from appservices.summary_bot.main import run

    setup_logging(config.logging.level)
    if arguments.homeserver is not None:
        config = with_homeserver(config, arguments.homeserver)

    async def until_stopped() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        if arguments.until_stdin_ends:
            loop.add_reader(sys.stdin.fileno(), stop.set)  # nothing is ever written there: readable means ended
        await run(config, stop)

    asyncio.run(until_stopped())


def setup_logging(level: str) -> None:
    """Lines on standard error. mautrix's request lines have contents of events in them and are never shown."""
    logging.basicConfig(stream=sys.stderr, level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in ("mau", "aiohttp.access", "openai", "httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
