"""authed-content-repo.yaml: downloads and thumbnails with an access token."""

from __future__ import annotations

from homeserver.client_api.media_answers import (
    MediaRequest,
    send_content,
    send_thumbnail,
    url_preview,
)
from homeserver.http.files import CACHE_PRIVATELY, wanted_thumbnail
from homeserver.http.request import Request, Result, Route


async def get_content_authed(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediadownloadservernamemediaid"""
    return await send_content(request, await _found(request), request.params.get("fileName"))


async def get_content_override_name_authed(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediadownloadservernamemediaidfilename"""
    return await get_content_authed(request)


async def get_content_thumbnail_authed(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediathumbnailservernamemediaid"""
    wanted = wanted_thumbnail(request)
    return await send_thumbnail(request, await _found(request), wanted)


async def get_config_authed(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediaconfig"""
    return {"m.upload.size": request.server.config.media.max_upload_bytes}


async def get_url_preview_authed(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediapreview_url"""
    return await url_preview(request)


async def _found(request: Request) -> MediaRequest:
    wanted = MediaRequest.of(request)
    row = await request.server.media.downloads.find(*wanted.name, timeout_ms=wanted.timeout_ms)
    # Where a token is needed, every client has to follow redirects.
    return wanted.found(row, may_redirect=True, cache_control=CACHE_PRIVATELY)


DOWNLOAD = "/_matrix/client/v1/media/download/{serverName}/{mediaId}"
THUMBNAIL = "/_matrix/client/v1/media/thumbnail/{serverName}/{mediaId}"

ROUTES = [
    Route("GET", DOWNLOAD, "getContentAuthed", get_content_authed, resource="media"),
    Route(
        "GET",
        DOWNLOAD + "/{fileName}",
        "getContentOverrideNameAuthed",
        get_content_override_name_authed,
        resource="media",
    ),
    Route("GET", THUMBNAIL, "getContentThumbnailAuthed", get_content_thumbnail_authed, resource="media"),
    Route(
        "GET", "/_matrix/client/v1/media/config", "getConfigAuthed", get_config_authed, resource="media", limited=True
    ),
    Route(
        "GET", "/_matrix/client/v1/media/preview_url", "getUrlPreviewAuthed", get_url_preview_authed, resource="media"
    ),
]
