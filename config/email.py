"""The options of e-mail. `config.schema` puts them with the others."""

# ruff: noqa: RUF009 -- `option` is a `dataclasses.field`, and every default given to it is immutable.

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from config import checks
from config.declare import option
from config.secret import Secret

SmtpTls = Literal["none", "starttls", "tls"]


@dataclass(frozen=True, slots=True)
class Email:
    """E-mail: addresses of accounts, forgotten passwords, notifications. Off without a `host`."""

    host: str | None = option(None, "SMTP server to send through; null turns e-mail off.", check=checks.check_mail_host)
    port: int = option(587, "Its port.", minimum=1, maximum=65535)
    tls: SmtpTls = option(
        "starttls", "TLS from the start (`tls`), after STARTTLS (`starttls`), or not at all (`none`)."
    )
    ca_file: Path | None = option(None, "PEM certificates to trust for it besides the system's own.", must_exist=True)
    username: str | None = option(None, "User name to log in with, where the SMTP server wants that.")
    password: Secret | None = option(None, "Password of `username`.", secret=True)
    from_address: str | None = option(
        None, "Address that mails come from, such as `noreply@example.org`.", check=checks.check_email_address
    )
    app_name: str = option("Matrix", "What mails call the service.")
    client_base_url: str | None = option(
        None,
        "URL of a web client, such as `https://chat.example.org`, to which people may be led on by themselves once an "
        "address is confirmed; null for none.",
        check=checks.check_http_url,
    )
    template_dir: Path | None = option(
        None,
        "Folder with templates of your own, which take the place of those here. Folders in it that are named for "
        "languages (`de`, `pt-BR`) have those of notifications for whoever reads that language.",
    )
    allowed_domains: tuple[str, ...] = option(
        (), "Domains whose addresses accounts may have; none for any.", check=checks.check_mail_host
    )
    reveal_addresses: bool = option(
        False,
        "Whether clients are told that an account has, or has not, the address that a mail is asked for. Else the mail "
        "says so, and nobody finds out whose addresses are here.",
    )
    notify_after_ms: int = option(
        600_000,
        "How long something that notifies a user may be unread before those who want it get a mail; the wait grows for "
        "rooms that are not read after a mail.",
        minimum=1,
    )
    max_notify_interval_ms: int = option(86_400_000, "Longest such wait.", minimum=1)
    timeout_ms: int = option(20_000, "How long the SMTP server may take for each step.", minimum=1)
    min_retry_interval_ms: int = option(
        10_000, "Wait before a mail that failed is tried again; it doubles with each failure.", minimum=1
    )
    max_retry_interval_ms: int = option(300_000, "Longest such wait.", minimum=1)

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong between options: pairs of a key and a complaint."""
        if self.min_retry_interval_ms > self.max_retry_interval_ms:
            yield "min_retry_interval_ms", f"must not be above max_retry_interval_ms, {self.max_retry_interval_ms}"
        if self.host is not None and self.from_address is None:
            yield "from_address", "must be set when host is"
        if (self.username is None) != (self.password is None):
            missing, given = ("username", "password")[:: -1 if self.username else 1]
            yield missing, f"must be set too when {given} is"
        if self.password is not None and self.tls == "none":
            yield "tls", "must not be none when password is set"
