"""Listeners: TLS, Unix sockets, and what each of them serves."""

from __future__ import annotations

import datetime
import ssl
import tempfile
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from config.errors import ConfigError
from config.schema import Listener
from homeserver.main import running
from tests.conftest import make_config

VERSIONS = "/_matrix/client/versions"


def write_certificate(folder: Path, *, password: bytes | None = None) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "weft.test")])
    today = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(today).not_valid_after(today.replace(year=2120))
    certificate = builder.sign(key, hashes.SHA256())
    locked = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, locked))
    return cert_file, key_file


async def get(
    url: str, path: str, *, trusted: Path | None = None, socket: Path | None = None
) -> tuple[int, dict[str, object]]:
    """What is answered at an address, or on a Unix socket."""
    connector: aiohttp.BaseConnector = aiohttp.UnixConnector(str(socket)) if socket else aiohttp.TCPConnector()
    tls = ssl.create_default_context(cafile=trusted) if trusted else None
    if tls is not None:
        tls.check_hostname = False
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(url + path, ssl=tls or True) as answer,
    ):
        return answer.status, await answer.json()


async def test_listeners_serve_what_they_are_for(database_url: str, tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    with tempfile.TemporaryDirectory() as short:  # the path of a socket has room for a hundred bytes
        socket = Path(short) / "weft"
        listeners = (
            Listener(port=0, tls_certificate=certificate, tls_key=key, resources=frozenset({"client"})),
            Listener(unix_socket=socket, resources=frozenset({"client", "health"})),
            Listener(port=0, resources=frozenset({"health"})),
        )
        for _ in range(2):  # the second time the socket's file is there already
            async with running(replace(make_config(tmp_path), listeners=listeners), database_url) as server:
                tls, unix, health = server.addresses
                assert unix == str(socket)
                status, body = await get(f"https://{tls}", VERSIONS, trusted=certificate)
                assert (status, "versions" in body) == (200, True)
                assert (await get(f"https://{tls}", "/health", trusted=certificate))[0] == 404
                assert (await get("http://localhost", VERSIONS, socket=socket))[0] == 200
                assert (await get("http://localhost", "/ready", socket=socket)) == (200, {"status": "ready"})
                assert (await get(f"http://{health}", "/health")) == (200, {"status": "ok"})
                status, body = await get(f"http://{health}", VERSIONS)
                assert (status, body["errcode"]) == (404, "M_UNRECOGNIZED")


@pytest.mark.parametrize("fault", ["nonsense", "another's key", "a locked key"])
async def test_a_certificate_that_cannot_be_used_is_named(database_url: str, tmp_path: Path, fault: str) -> None:
    certificate, key = write_certificate(tmp_path, password=b"x" if fault == "a locked key" else None)
    if fault == "nonsense":
        certificate.write_text("nonsense")
    elif fault == "another's key":
        (tmp_path / "other").mkdir()
        _, key = write_certificate(tmp_path / "other")
    listeners = (Listener(port=8448, tls_certificate=certificate, tls_key=key),)
    with pytest.raises(ConfigError) as refused:
        async with running(replace(make_config(tmp_path), listeners=listeners), database_url):
            pass
    [problem] = refused.value.problems
    assert "127.0.0.1:8448" in problem
    assert str(certificate) in problem
    assert str(key) in problem
