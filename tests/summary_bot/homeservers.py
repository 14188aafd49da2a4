"""Homeservers to run the bot beside, as programs of their own: Weft, and the Synapse of `make test`."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from tests.interop.synapse import PYTHON as SYNAPSE_PYTHON
from tests.ports import free_port

DOMAIN = "weft.test"
START_TIMEOUT_S = 60.0

KINDS = ("weft", "synapse")


@dataclass(frozen=True, slots=True)
class Server:
    """A homeserver that runs."""

    kind: str
    base_url: str
    pid: int


@asynccontextmanager
async def homeserver(kind: str, directory: Path, database_url: str, registration: Path) -> AsyncIterator[Server]:
    """A homeserver of a kind, that knows an application service."""
    port = free_port()
    write = {"weft": _write_weft, "synapse": _write_synapse}[kind]
    command = write(directory, port, database_url, registration)
    with (directory / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log, cwd=directory)
    try:
        await _until_ready(process, f"http://127.0.0.1:{port}", directory / "log")
        yield Server(kind, f"http://127.0.0.1:{port}", process.pid)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def _write_weft(directory: Path, port: int, database_url: str, registration: Path) -> list[str]:
    config = directory / "homeserver.yaml"
    settings = {
        "server_name": DOMAIN,
        "data_dir": str(directory / "data"),
        "listeners": [{"address": "127.0.0.1", "port": port, "resources": ["client", "media", "health"]}],
        "database": {"url": database_url},
        "registration": {"mode": "open"},
        "rate_limits": {"enabled": False},
        "appservices": [str(registration)],
        "logging": {"level": "WARNING"},
    }
    config.write_text(yaml.safe_dump(settings))
    return [sys.executable, "-m", "homeserver.cli", "serve", "--config", str(config)]


def _write_synapse(directory: Path, port: int, _database_url: str, registration: Path) -> list[str]:
    """https://element-hq.github.io/synapse/latest/usage/configuration/config_documentation.html"""
    limit = {"per_second": 1_000_000, "burst_count": 1_000_000}
    limits = {"local": limit, "remote": limit}
    settings: dict[str, Any] = {
        "server_name": DOMAIN,
        "report_stats": False,
        "listeners": [
            {"type": "http", "port": port, "bind_addresses": ["127.0.0.1"], "resources": [{"names": ["client"]}]}
        ],
        "database": {"name": "sqlite3", "args": {"database": str(directory / "synapse.db")}},
        "log_config": str(directory / "log.yaml"),
        "media_store_path": str(directory / "media"),
        "signing_key_path": str(directory / "signing.key"),
        "macaroon_secret_key": secrets.token_hex(16),
        "form_secret": secrets.token_hex(16),
        "trusted_key_servers": [],
        "enable_registration": True,
        "enable_registration_without_verification": True,
        "app_service_config_files": [str(registration)],
        "bcrypt_rounds": 4,
        "rc_message": limit,
        "rc_registration": limit,
        "rc_login": {"address": limit, "account": limit, "failed_attempts": limit},
        "rc_joins": limits,
        "rc_invites": {"per_room": limit, "per_user": limit, "per_issuer": limit},
        "rc_room_creation": limit,
        # What encryption needs of a homeserver: https://docs.mau.fi/bridges/general/end-to-bridge-encryption.html
        "experimental_features": {
            "msc2409_to_device_messages_enabled": True,
            "msc3202_device_masquerading": True,
            "msc3202_transaction_extensions": True,
        },
    }
    (directory / "synapse.yaml").write_text(yaml.safe_dump(settings))
    logging: dict[str, Any] = {"version": 1, "root": {"level": "WARNING", "handlers": ["console"]}}
    logging["handlers"] = {"console": {"class": "logging.StreamHandler"}}
    (directory / "log.yaml").write_text(yaml.safe_dump(logging))
    return [str(SYNAPSE_PYTHON), "-m", "synapse.app.homeserver", "--config-path", str(directory / "synapse.yaml")]


async def _until_ready(process: asyncio.subprocess.Process, base_url: str, log: Path) -> None:
    async with asyncio.timeout(START_TIMEOUT_S), aiohttp.ClientSession() as session:
        while process.returncode is None:
            try:
                async with session.get(f"{base_url}/_matrix/client/versions") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                await asyncio.sleep(0.1)
    raise AssertionError(f"the homeserver does not start:\n{_tail(log)}")


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-3000:]
