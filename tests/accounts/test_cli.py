"""The `weft` command, as it is called from a shell."""

from __future__ import annotations

import asyncio
import io
import json
import signal
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from config.load import load_config
from homeserver import cli
from storage.reports import ReportRepository
from tests.accounts.conftest import Services
from tests.ports import free_port


@pytest.fixture
def config_file(database_url: str, tmp_path: Path) -> Path:
    path = tmp_path / "homeserver.yaml"
    path.write_text(f"server_name: hs.test\ndatabase: {{url: '{database_url}'}}\n")
    return path


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text("wonderland\n")
    return path


async def run(arguments: list[str]) -> int:
    """The command on a loop of its own, as a shell would run it."""
    return await asyncio.to_thread(cli.main, arguments)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["version"]) == 0
    assert capsys.readouterr().out.startswith("weft 0.")


def test_a_generated_configuration_is_good(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "generate", "--server-name", "example.org"]) == 0
    path = tmp_path / "homeserver.yaml"
    path.write_text(capsys.readouterr().out)

    assert cli.main(["config", "check", "--config", str(path)]) == 0
    assert "example.org" in capsys.readouterr().out


def test_a_configuration_is_not_generated_for_an_impossible_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "generate", "--server-name", "not a name"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("weft: --server-name ")


def test_everything_wrong_with_a_configuration_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "homeserver.yaml"
    path.write_text("server_name: a b\nregistration: {mode: closed}\nnonsense: 1\n")

    assert cli.main(["config", "check", "--config", str(path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("weft: ") for line in lines)


def test_a_bad_registration_of_an_application_service_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, registration = tmp_path / "homeserver.yaml", tmp_path / "appservices" / "bridge.yaml"
    path.write_text("server_name: example.org\ndata_dir: .\n")
    registration.parent.mkdir()
    registration.write_text("id: bridge\n")

    assert cli.main(["config", "check", "--config", str(path)]) == 2
    assert capsys.readouterr().err == f"weft: {registration}: Object missing required field url\n"


@pytest.mark.parametrize(
    "command", [["serve"], ["config", "check"], ["user", "list"], ["user", "create", "alice"]], ids=" ".join
)
def test_a_missing_configuration_is_said_in_one_line(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*command, "--config", str(tmp_path / "none.yaml")]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"weft: {tmp_path}/none.yaml: cannot be read: No such file or directory"
    ]


def test_an_unreachable_database_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "homeserver.yaml"
    path.write_text("database: {url: 'postgresql://weft@127.0.0.1:1/weft'}\n")

    assert cli.main(["user", "list", "--config", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("weft: cannot use the PostgreSQL database: ")


@pytest.mark.parametrize(
    "arguments",
    [[], ["nonsense"], ["up", "--port", "0"], ["up", "--port", "http"], ["user"], ["user", "create", "\udcff"]],
)
def test_a_wrong_command_line_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        cli.main(arguments)
    assert exit.value.code == 2
    assert "usage: weft" in capsys.readouterr().err


async def test_users_are_made_listed_and_closed(
    config_file: Path, password_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--config", str(config_file)]
    password = [*given, "--password-file", str(password_file)]

    assert await run(["user", "create", "Alice", "--admin", *password]) == 0
    assert await run(["user", "create", "@bob:hs.test", *password]) == 0
    assert await run(["user", "reset-password", "bob", *password]) == 0
    assert await run(["user", "deactivate", "@bob:hs.test", *given]) == 0
    capsys.readouterr()
    assert await run(["user", "list", *given]) == 0

    rows = [line.split("\t")[:2] for line in capsys.readouterr().out.splitlines()]
    assert rows == [["@alice:hs.test", "admin"], ["@bob:hs.test", "deactivated"]]


async def test_what_cannot_be_done_with_a_user_is_said(
    config_file: Path, password_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--config", str(config_file)]
    password = [*given, "--password-file", str(password_file)]
    assert await run(["user", "create", "alice", *password]) == 0
    assert await run(["user", "deactivate", "alice", *given]) == 0
    capsys.readouterr()

    for command, said in {
        ("create", "alice", *password): "This user ID is already taken",
        ("create", "a b", *password): "A username may only have",
        ("create", "@alice:elsewhere.test", *password): "@alice:elsewhere.test is no user ID of hs.test",
        ("create", "carol", *given, "--password-file", "/dev/null"): "The password must not be empty",
        ("create", "carol", *given, "--password-file", "/no/such/file"): "/no/such/file: No such file or directory",
        ("reset-password", "bob", *password): "there is no user @bob:hs.test",
        ("reset-password", "alice", *password): "@alice:hs.test is deactivated",
        ("deactivate", "alice", *given): "@alice:hs.test is deactivated",
    }.items():
        assert await run(["user", *command]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"weft: {said}")


async def test_a_password_may_come_on_standard_input(
    config_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"wonderland\n")))

    assert await run(["user", "create", "alice", "--config", str(config_file)]) == 0
    assert capsys.readouterr().out == "@alice:hs.test has been made.\n"


def test_the_first_configuration_is_for_this_machine_and_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "data" / "homeserver.yaml"

    cli.write_first_config(path, port=8123)

    config = load_config(path, {})
    assert (config.server_name, config.registration.mode) == ("localhost", "open")
    assert config.base_url == "http://localhost:8123"
    assert config.data_dir.resolve() == path.parent.resolve()
    assert all(cli.is_loopback(listener) for listener in config.listeners)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_data_folder_that_cannot_be_made_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")

    assert cli.main(["up", "--data-dir", str(tmp_path / "file" / "data")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"weft: {tmp_path}/file/data: Not a directory"


def test_one_command_runs_a_server_with_an_administrator(tmp_path: Path) -> None:
    """The first start, a user command beside the running server, a port that is taken, a second start."""
    data_dir = tmp_path / "data"
    port = free_port()
    with weft_up(data_dir, port) as welcome:
        assert f"http://localhost:{port}" in welcome
        password = welcome.partition("with the password ")[2].split()[0]
        assert log_in(port, "admin", password)["user_id"] == "@admin:localhost"

        created = weft("user", "create", "bob", "--data-dir", str(data_dir), stdin="wonderland\n")
        assert (created.returncode, created.stdout) == (0, "@bob:localhost has been made.\n")
        assert log_in(port, "bob", "wonderland")["user_id"] == "@bob:localhost"

        taken = weft("up", "--data-dir", str(tmp_path / "other"), "--port", str(port))
        assert taken.returncode == 2
        assert "address already in use" in taken.stderr
        assert "Traceback" not in taken.stderr

    with weft_up(data_dir, port) as welcome:
        assert "password" not in welcome
        assert log_in(port, "admin", password)["user_id"] == "@admin:localhost"


def weft(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "homeserver.cli", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)


@contextmanager
def weft_up(data_dir: Path, port: int) -> Iterator[str]:
    """Runs `weft up` inside the `with`, which gets what it says; it has to stop cleanly when told to."""
    command = [sys.executable, "-m", "homeserver.cli", "up", "--data-dir", str(data_dir), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            welcome = []
            for line in process.stdout:
                welcome.append(line)
                if "Ctrl-C" in line:
                    break
            yield "".join(welcome)
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0


def log_in(port: int, user: str, password: str) -> dict[str, str]:
    body = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": user}, "password": password}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/_matrix/client/v3/login", json.dumps(body).encode(), method="POST"
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        answer: dict[str, str] = json.load(response)
        return answer


async def test_registration_tokens_are_made_listed_and_ended(
    config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--config", str(config_file)]

    assert await run(["registration-token", "create", "--token", "friends", "--uses", "2", *given]) == 0
    assert await run(["registration-token", "create", "--days", "1", *given]) == 0
    named, generated = capsys.readouterr().out.split()
    assert named == "friends"
    assert await run(["registration-token", "create", "--token", "friends", *given]) == 2
    assert await run(["registration-token", "create", "--token", "a b", *given]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2

    assert await run(["registration-token", "list", *given]) == 0
    rows = {line.split("\t")[0]: line.split("\t")[1:] for line in capsys.readouterr().out.splitlines()}
    assert rows["friends"] == ["0+0/2", "never"]
    assert rows[generated][0] == "0+0/any"

    assert await run(["registration-token", "delete", "friends", *given]) == 0
    assert await run(["registration-token", "delete", "friends", *given]) == 2
    assert "there is no such registration token" in capsys.readouterr().err


async def test_reports_are_listed_with_reasons_on_one_line(
    config_file: Path, services: Services, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = ReportRepository(services.database.pool)
    await reports.insert_report("@alice:hs.test", received_ts=0, reason="line\nbreak", room_id="!r:hs.test")
    await reports.insert_report("@alice:hs.test", received_ts=1000, reason="", user_id="@bob:hs.test")

    assert await run(["reports", "list", "--config", str(config_file)]) == 0

    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [row[1:] for row in rows] == [
        ["1970-01-01T00:00:00+00:00", "@alice:hs.test", "!r:hs.test", '"line\\nbreak"'],
        ["1970-01-01T00:00:01+00:00", "@alice:hs.test", "@bob:hs.test", '""'],
    ]
