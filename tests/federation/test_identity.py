"""What a server says of itself to others."""

from __future__ import annotations

from matrix.signatures import verify_json_signature
from matrix.unpadded_base64 import decode_base64
from tests.client import Homeserver


async def test_the_published_key_signs_its_own_publication(shared_homeserver: Homeserver) -> None:
    keys = (await shared_homeserver.request("GET", "/_matrix/key/v2/server")).ok()
    assert keys["server_name"] == "weft.test"
    assert keys["old_verify_keys"] == {}
    ((key_id, key),) = keys["verify_keys"].items()
    assert verify_json_signature(keys, "weft.test", key_id, decode_base64(key["key"]))


async def test_the_version_names_the_software(shared_homeserver: Homeserver) -> None:
    version = (await shared_homeserver.request("GET", "/_matrix/federation/v1/version")).ok()
    assert version["server"]["name"] == "Weft"
    assert version["server"]["version"]
