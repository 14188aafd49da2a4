"""content_repository.yaml: files of this server, for other servers."""

from __future__ import annotations

from functools import partial

from homeserver.http.files import CACHE_PRIVATELY, FileAnswer, send_multipart, wait_ms, wanted_thumbnail
from homeserver.http.request import Request, Result, Route
from homeserver.services.media.contents import Content
from homeserver.services.media.downloads import content_of
from matrix.content_disposition import format_disposition
from storage.media import MediaRow


async def get_content(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1mediadownloadmediaid"""
    content = content_of(await _find(request))
    return await _send(request, content, format_disposition(content.content_type, content.filename))


async def get_content_thumbnail(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1mediathumbnailmediaid"""
    wanted = wanted_thumbnail(request)
    found = content_of(await _find(request))
    thumbnail = await request.server.media.thumbnails.thumbnail(found, wanted, is_remote=False)
    return await _send(request, thumbnail, format_disposition(thumbnail.content_type, None))


async def _find(request: Request) -> MediaRow:
    """The file, which is this server's own: others are to be asked for theirs."""
    server = request.server
    return await server.media.downloads.find(
        server.config.server_name, request.params["mediaId"], timeout_ms=wait_ms(request), allow_remote=False
    )


async def _send(request: Request, content: Content, disposition: str) -> Result:
    contents = request.server.media.contents
    answer = FileAnswer(
        size=content.size,
        etag=content.etag,
        content_type=content.content_type,
        disposition=disposition,
        cache_control=CACHE_PRIVATELY,
        open=partial(contents.open, content),
    )
    return await send_multipart(request, answer, location=await contents.presign(content, disposition))


MEDIA = "/_matrix/federation/v1/media"

ROUTES = [
    Route("GET", f"{MEDIA}/download/{{mediaId}}", "getContent", get_content, signed=True, resource="federation"),
    Route(
        "GET",
        f"{MEDIA}/thumbnail/{{mediaId}}",
        "getContentThumbnail",
        get_content_thumbnail,
        signed=True,
        resource="federation",
    ),
]
