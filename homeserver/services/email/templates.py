"""What mails say: Jinja templates, two for each mail, which administrators may replace by their own.

`NAME.txt` has the subject in its first line, an empty line and the text; `NAME.html` the same for those who like it
better. What a template is given stands beside each name in docs/operating.md. Those of notifications may be there for
several languages, in folders named for them (`de`, `pt-BR`), and are chosen by what a pusher says that its user reads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import jinja2

from config.errors import ConfigError

TEMPLATES: Final = Path(__file__).parents[2] / "mails"
NOTIFICATIONS: Final = "notifications"
KINDS: Final = ("txt", "html")
NAMES: Final = (
    "register",
    "register_known",
    "password",
    "password_unknown",
    "add",
    "add_known",
    NOTIFICATIONS,
)
# https://www.rfc-editor.org/rfc/rfc5646#section-2.1, as far as anybody has mails in it
LANGUAGE_TAG: Final = re.compile(r"[a-z]{2,3}(-[a-z0-9]{2,8}){0,3}", re.IGNORECASE | re.ASCII)


class Rendered(NamedTuple):
    """A mail's subject (one line), text and HTML."""

    subject: str
    text: str
    html: str


class Templates:
    """The templates of the server, and in their place those of a folder. Values in HTML are escaped."""

    def __init__(self, folder: Path | None) -> None:
        """Reads all templates. Raises ConfigError for one that cannot be used."""
        folders = [TEMPLATES] if folder is None else [folder, TEMPLATES]
        self._environment = _environment(folders)
        self._languages: dict[str, jinja2.Environment] = {}
        try:
            _read(self._environment, NAMES)
            for tag, own in ({} if folder is None else _languages(folder)).items():
                environment = self._languages[tag] = _environment([*own, *folders])
                _read(environment, [NOTIFICATIONS])
        except (jinja2.TemplateError, OSError, UnicodeDecodeError) as error:
            raise ConfigError([f"email.template_dir: a template cannot be used: {error}"]) from None

    def render(self, name: str, values: Mapping[str, Any], language: str | None = None) -> Rendered:
        """A mail with these values. Raises jinja2.TemplateError for a template that wants others.

        `language` is what somebody says that they read: nothing is read by that name, it is looked up among those that
        are there.
        """
        environment = self._environment
        if name == NOTIFICATIONS and language is not None:
            environment = self._of_language(language)
        subject, _, text = environment.get_template(f"{name}.txt").render(values).partition("\n")
        html = environment.get_template(f"{name}.html").render(values)
        return Rendered(subject.strip(), text.strip("\n") + "\n", html)

    def _of_language(self, language: str) -> jinja2.Environment:
        """Those of a language, or of the nearest that has some. https://www.rfc-editor.org/rfc/rfc4647#section-3.4"""
        tag = language.replace("_", "-").lower()
        for prefix in _prefixes(tag) if LANGUAGE_TAG.fullmatch(tag) else ():
            if (environment := self._languages.get(prefix)) is not None:
                return environment
        return self._environment


def _environment(folders: Sequence[Path]) -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders),
        autoescape=lambda name: name is not None and name.endswith(".html"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )


def _read(environment: jinja2.Environment, names: Sequence[str]) -> None:
    """Reads templates, and the page that they extend. Raises jinja2.TemplateError, OSError, UnicodeDecodeError."""
    for name in names:
        for kind in KINDS:
            environment.get_template(f"{name}.{kind}")
    environment.get_template("base.html")


def _languages(folder: Path) -> dict[str, list[Path]]:
    """Tag in lower case -> where to look for its templates: in its own folder, then in those of shorter tags.

    Raises ConfigError for a language that has half a mail, or two folders.
    """
    there: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if LANGUAGE_TAG.fullmatch(path.name) and any(_has(path, kind) for kind in KINDS):
            other = there.setdefault(path.name.lower(), path)
            if other is not path:
                raise ConfigError([f"email.template_dir: {other.name} and {path.name} are one language"])
    found = {tag: [there[prefix] for prefix in _prefixes(tag) if prefix in there] for tag in there}
    for tag, folders in found.items():
        for kind in KINDS:
            if not any(_has(path, kind) for path in folders):
                raise ConfigError([f"email.template_dir: {there[tag].name} has no {NOTIFICATIONS}.{kind}"])
    return found


def _has(folder: Path, kind: str) -> bool:
    return (folder / f"{NOTIFICATIONS}.{kind}").is_file()


def _prefixes(tag: str) -> list[str]:
    """A tag, and those of which it is a kind: de-at, de."""
    parts = tag.split("-")
    return ["-".join(parts[:count]) for count in range(len(parts), 0, -1)]
