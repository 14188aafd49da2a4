"""The summary bot beside `weft up`: a program of its own, which the server starts, minds and stops.


The bot gets a folder in the data folder with its configuration (to be edited: `weft up` writes it once), and its
registration goes to where the server picks registrations up. It ends when its standard input does, that is also when
the server is killed.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

from config.schema import Config
from storage.database import StorageError
from storage.embedded import EmbeddedPostgres

FIRST_RESTART_S: Final = 1.0
MAX_RESTART_S: Final = 60.0
STOP_TIMEOUT_S: Final = 10.0

DATABASE_VARIABLE: Final = "WEFT_SUMMARY_BOT_DATABASE"
EXIT_REFUSED: Final = 2

FIRST_CONFIG = """\
# The summary bot beside this server, written by `weft up` on its first start. docs/summary-bot.md explains it all.
homeserver:
  url: {url}
  domain: {domain}
appservice:
  registration: {registration}
  address: 127.0.0.1
  port: {port}
database:
  url: {{env: {variable}}}
administrators: ["@admin:{domain}"]
# encryption: {{key: {{file: encryption.key}}}}  # reads encrypted rooms; the registration has to ask for it, too

# Without a provider the bot picks sentences by itself. With one, it writes:
# providers:
#   - name: ollama
#     base_url: http://127.0.0.1:11434/v1
#     model: {{name: llama3.1}}
#     local: true
#   - name: openai
#     base_url: https://api.openai.com/v1
#     api_key: {{file: openai.key}}
#     model: {{name: gpt-4o-mini, input_price: 0.15, output_price: 0.60}}
"""


class SummaryBot:
    """The child process. All of it happens in a thread: nothing of the server ever waits for the bot."""

    def __init__(self, config: Config, appservices_dir: Path, base_url: str) -> None:
        """`base_url`: where the bot finds the server."""
        self._config = config
        self._base_url = base_url
        self._directory = config.data_dir / "summary-bot"
        self._registration = appservices_dir / "summary-bot.yaml"
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None

    @property
    def config_file(self) -> Path:
        """Where its configuration is."""
        return self._directory / "config.yaml"

    def prepare(self) -> None:
        """Writes configuration and registration, where there is none: before the server reads registrations.

        Raises OSError.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self.config_file.exists():
            text = FIRST_CONFIG.format(
                url=self._base_url,
                domain=self._config.server_name,
                registration=os.path.relpath(self._registration, self._directory),
                port=_free_port(),
                variable=DATABASE_VARIABLE,
            )
            _write_private(self.config_file, text)
        if not self._registration.exists():
            # The configuration asks for a database, of which a registration knows nothing.
            environment = os.environ | {DATABASE_VARIABLE: "postgresql://"}
            command = [*self._command(), "registration"]
            if subprocess.run(command, env=environment, check=False, stdout=subprocess.DEVNULL).returncode:
                raise OSError("the summary bot could not be registered: it said why above")

    def start(self) -> None:
        """Begins to mind the bot, once the server answers."""
        self._thread = threading.Thread(target=self._mind, name="summary bot", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the bot and waits for it."""
        self._stopping.set()
        process = self._process
        if process is not None and process.stdin is not None:
            process.stdin.close()
        if self._thread is not None:
            self._thread.join(STOP_TIMEOUT_S)
        if process is not None and process.poll() is None:
            process.kill()

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "appservices.summary_bot", "--config", str(self.config_file)]

    def _mind(self) -> None:
        """Starts the bot, and starts it again when it ends; one whose configuration is refused is left alone."""
        wait_s = FIRST_RESTART_S
        url = self._database_url()
        while url is not None and not self._stopping.is_set():
            with (self._directory / "log").open("ab") as log:
                environment = os.environ | {DATABASE_VARIABLE: url}
                command = [*self._command(), "run", "--until-stdin-ends", "--homeserver", self._base_url]
                self._process = subprocess.Popen(
                    command, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
                )
            if self._stopping.is_set() and self._process.stdin is not None:
                self._process.stdin.close()
            if self._process.wait() == EXIT_REFUSED and not self._stopping.is_set():
                print(f"weft: the summary bot does not start: {self._directory / 'log'} tells why", file=sys.stderr)
                return
            self._stopping.wait(wait_s)
            wait_s = min(2 * wait_s, MAX_RESTART_S)

    def _database_url(self) -> str | None:
        """The server's database, where the bot has a schema of its own."""
        if self._config.database.url is not None:
            return self._config.database.url
        try:
            with EmbeddedPostgres(self._config.postgres_dir) as embedded:
                return embedded.url()
        except StorageError as error:
            print(f"weft: the summary bot has no database: {error}", file=sys.stderr)
            return None


def _write_private(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
