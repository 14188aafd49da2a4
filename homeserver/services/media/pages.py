"""What a web page says of itself. Only `worker` imports this: hostile pages are read in a process of its own.

https://ogp.me, https://oembed.com
"""

from __future__ import annotations

import codecs
import re
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final
from urllib.parse import urljoin

MAX_TEXT_CHARACTERS: Final = 1000
MAX_URL_CHARACTERS: Final = 2048
MAX_PARAGRAPH_CHARACTERS: Final = 500
HEAD_BYTES: Final = 4096
"""Where a page may say how it is encoded."""

# https://encoding.spec.whatwg.org/#names-and-labels, by the names that Python has: encodings of text, and no others.
ENCODINGS: Final = frozenset(
    {
        *("utf-8", "utf-16", "utf-16-le", "utf-16-be", "koi8-r", "koi8-u", "cp866", "cp874", "mac-roman"),
        *("gb18030", "big5hkscs", "euc_jp", "iso2022_jp", "cp932", "cp949"),
        *(f"iso8859-{number}" for number in range(2, 17)),
        *(f"cp125{number}" for number in range(9)),
    }
)
BROADER: Final = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "big5": "big5hkscs",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
}
"""What browsers read for names that pages use for more than they stand for."""
PROPERTIES: Final = ("og:title", "og:description", "og:site_name", "og:type", "og:url", "og:locale")
SKIPPED: Final = frozenset({"script", "style", "noscript", "template", "nav", "header", "footer", "aside", "svg"})

_CHARSET = re.compile(rb"""<meta[^>]{0,200}charset\s*=\s*["']?\s*([A-Za-z0-9_:.-]{1,40})""", re.IGNORECASE)
_SPACE = re.compile(r"\s+")


def read_page(job: dict[str, Any], _max_pixels: int) -> dict[str, Any]:
    """Properties of the page in the file `source`, fetched from `url` with the HTTP header's `charset`:

    `og`, whose values are text; `image` and `oembed`, absolute URLs or None.
    """
    data = Path(job["source"]).read_bytes()
    reader = _Reader()
    # Not closed: at the end of a page the library looks again behind each tag that does not end, which takes for ever.
    # The line break has it hand out text that ends like a character reference.
    with suppress(AssertionError):  # of marked sections that are none: what stands before them has been read
        reader.feed(decode(data, job["charset"]) + "\n")
    base = _absolute(job["url"], reader.base) or job["url"]
    og = {name: reader.meta[name] for name in PROPERTIES if reader.meta.get(name)}
    title = og.get("og:title") or reader.meta.get("twitter:title") or reader.text("title") or reader.text("h1")
    description = (
        og.get("og:description")
        or reader.meta.get("twitter:description")
        or reader.meta.get("description")
        or reader.text("p")[:MAX_PARAGRAPH_CHARACTERS]
    )
    og |= {name: text for name, text in (("og:title", title), ("og:description", description)) if text}
    meta = reader.meta
    image = meta.get("og:image:secure_url") or meta.get("og:image") or meta.get("og:image:url")
    return {
        "og": og,
        "image": _absolute(base, image or meta.get("twitter:image") or reader.links.get("image_src")),
        "oembed": _absolute(base, reader.links.get("oembed")),
    }


def decode(data: bytes, charset: str | None) -> str:
    """The text of a page: by its byte order mark, the HTTP header, the page's own word, or a guess."""
    for mark in (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        if data.startswith(mark):
            return data.decode("utf-8" if mark == codecs.BOM_UTF8 else "utf-16", "replace").lstrip("\ufeff")
    said = _CHARSET.search(data[:HEAD_BYTES])
    own_word = _encoding(said[1].decode("ascii")) if said else None
    if own_word is not None and own_word.startswith("utf-16"):
        own_word = "utf-8"  # it could not have been found like this
    if (encoding := _encoding(charset) or own_word) is not None:
        return data.decode(encoding, "replace")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        # A page that was cut short may end within a character.
        return data.decode("utf-8" if error.start >= len(data) - 3 else "cp1252", "replace")


def _encoding(name: str | None) -> str | None:
    label = (name or "").lower().removeprefix("x-").removeprefix("x-").replace("windows-", "cp")
    try:
        found = codecs.lookup(label).name
    except (LookupError, ValueError):  # a NUL character is an error of its own
        return None
    found = BROADER.get(found, found)
    return found if found in ENCODINGS else None


def _absolute(base: str, url: str | None) -> str | None:
    if not url:
        return None
    try:
        joined = urljoin(base, url.strip())
    except ValueError:  # brackets that hold no address, say: the page has more to say than this
        return None
    return joined if joined.startswith(("http://", "https://")) and len(joined) <= MAX_URL_CHARACTERS else None


class _Reader(HTMLParser):
    """Gathers what a page says of itself."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.meta: dict[str, str] = {}
        self.links: dict[str, str] = {}
        self.base: str | None = None
        self._texts: dict[str, list[str]] = {"title": [], "h1": [], "p": []}
        self._sizes = dict.fromkeys(self._texts, 0)
        self._inside: str | None = None
        self._skipping: str | None = None

    def text(self, tag: str) -> str:
        """What stands in the elements of a name: title, h1 or p."""
        return _clean("".join(self._texts[tag]))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in reversed(attrs) if value is not None}
        if tag == "meta":
            name = (values.get("property") or values.get("name") or "").strip().lower()
            if name and "content" in values:
                self.meta.setdefault(name, _clean(values["content"]))
        elif tag == "link":
            self._link(values)
        elif tag == "base":
            self.base = self.base or values.get("href")
        elif tag in SKIPPED:
            self._skipping = self._skipping or tag
        elif tag in self._texts and not self._skipping:
            self._inside = tag
            self._add(" ")

    def _link(self, values: dict[str, str]) -> None:
        relations = values.get("rel", "").lower().split()
        if "alternate" in relations and values.get("type", "").lower() == "application/json+oembed":
            self.links.setdefault("oembed", values.get("href", ""))
        if "image_src" in relations:
            self.links.setdefault("image_src", values.get("href", ""))

    def handle_endtag(self, tag: str) -> None:
        if tag == self._skipping:
            self._skipping = None
        if tag == self._inside:
            self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside is not None and not self._skipping:
            self._add(data)

    def _add(self, data: str) -> None:
        assert self._inside is not None
        if self._sizes[self._inside] < MAX_TEXT_CHARACTERS * 2:
            self._texts[self._inside].append(data[: MAX_TEXT_CHARACTERS * 2])
            self._sizes[self._inside] += len(data)


def _clean(text: str) -> str:
    return _SPACE.sub(" ", text.replace("\0", ""))[: MAX_TEXT_CHARACTERS + 1].strip()[:MAX_TEXT_CHARACTERS]
