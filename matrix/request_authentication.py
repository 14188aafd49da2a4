"""Signed requests between servers: the JSON that is signed, and the header that carries the signature.

https://spec.matrix.org/v1.19/server-server-api/#request-authentication
"""

import re
from dataclasses import dataclass
from typing import Any, Final

from matrix.identifiers import is_server_name
from matrix.signatures import SigningKey, VerifyKey, sign_json, verify_json_signature

SCHEME: Final = "X-Matrix"
MAX_HEADER_CHARS: Final = 4096

# https://www.rfc-editor.org/rfc/rfc9110#section-5.6.2, and the colons that older servers leave without quotes. The
# other characters of Base64 are taken too: there is nothing else that they could mean.
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_VALUE = r"[!#$%&'*+.^_`|~0-9A-Za-z:/=-]+"
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_parameter = re.compile(
    rf"(?P<name>{_TOKEN})[ \t]*=[ \t]*(?:(?P<value>{_VALUE})|(?P<quoted>{_QUOTED}))[ \t]*", re.ASCII
)
_separator = re.compile(r"(?:,[ \t]*)+", re.ASCII)
_scheme = re.compile(r"[ \t]*x-matrix +(?:,[ \t]*)*", re.ASCII | re.IGNORECASE)
_escaped = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Authorization:
    """What an X-Matrix header says: who signed, with which key, for whom (None where older servers leave it out)."""

    origin: str
    key_id: str
    signature: str
    destination: str | None = None

    def __str__(self) -> str:
        destination = "" if self.destination is None else f',destination="{self.destination}"'
        return f'{SCHEME} origin="{self.origin}"{destination},key="{self.key_id}",sig="{self.signature}"'


def parse_authorization(header: str) -> Authorization:
    """Read an Authorization header. Raises ValueError unless it is an X-Matrix header with all that it needs.

    Names may be in any case and any order, unknown ones are ignored; a name that comes twice is refused, since two
    readers could take it for different things.
    """
    if len(header) > MAX_HEADER_CHARS:
        raise ValueError(f"the header has more than {MAX_HEADER_CHARS} characters")
    match = _scheme.match(header)
    if match is None:
        raise ValueError(f"the header is not of the scheme {SCHEME}")
    parameters = _parse_parameters(header, match.end())
    missing = [name for name in ("origin", "key", "sig") if name not in parameters]
    if missing:
        raise ValueError(f"{', '.join(missing)} is missing")
    if not is_server_name(parameters["origin"]):
        raise ValueError("origin is not a server name")
    return Authorization(parameters["origin"], parameters["key"], parameters["sig"], parameters.get("destination"))


def _parse_parameters(text: str, at: int) -> dict[str, str]:
    parameters: dict[str, str] = {}
    separated = True
    while at < len(text):
        match = _parameter.match(text, at) if separated else None
        if match is None:
            raise ValueError("the parameters are not a list of name=value")
        name, quoted = match["name"].lower(), match["quoted"]
        if name in parameters:
            raise ValueError(f"{name} is there twice")
        parameters[name] = match["value"] if quoted is None else _escaped.sub(r"\1", quoted[1:-1])
        between = _separator.match(text, match.end())
        separated = between is not None
        at = match.end() if between is None else between.end()
    return parameters


def sign_request(
    method: str, uri: str, *, origin: str, destination: str, content: Any = None, key: SigningKey
) -> Authorization:
    """Sign a request; `uri` is the path and the query as they are sent, `content` the JSON body or None for none.

    Raises JsonError for content that cannot be encoded.
    """
    signed = sign_json(_signed_json(method, uri, origin, destination, content), origin, key)
    return Authorization(origin, key.key_id, signed["signatures"][origin][key.key_id], destination)


def verify_request(
    authorization: Authorization, key: VerifyKey, method: str, uri: str, *, destination: str, content: Any = None
) -> bool:
    """Tell whether the request bears the signature of its origin, for `destination`, with the key."""
    request = _signed_json(method, uri, authorization.origin, destination, content)
    request["signatures"] = {authorization.origin: {authorization.key_id: authorization.signature}}
    return key.key_id == authorization.key_id and verify_json_signature(
        request, authorization.origin, key.key_id, key.public_key
    )


def _signed_json(method: str, uri: str, origin: str, destination: str, content: Any) -> dict[str, Any]:
    request = {"method": method, "uri": uri, "origin": origin, "destination": destination}
    if content is not None:
        request["content"] = content
    return request
