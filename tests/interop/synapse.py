"""A Synapse of PyPI, in a virtual environment of its own, as the other server of tests."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from benchmarks.authority import Authority
from tests.client import Homeserver, User

PYTHON = Path(__file__).resolve().parents[2] / ".synapse-venv" / "bin" / "python"
"""Installed by `make test`."""
STARTS_WITHIN_S = 60
STOPS_WITHIN_S = 20


def configuration(
    directory: Path, server_name: str, client_port: int, authority: Authority, certificate: tuple[Path, Path]
) -> dict[str, Any]:
    """A server on SQLite that trusts the tests' authority, may reach loopback, and limits nobody."""
    limits = {"per_second": 10_000, "burst_count": 10_000}
    port = int(server_name.rpartition(":")[2])
    return {
        "server_name": server_name,
        "report_stats": False,
        "pid_file": str(directory / "pid"),
        "signing_key_path": str(directory / "signing.key"),
        "log_config": str(directory / "log.yaml"),
        "media_store_path": str(directory / "media"),
        "tls_certificate_path": str(certificate[0]),
        "tls_private_key_path": str(certificate[1]),
        "federation_custom_ca_list": [str(authority.ca_file)],
        "ip_range_blacklist": [],
        "ip_range_whitelist": ["127.0.0.0/8", "::1/128"],
        "trusted_key_servers": [],
        "suppress_key_server_warning": True,
        "registration_shared_secret": directory.name,
        "macaroon_secret_key": secrets.token_hex(16),
        "form_secret": secrets.token_hex(16),
        "database": {"name": "sqlite3", "args": {"database": str(directory / "homeserver.db")}},
        "allow_public_rooms_over_federation": True,
        "listeners": [
            {
                "type": "http",
                "port": client_port,
                "bind_addresses": ["127.0.0.1"],
                "resources": [{"names": ["client"]}],
            },
            {
                "type": "http",
                "port": port,
                "tls": True,
                "bind_addresses": ["127.0.0.1"],
                "resources": [{"names": ["federation", "media"]}],
            },
        ],
        "rc_message": limits,
        "rc_registration": limits,
        "rc_joins": {"local": limits, "remote": limits},
        "rc_invites": {"per_room": limits, "per_user": limits, "per_issuer": limits},
        "rc_federation": {"window_size": 1000, "sleep_limit": 10_000, "reject_limit": 10_000, "concurrent": 50},
        "federation": {"max_short_retries": 2, "destination_min_retry_interval": "1s"},
    }


class Synapse(Homeserver):
    """A running Synapse."""

    def __init__(self, base_url: str, server_name: str, shared_secret: str) -> None:
        super().__init__(base_url)
        self.server_name = server_name
        self._shared_secret = shared_secret
        self._names = iter(range(10**9))

    async def register(self, name: str | None = None) -> User:
        """A new user, logged in."""
        name = name or f"user{next(self._names)}"
        password = f"password of {name}"
        nonce = (await self.request("GET", "/_synapse/admin/v1/register")).ok()["nonce"]
        mac = hmac.new(self._shared_secret.encode(), digestmod=hashlib.sha1)
        mac.update(b"\0".join(part.encode() for part in (nonce, name, password, "notadmin")))
        body = {"nonce": nonce, "username": name, "password": password, "admin": False, "mac": mac.hexdigest()}
        answer = (await self.request("POST", "/_synapse/admin/v1/register", body)).ok()
        return User(self, answer["user_id"], answer["access_token"], answer["device_id"])


class SynapseProcess:
    """A Synapse that can be stopped and started again on the same data."""

    def __init__(self, directory: Path, config: dict[str, Any], client_port: int) -> None:
        self.directory = directory
        self.server_name: str = config["server_name"]
        self.base_url = f"http://127.0.0.1:{client_port}"
        (directory / "homeserver.yaml").write_text(yaml.safe_dump(config))
        (directory / "log.yaml").write_text(yaml.safe_dump(LOGGING | {"handlers": _handlers(directory / "log")}))
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Returns once it answers."""
        command = [PYTHON, "-m", "synapse.app.homeserver", "-c", self.directory / "homeserver.yaml"]
        keys = self.directory / "signing.key"
        if not keys.exists():
            made = await self._run(*command, "--generate-keys")
            assert await made.wait() == 0, self._output()
        self._process = await self._run(*command)
        async with asyncio.timeout(STARTS_WITHIN_S), aiohttp.ClientSession() as session:
            while True:
                assert self._process.returncode is None, self._output()
                try:
                    async with session.get(f"{self.base_url}/_matrix/client/versions") as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientConnectionError:
                    await asyncio.sleep(0.1)

    async def _run(self, *command: object) -> asyncio.subprocess.Process:
        with (self.directory / "output").open("ab") as output:
            return await asyncio.create_subprocess_exec(
                *map(str, command), stdout=output, stderr=output, cwd=self.directory
            )

    def _output(self) -> str:
        return (self.directory / "output").read_text()[-4000:]

    async def stop(self) -> None:
        """Returns once it has ended."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), STOPS_WITHIN_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        self._process = None


LOGGING = {
    "version": 1,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "root": {"level": "INFO", "handlers": ["file"]},
    "disable_existing_loggers": False,
}


def _handlers(path: Path) -> dict[str, Any]:
    return {"file": {"class": "logging.FileHandler", "formatter": "plain", "filename": str(path)}}


@asynccontextmanager
async def running_synapse(
    directory: Path, host: str, ports: tuple[int, int], authority: Authority, certificate: tuple[Path, Path]
) -> AsyncIterator[tuple[SynapseProcess, Synapse]]:
    """A Synapse named `host` with the first of the ports; clients use the second."""
    config = configuration(directory, f"{host}:{ports[0]}", ports[1], authority, certificate)
    process = SynapseProcess(directory, config, ports[1])
    await process.start()
    try:
        async with Synapse(process.base_url, process.server_name, directory.name) as homeserver:
            yield process, homeserver
    finally:
        await process.stop()
