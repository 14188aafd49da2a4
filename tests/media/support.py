"""What the tests of the content repository share: sending files there and back, and making images."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from PIL import Image

from tests.client import Fetched, User

DOWNLOAD = "/_matrix/client/v1/media/download"
THUMBNAIL = "/_matrix/client/v1/media/thumbnail"


async def upload(user: User, data: Any, content_type: str | None = "application/octet-stream", **query: Any) -> str:
    """Uploads a file; `server/media-id`, as it stands in paths and after `mxc://`."""
    answer = await try_upload(user, data, content_type, **query)
    assert answer.status == 200, answer.body
    return json_of(answer)["content_uri"].removeprefix("mxc://")  # type: ignore[no-any-return]


async def try_upload(user: User, data: Any, content_type: str | None = None, **query: Any) -> Fetched:
    """Uploads a file, or is refused."""
    headers = {"Content-Type": content_type} if content_type is not None else {}
    return await user.homeserver.fetch(
        "POST", "/_matrix/media/v3/upload", token=user.token, data=data, headers=headers, **query
    )


async def download(user: User, name: str, headers: dict[str, str] | None = None, **query: Any) -> Fetched:
    """Downloads a file of a name `server/media-id`."""
    return await user.homeserver.fetch("GET", f"{DOWNLOAD}/{name}", token=user.token, headers=headers, **query)


async def thumbnail(user: User, name: str, width: int, height: int, method: str = "scale", **query: Any) -> Fetched:
    """Asks for a thumbnail."""
    query |= {"width": width, "height": height, "method": method}
    return await user.homeserver.fetch("GET", f"{THUMBNAIL}/{name}", token=user.token, **query)


def json_of(answer: Fetched) -> dict[str, Any]:
    """The JSON of an answer."""
    import orjson

    body: dict[str, Any] = orjson.loads(answer.body)
    return body


def image_bytes(size: tuple[int, int], format: str = "PNG", mode: str = "RGB", **options: Any) -> bytes:
    """An image in which each corner has a colour of its own: red, green, blue and white, clockwise."""
    colours = {"RGB": ["red", "lime", "blue", "white"], "L": [10, 90, 170, 250]}.get(mode, ["red"] * 4)
    image = Image.new(mode, size, colours[0])
    width, height = size
    for colour, box in zip(
        colours[1:],
        (
            (width // 2, 0, width, height // 2),
            (width // 2, height // 2, width, height),
            (0, height // 2, width // 2, height),
        ),
        strict=True,
    ):
        image.paste(colour, box)
    output = io.BytesIO()
    image.save(output, format, **options)
    return output.getvalue()


def opened(data: bytes) -> Image.Image:
    """An image as a client sees it."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def files_in(directory: Path) -> list[Path]:
    """Every file below a directory."""
    return sorted(path for path in directory.rglob("*") if path.is_file())


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    """Bytes in pieces, for a body of unknown length."""
    for start in range(0, len(data), size):
        yield data[start : start + size]
