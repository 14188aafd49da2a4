"""content-repo.yaml: uploads, and the deprecated downloads that need no access token."""

from __future__ import annotations

from homeserver.client_api.media_answers import (
    MediaRequest,
    send_content,
    send_thumbnail,
    url_preview,
)
from homeserver.http.files import CACHE_PUBLICLY, body_chunks, wanted_thumbnail
from homeserver.http.request import Request, Result, Route
from homeserver.services.media.uploads import IncomingFile
from matrix.mxc import format_mxc


async def upload_content(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixmediav3upload"""
    server, user_id = request.server, request.requester.user_id
    server.rate_limits.check("media_upload", user_id)
    media_id = await server.media.uploads.upload(user_id, incoming_file(request))
    return {"content_uri": format_mxc(server.config.server_name, media_id)}


async def create_content(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixmediav1create"""
    server, user_id = request.server, request.requester.user_id
    server.rate_limits.check("media_upload", user_id)
    media_id, expires_ts = await server.media.uploads.create(user_id)
    return {"content_uri": format_mxc(server.config.server_name, media_id), "unused_expires_at": expires_ts}


async def upload_content_to_mxc(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#put_matrixmediav3uploadservernamemediaid"""
    server, user_id, params = request.server, request.requester.user_id, request.params
    server.rate_limits.check("media_upload", user_id)
    await server.media.uploads.upload_to(user_id, params["serverName"], params["mediaId"], incoming_file(request))
    return {}


def incoming_file(request: Request) -> IncomingFile:
    """What the client is about to send."""
    return IncomingFile(
        body_chunks(request),
        request.http.content_length,
        request.headers.get("Content-Type"),
        request.query.get("filename"),
    )


async def get_content(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixmediav3downloadservernamemediaid"""
    return await send_content(request, await _unauthenticated(request), request.params.get("fileName"))


async def get_content_override_name(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixmediav3downloadservernamemediaidfilename"""
    return await get_content(request)


async def get_content_thumbnail(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixmediav3thumbnailservernamemediaid"""
    wanted = wanted_thumbnail(request)
    return await send_thumbnail(request, await _unauthenticated(request), wanted)


async def _unauthenticated(request: Request) -> MediaRequest:
    wanted = MediaRequest.of(request)
    if wanted.name[0] != request.server.config.server_name:
        request.server.rate_limits.check("federation", f"files for {request.address}")
    row = await request.server.media.downloads.find_unfrozen(
        *wanted.name, timeout_ms=wanted.timeout_ms, allow_remote=request.query_boolean("allow_remote", True)
    )
    return wanted.found(row, may_redirect=request.query_boolean("allow_redirect"), cache_control=CACHE_PUBLICLY)


async def get_config(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixmediav3config"""
    return {"m.upload.size": request.server.config.media.max_upload_bytes}


async def get_url_preview(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixmediav3preview_url"""
    return await url_preview(request)


DOWNLOAD = "/_matrix/media/v3/download/{serverName}/{mediaId}"
THUMBNAIL = "/_matrix/media/v3/thumbnail/{serverName}/{mediaId}"

ROUTES = [
    Route("POST", "/_matrix/media/v3/upload", "uploadContent", upload_content, resource="media"),
    Route(
        "PUT",
        "/_matrix/media/v3/upload/{serverName}/{mediaId}",
        "uploadContentToMXC",
        upload_content_to_mxc,
        resource="media",
    ),
    Route("POST", "/_matrix/media/v1/create", "createContent", create_content, resource="media"),
    Route("GET", DOWNLOAD, "getContent", get_content, auth=False, resource="media"),
    Route(
        "GET",
        DOWNLOAD + "/{fileName}",
        "getContentOverrideName",
        get_content_override_name,
        auth=False,
        resource="media",
    ),
    Route("GET", THUMBNAIL, "getContentThumbnail", get_content_thumbnail, auth=False, resource="media"),
    Route("GET", "/_matrix/media/v3/config", "getConfig", get_config, resource="media", limited=True),
    Route("GET", "/_matrix/media/v3/preview_url", "getUrlPreview", get_url_preview, resource="media"),
]
