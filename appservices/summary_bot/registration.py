"""The file that tells a homeserver about the bot.

https://spec.matrix.org/v1.19/application-service-api/#registration
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

import yaml

from appservices.summary_bot.config import Config, ConfigError

TOKEN_BYTES = 32


def generate_registration(config: Config) -> dict[str, object]:
    """A registration with new tokens: one user, the bot's, and receipts, from which it learns where people left off.

    With encryption also what it needs, under the names that the proposals have: messages to devices, changes of devices
    and counts of keys (MSC3202, MSC4203), and a device without a login (MSC4190).
    """
    encryption: dict[str, object] = {}
    if config.encryption is not None:
        encryption = {"org.matrix.msc3202": True, "io.element.msc4190": True}
    return {
        "id": config.appservice.id,
        "url": config.public_url,
        "as_token": secrets.token_urlsafe(TOKEN_BYTES),
        "hs_token": secrets.token_urlsafe(TOKEN_BYTES),
        "sender_localpart": config.appservice.localpart,
        "rate_limited": False,
        "receive_ephemeral": True,
        # The name that servers used before ephemeral events were in the specification.
        "de.sorunome.msc2409.push_ephemeral": True,
        **encryption,
        "namespaces": {
            "users": [{"exclusive": True, "regex": f"^{re.escape(config.user_id)}$"}],
            "aliases": [],
            "rooms": [],
        },
    }


def write_registration(config: Config, path: Path) -> None:
    """Writes a new registration file, readable for its owner alone. Raises ConfigError when there is one."""
    text = yaml.safe_dump(generate_registration(config), sort_keys=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{path} is there already: remove it to make new tokens") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
