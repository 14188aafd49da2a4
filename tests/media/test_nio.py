"""Pictures and files by a client library that somebody else wrote, matrix-nio."""

from __future__ import annotations

import io
import os

import nio

from tests.client import Homeserver
from tests.clients.test_nio import client, expect
from tests.media.support import image_bytes, opened


async def test_a_picture_is_sent_and_seen(shared_homeserver: Homeserver) -> None:
    async with client(shared_homeserver, "fay") as fay, client(shared_homeserver, "gus") as gus:
        picture = image_bytes((800, 600))
        sent, keys = await fay.upload(
            io.BytesIO(picture), content_type="image/png", filename="Straße.png", filesize=len(picture)
        )
        uri = expect(nio.UploadResponse, sent).content_uri
        assert keys is None
        seen = expect(nio.MemoryDownloadResponse, await gus.download(uri))
        assert (seen.body, seen.content_type, seen.filename) == (picture, "image/png", "Straße.png")
        origin, media_id = uri.removeprefix("mxc://").split("/")
        small = expect(nio.ThumbnailResponse, await gus.thumbnail(origin, media_id, 96, 96, nio.ResizingMethod.crop))
        assert opened(small.body).size == (96, 96)


async def test_an_encrypted_file_is_sent_and_read(shared_homeserver: Homeserver) -> None:
    async with client(shared_homeserver, "hal") as hal, client(shared_homeserver, "ida") as ida:
        secret = os.urandom(200_000)
        sent, keys = await hal.upload(io.BytesIO(secret), filename="x", encrypt=True, filesize=len(secret))
        assert keys is not None
        seen = expect(nio.MemoryDownloadResponse, await ida.download(expect(nio.UploadResponse, sent).content_uri))
        assert seen.body != secret
        key, digest = keys["key"]["k"], keys["hashes"]["sha256"]
        assert nio.crypto.attachments.decrypt_attachment(seen.body, key, digest, keys["iv"]) == secret
