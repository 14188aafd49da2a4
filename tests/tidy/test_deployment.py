"""What is shipped for running the server fits together: container, compose file, example configuration, packages."""

from __future__ import annotations

import configparser
import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

from config.load import load_config
from tests.tidy.sources import PRODUCT, ROOT

EXAMPLE = ROOT / "docs" / "examples" / "compose" / "homeserver.yaml"


def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    return document


def test_the_example_configuration_is_good(tmp_path: Path) -> None:
    secret = tmp_path / "database_url"
    secret.write_text("postgresql://weft:secret@postgres/weft\n")
    file = tmp_path / "homeserver.yaml"
    file.write_text(EXAMPLE.read_text(encoding="utf-8").replace("/run/secrets/database_url", str(secret)))
    environment = {"WEFT_SERVER_NAME": "example.org", "WEFT_PUBLIC_BASE_URL": ""}
    config = load_config(file, environment)
    assert config.server_name == "example.org"
    assert config.base_url == "https://example.org"
    assert config.database.url == "postgresql://weft:secret@postgres/weft"
    assert config.redis.url == "redis://redis:6379/0"
    assert [listener.port for listener in config.listeners] == [8008, 9108]
    assert config.registration.mode == "off"


def test_the_compose_file_refers_to_what_there_is() -> None:
    document = compose()
    services, secrets, volumes = document["services"], document["secrets"], document["volumes"]
    for service in services.values():
        assert set(service.get("secrets", ())) <= set(secrets)
        assert set(service.get("depends_on", {})) <= set(services)
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert source in volumes or (ROOT / source).exists(), volume
    used = {secret for service in services.values() for secret in service.get("secrets", ())}
    assert used == set(secrets)
    text = (ROOT / "docs" / "examples" / "README.md").read_text(encoding="utf-8")
    for secret in secrets.values():
        assert secret["file"].removeprefix("./") in text, "the manual says how to make each secret"


def test_what_the_server_waits_for_has_a_health_check() -> None:
    services = compose()["services"]
    for name, condition in services["weft"]["depends_on"].items():
        assert condition == {"condition": "service_healthy"}
        assert services[name]["healthcheck"]["test"]
    assert "HEALTHCHECK" in (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_the_container_does_not_run_as_root() -> None:
    users = re.findall(r"^USER (\w+)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert users == ["weft"]


def test_every_package_is_shipped() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["options.packages.find"]["include"].split() == [f"{package}*" for package in PRODUCT]
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert set(re.findall(r"^COPY (\w+) \1$", dockerfile, re.MULTILINE)) == set(PRODUCT)
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(pyproject["tool"]["mypy"]["packages"]) == set(PRODUCT)
    assert set(pyproject["tool"]["importlinter"]["root_packages"]) == set(PRODUCT)


def test_every_requirement_is_pinned_within_its_range() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    pins = dict(
        line.lower().replace("_", "-").split("==")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    )
    extras = setup["options.extras_require"]
    wanted = [
        *setup["options"]["install_requires"].splitlines(),
        *extras["test"].splitlines(),
        *extras["bench"].splitlines(),
    ]
    for requirement in filter(None, wanted):
        name, *bounds = re.split(r"\s*(?:,\s*)?(>=|<)\s*", requirement.strip())
        pin = pins.get(name.lower())
        assert pin is not None, f"constraints.txt does not pin {name}"
        version = [int(part) for part in re.findall(r"\d+", pin)]
        for relation, bound in zip(bounds[::2], bounds[1::2], strict=True):
            limit = [int(part) for part in bound.split(".")]
            assert (version >= limit) if relation == ">=" else (version < limit), f"{name} {pin}: {relation} {bound}"
