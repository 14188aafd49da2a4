"""Names of files, `mxc://server/media-id`: https://spec.matrix.org/v1.19/client-server-api/#matrix-content-mxc-uris"""

import re
from typing import Final

from matrix.identifiers import is_server_name

MAX_MEDIA_ID_CHARACTERS: Final = 255

# https://spec.matrix.org/v1.19/client-server-api/#content-repo-security-considerations: nothing that leads elsewhere.
_is_media_id = re.compile(r"[0-9A-Za-z_-]{1,255}").fullmatch


def is_media_name(origin: str, media_id: str) -> bool:
    """Tell whether a file may have this name: a server name, and letters, digits, `_` and `-`."""
    return is_server_name(origin) and _is_media_id(media_id) is not None


def parse_mxc(uri: str) -> tuple[str, str] | None:
    """Split a URI into the server name and the media ID; None for what is no such URI."""
    origin, slash, media_id = uri.removeprefix("mxc://").partition("/")
    if uri.startswith("mxc://") and slash and is_media_name(origin, media_id):
        return origin, media_id
    return None


def format_mxc(origin: str, media_id: str) -> str:
    """The URI of a name."""
    return f"mxc://{origin}/{media_id}"
