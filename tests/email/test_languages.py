"""Templates in several languages: which of them a mail is written by."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from config.errors import ConfigError
from homeserver.services.email.templates import KINDS, Templates

VALUES = {"app_name": "Weft", "server_name": "weft.test", "address": "a@e.org", "link": "https://weft.test/"}
HOSTILE = [
    "",
    "en",
    "pt",
    "css",
    "d",
    "..",
    "../",
    "de/..",
    "de/../..",
    "de\0",
    "de\n",
    "-",
    "de-",
    "\uff44e",
    "de" * 32,
]


def write(folder: Path, kinds: Iterable[str] = KINDS) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for kind in kinds:
        (folder / f"notifications.{kind}").write_text(f"{folder.name}.{kind}\n")


def chosen(templates: Templates, language: str | None) -> tuple[str, str]:
    """Subject and HTML, which tell where they come from."""
    rendered = templates.render("notifications", {}, language)
    return rendered.subject, rendered.html


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "mails"
    for path in (tmp_path, folder, folder / "de", folder / "pt-BR", folder / "Not a tag", folder / "..x"):
        write(path)
    write(folder / "de-AT", ["txt"])
    write(folder / "css", [])
    return folder


def test_the_nearest_language_that_is_there_is_chosen(folder: Path) -> None:
    templates = Templates(folder)
    for language in ("de", "DE-ch", "de_CH", "de-Latn-CH"):
        assert chosen(templates, language) == ("de.txt", "de.html")
    for language in ("de-AT", "de_at", "de-AT-1996"):
        assert chosen(templates, language) == ("de-AT.txt", "de.html")
    assert chosen(templates, "pt-br") == ("pt-BR.txt", "pt-BR.html")
    assert templates.render("register", VALUES, "de").subject == "Confirm your address for Weft"


def test_what_clients_name_leads_to_no_other_folder(folder: Path) -> None:
    templates = Templates(folder)
    write(folder / "fr")  # after the start
    for language in (None, "fr", "Not a tag", "..x", *HOSTILE):
        assert chosen(templates, language) == ("mails.txt", "mails.html")


def test_half_a_language_and_two_of_one_are_refused(folder: Path) -> None:
    (folder / "pt-BR" / "notifications.html").unlink()
    with pytest.raises(ConfigError, match=r"email\.template_dir: pt-BR has no notifications\.html"):
        Templates(folder)
    write(folder / "pt-br")
    with pytest.raises(ConfigError, match=r"email\.template_dir: pt-BR and pt-br are one language"):
        Templates(folder)
    (folder / "de" / "notifications.txt").write_text("{% if %}")
    (folder / "pt-br").rename(folder / "pt-br of before")
    write(folder / "pt-BR")
    with pytest.raises(ConfigError, match=r"email\.template_dir: a template cannot be used"):
        Templates(folder)
