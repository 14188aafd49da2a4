"""How a file is served: its type, whether browsers may show it, and its name in every script.

https://spec.matrix.org/v1.19/client-server-api/#serving-inline-content,
https://www.rfc-editor.org/rfc/rfc6266, https://www.rfc-editor.org/rfc/rfc8187
"""

import re
from typing import Final
from urllib.parse import quote, unquote_to_bytes

DEFAULT_CONTENT_TYPE: Final = "application/octet-stream"
MAX_CONTENT_TYPE_CHARACTERS: Final = 255
MAX_FILENAME_BYTES: Final = 1024

INLINE_TYPES: Final = frozenset(
    {
        *("text/css", "text/plain", "text/csv", "application/json", "application/ld+json"),
        *("image/jpeg", "image/gif", "image/png", "image/apng", "image/webp", "image/avif"),
        *("video/mp4", "video/webm", "video/ogg", "video/quicktime"),
        *("audio/mp4", "audio/webm", "audio/aac", "audio/mpeg", "audio/ogg", "audio/wave", "audio/wav"),
        *("audio/x-wav", "audio/x-pn-wav", "audio/flac", "audio/x-flac"),
    }
)

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = r'"(?:[\t !#-\[\]-~]|\\[\t -~])*"'
_is_content_type = re.compile(rf"{_TOKEN}/{_TOKEN}(?:[ \t]*;[ \t]*{_TOKEN}=(?:{_TOKEN}|{_QUOTED}))*").fullmatch
_PARAMETER = re.compile(rf"[ \t]*;[ \t]*({_TOKEN})[ \t]*=[ \t]*({_TOKEN}|{_QUOTED})?")
_ESCAPED = re.compile(r"\\(.)")
# What stands in a quoted string as it is, and what every client reads the same there: no `%`, which some decode.
_is_plain = re.compile(r"[ !#$&-~]*").fullmatch
# `attr-char` of RFC 8187, beyond letters and digits.
_ATTRIBUTE_CHARACTERS = "!#$&+-.^_`|~"


def clean_content_type(value: str | None) -> str:
    """A media type as it came, if it can be sent on; else the type of what is unknown."""
    if value is None or len(value) > MAX_CONTENT_TYPE_CHARACTERS or not _is_content_type(value):
        return DEFAULT_CONTENT_TYPE
    return value


def is_filename(value: str) -> bool:
    """Tell whether a name can be kept: of bounded length, without NUL characters, which no database text can have."""
    return "\0" not in value and len(value.encode("utf-8", "surrogatepass")) <= MAX_FILENAME_BYTES


def format_disposition(content_type: str, filename: str | None) -> str:
    """The Content-Disposition of a file: `inline` only for types that no browser runs as a program."""
    essence = content_type.partition(";")[0].strip().lower()
    kind = "inline" if essence in INLINE_TYPES else "attachment"
    if not filename:
        return kind
    if _is_plain(filename):
        escaped = filename.replace("\\", "\\\\")
        return f'{kind}; filename="{escaped}"'
    fallback = "".join(character if _is_plain(character) and character != "\\" else "_" for character in filename)
    return f"{kind}; filename=\"{fallback}\"; filename*=utf-8''{quote(filename, safe=_ATTRIBUTE_CHARACTERS)}"


def parse_filename(disposition: str) -> str | None:
    """The file name in a Content-Disposition header of another server, by preference from `filename*`.

    The header is text with a character per byte (Latin-1) or UTF-8 decoded with surrogate escapes.
    """
    found: dict[str, str] = {}
    position = disposition.find(";")
    while position >= 0 and (parameter := _PARAMETER.match(disposition, position)):
        name, value = parameter[1].lower(), parameter[2] or ""
        if value.startswith('"'):
            value = _ESCAPED.sub(r"\1", value[1:-1])
        found.setdefault(name, value)
        position = parameter.end()
    extended = _decode_extended(found.get("filename*", ""))
    filename = extended if extended is not None else found.get("filename")
    return filename if filename and is_filename(filename) else None


def _decode_extended(value: str) -> str | None:
    charset, quote_mark, rest = value.partition("'")
    _language, second_mark, encoded = rest.partition("'")
    if not (quote_mark and second_mark) or charset.lower() not in ("utf-8", "iso-8859-1"):
        return None
    try:
        return unquote_to_bytes(encoded).decode(charset.lower())
    except UnicodeDecodeError:
        return None
