"""What mails say: Jinja templates, two for each mail, which administrators may replace by their own.

`NAME.txt` has the subject in its first line, an empty line and the text; `NAME.html` the same for those who like it
better. What a template is given stands beside each name in docs/operating.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import jinja2

from config.errors import ConfigError

TEMPLATES: Final = Path(__file__).parents[2] / "mails"
NAMES: Final = (
    "register",
    "register_known",
    "password",
    "password_unknown",
    "add",
    "add_known",
    "notifications",
)


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
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(folders),
            autoescape=lambda name: name is not None and name.endswith(".html"),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        try:
            for name in NAMES:
                self._environment.get_template(f"{name}.txt")
                self._environment.get_template(f"{name}.html")
        except (jinja2.TemplateError, OSError, UnicodeDecodeError) as error:
            raise ConfigError([f"email.template_dir: a template cannot be used: {error}"]) from None

    def render(self, name: str, values: Mapping[str, Any]) -> Rendered:
        """A mail with these values. Raises jinja2.TemplateError for a template that wants others."""
        subject, _, text = self._environment.get_template(f"{name}.txt").render(values).partition("\n")
        html = self._environment.get_template(f"{name}.html").render(values)
        return Rendered(subject.strip(), text.strip("\n") + "\n", html)
