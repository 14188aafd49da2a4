"""Thumbnails: sizes, methods, formats, animation; made once; nothing that a hostile file could do."""

from __future__ import annotations

import asyncio
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from config.media import Media
from homeserver.services.media.thumbnails import MAX_CROPS
from matrix.thumbnail_sizes import Method, plan_thumbnail, standard_size
from tests.client import Homeserver, User
from tests.conftest import StartServer
from tests.engine.seeds import seeded_random
from tests.media.support import download, files_in, image_bytes, opened, thumbnail, upload

SIDES = st.integers(1, 3000)


@given(image=st.tuples(SIDES, SIDES), wanted=st.tuples(SIDES, SIDES), method=st.sampled_from(("crop", "scale")))
def test_a_thumbnail_is_neither_too_small_nor_larger_than_the_image(
    image: tuple[int, int], wanted: tuple[int, int], method: Method
) -> None:
    plan = plan_thumbnail(image, wanted, method)
    if plan is None:
        assert image[0] <= wanted[0] or image[1] <= wanted[1]
        return
    width, height = plan.size
    left, top, right, bottom = plan.box
    assert 0 <= left < right <= image[0]
    assert 0 <= top < bottom <= image[1]
    assert width <= image[0]
    assert height <= image[1]
    if method == "scale":
        assert width >= min(wanted[0], image[0])
        assert height >= min(wanted[1], image[1])
        assert (width, height) == (wanted[0], height) or (width, height) == (width, wanted[1])
    elif image[0] >= wanted[0] and image[1] >= wanted[1]:
        assert (width, height) == wanted
    else:
        assert abs(width * wanted[1] - height * wanted[0]) <= max(wanted)
    standard = standard_size(*wanted, method)
    assert standard[0] >= wanted[0]
    assert standard[1] >= wanted[1]


@pytest.mark.parametrize(
    ("wanted", "method", "size"),
    [
        ((32, 32), "crop", (32, 32)),
        ((96, 96), "crop", (96, 96)),
        ((60, 30), "crop", (60, 30)),
        ((320, 240), "scale", (480, 240)),
        ((640, 480), "scale", (960, 480)),
        ((800, 600), "scale", (1200, 600)),
        ((10, 10), "scale", (480, 240)),
        ((5000, 5000), "scale", (2000, 1000)),
        ((1000, 2000), "crop", (500, 1000)),
    ],
)
async def test_sizes(
    shared_homeserver: Homeserver, wanted: tuple[int, int], method: str, size: tuple[int, int]
) -> None:
    alice = await shared_homeserver.register()
    answer = await thumbnail(alice, await upload(alice, image_bytes((2000, 1000)), "image/png"), *wanted, method)
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.headers["Content-Disposition"] == 'inline; filename="thumbnail.png"'
    image = opened(answer.ok())
    assert image.size == size
    if method == "scale":
        width, height = image.size
        corners = [image.getpixel(at) for at in ((2, 2), (width - 3, 2), (width - 3, height - 3), (2, height - 3))]
        assert [pixel[:3] for pixel in corners if isinstance(pixel, tuple)] == [
            *((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255))
        ]


@pytest.mark.parametrize(
    ("format", "mode", "made"),
    [
        ("JPEG", "RGB", "JPEG"),
        ("JPEG", "CMYK", "JPEG"),
        ("JPEG", "L", "JPEG"),
        ("PNG", "RGBA", "PNG"),
        ("PNG", "P", "PNG"),
        ("PNG", "1", "PNG"),
        ("PNG", "LA", "PNG"),
        ("PNG", "I;16", "PNG"),
        ("GIF", "P", "PNG"),
        ("WEBP", "RGB", "JPEG"),
        ("WEBP", "RGBA", "PNG"),
        ("BMP", "RGB", "JPEG"),
        ("AVIF", "RGB", "JPEG"),
    ],
)
async def test_formats(shared_homeserver: Homeserver, format: str, mode: str, made: str) -> None:
    alice = await shared_homeserver.register()
    output = io.BytesIO()
    Image.new(mode, (700, 500)).save(output, format)
    name = await upload(alice, output.getvalue(), "image/x")
    for size in ((32, 32, "crop"), (320, 240, "scale")):
        image = opened((await thumbnail(alice, name, *size)).ok())
        assert image.format == made
    whole = opened((await thumbnail(alice, name, 1000, 1000)).ok())
    assert whole.size == (700, 500)
    assert whole.format in ("JPEG", "PNG", "GIF", "WEBP")


@pytest.mark.parametrize(("mode", "shown", "hidden"), [("RGB", (255, 0, 0), (0, 255, 0)), ("L", 250, 10)])
async def test_a_colour_that_stands_for_nothing_is_not_mixed_with_others(
    shared_homeserver: Homeserver, mode: str, shown: Any, hidden: Any
) -> None:
    alice = await shared_homeserver.register()
    image, output = Image.new(mode, (400, 400), shown), io.BytesIO()
    image.paste(hidden, (0, 0, 200, 400))
    image.save(output, "PNG", transparency=hidden)
    small = opened((await thumbnail(alice, await upload(alice, output.getvalue(), "image/png"), 33, 33, "crop")).ok())
    seen = [small.convert("RGBA").getpixel((x, 10)) for x in range(small.width)]
    assert (seen[0][3], seen[-1][3]) == (0, 255)  # type: ignore[index]
    red = 255 if mode == "RGB" else shown
    assert all(abs(pixel[0] - red) < 8 for pixel in seen if pixel[3] > 128)  # type: ignore[index]


@pytest.mark.parametrize("orientation", range(1, 9))
async def test_images_stand_upright(shared_homeserver: Homeserver, orientation: int) -> None:
    """What a camera noted about how it was held is done to the thumbnail, as viewers do it to the image."""
    from PIL import ImageOps

    alice = await shared_homeserver.register()
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = image_bytes((1600, 1200), "JPEG", exif=exif, quality=95)
    image = opened((await thumbnail(alice, await upload(alice, data, "image/jpeg"), 300, 200)).ok())
    expected = ImageOps.exif_transpose(opened(data)).resize(image.size)
    assert (image.width > image.height) == (orientation < 5)
    assert dict(image.getexif()) == {}
    for at in ((10, 10), (image.width - 10, 10), (10, image.height - 10)):
        seen, wanted = image.getpixel(at), expected.getpixel(at)
        assert isinstance(seen, tuple)
        assert isinstance(wanted, tuple)
        assert all(abs(a - b) < 40 for a, b in zip(seen, wanted, strict=True))


def animation(format: str, size: tuple[int, int] = (600, 400), frames: int = 5) -> bytes:
    images = [Image.new("RGB", size, (40 * n, 255 - 40 * n, n)) for n in range(frames)]
    output = io.BytesIO()
    images[0].save(output, format, save_all=True, append_images=images[1:], duration=70, loop=0)
    return output.getvalue()


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
async def test_animations(shared_homeserver: Homeserver, format: str) -> None:
    alice = await shared_homeserver.register()
    name = await upload(alice, animation(format), f"image/{format.lower()}")
    moving = await thumbnail(alice, name, 96, 96, "crop", animated="true")
    assert moving.headers["Content-Type"] == "image/webp"
    image = opened(moving.ok())
    assert (image.n_frames, image.size) == (5, (96, 96))  # type: ignore[attr-defined]
    for query in ({}, {"animated": "false"}):
        for size in ((96, 96, "crop"), (5000, 5000, "scale")):
            still = opened((await thumbnail(alice, name, *size, **query)).ok())
            assert getattr(still, "n_frames", 1) == 1
    whole = await thumbnail(alice, name, 5000, 5000, animated="true")
    assert whole.ok() == (await download(alice, name)).ok()


async def test_parameters_are_checked(shared_homeserver: Homeserver) -> None:
    alice = await shared_homeserver.register()
    name = await upload(alice, image_bytes((50, 50)))
    path = f"/_matrix/client/v1/media/thumbnail/{name}"
    for query in ({"width": "-1", "height": "5"}, {"width": "0", "height": "5"}, {"width": "a", "height": "5"}):
        (await alice.request("GET", path, **query)).error(400, "M_INVALID_PARAM")
    (await alice.request("GET", path, width=5)).error(400, "M_MISSING_PARAM")
    (await thumbnail(alice, name, 5, 5, "stretch")).error(400, "M_INVALID_PARAM")
    assert opened((await thumbnail(alice, name, 2**53, 2**53)).ok()).size == (50, 50)


async def test_a_thumbnail_is_made_once_and_goes_with_its_image(homeserver: Homeserver, tmp_path: Path) -> None:
    alice = await homeserver.register()
    data = image_bytes((900, 700))
    names = [await upload(alice, data) for _ in range(2)]
    answers = await asyncio.gather(*(thumbnail(alice, names[n % 2], 32, 32, "crop") for n in range(10)))
    assert len({answer.ok() for answer in answers}) == 1
    assert len(files_in(tmp_path / "media" / "files")) == 2
    page = (await homeserver.request("GET", "/metrics")).json
    assert 'media_thumbnails_total{result="made"} 1.0' in page
    for width in range(40, 40 + MAX_CROPS + 5):
        (await thumbnail(alice, names[0], width, 20, "crop")).ok()
    assert len(files_in(tmp_path / "media" / "files")) <= MAX_CROPS + 2
    (await alice.request("POST", "account/deactivate", {"erase": True, "auth": _auth(alice)})).ok()
    assert homeserver.running is not None
    await homeserver.running.server.media.retention.clean()
    assert files_in(tmp_path / "media" / "files") == []


def _auth(user: User) -> dict[str, object]:
    localpart = user.user_id[1:].partition(":")[0]
    identifier = {"type": "m.id.user", "user": user.user_id}
    return {"type": "m.login.password", "identifier": identifier, "password": f"password of {localpart}"}


def png(width: int, height: int, body: bytes, *, extra: bytes = b"") -> bytes:
    """A PNG that says it is as large, with a body of its own."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", body) + chunk(b"IEND", b"")


SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="100" height="100"><script>alert(1)</script></svg>'
HTML = b"<html><script>alert(1)</script></html>"
GOOD_PNG, GOOD_JPEG = image_bytes((400, 300)), image_bytes((400, 300), "JPEG")
GOOD_GIF, GOOD_WEBP = animation("GIF"), animation("WEBP")
# A text chunk of 200 MB, and a profile.
TEXT_BOMB = zlib.compress(b"\0" * 200_000_000)
TEXT_CHUNK = b"a\0\0" + TEXT_BOMB
HOSTILE = {
    "empty": b"",
    "text": b"hello",
    "svg": SVG,
    "html": HTML,
    "html named as an image": b"GIF89a" + HTML,
    "bomb by its head": png(60_000, 60_000, zlib.compress(b"\0" * 1000)),
    "bomb just below the bound, without a body": png(7_900, 7_900, zlib.compress(b"\0" * 1000)),
    "head of nothing": png(0, 0, b""),
    "negative": png(2**31 - 1, 2**31 - 1, b""),
    "garbage in the body": png(100, 100, b"\xff" * 1000),
    "text bomb": png(
        400,
        300,
        zlib.compress(b"\0" * 401 * 300),
        extra=struct.pack(">I", len(TEXT_CHUNK))
        + b"zTXt"
        + TEXT_CHUNK
        + struct.pack(">I", zlib.crc32(b"zTXt" + TEXT_CHUNK)),
    ),
    "truncated png": GOOD_PNG[: len(GOOD_PNG) // 2],
    "truncated jpeg": GOOD_JPEG[: len(GOOD_JPEG) // 2],
    "truncated gif": GOOD_GIF[: len(GOOD_GIF) // 3],
    "truncated webp": GOOD_WEBP[: len(GOOD_WEBP) // 3],
    "jpeg of zeros": b"\xff\xd8\xff\xe0" + bytes(10_000),
    "webp of zeros": b"RIFF\xff\xff\xff\xffWEBPVP8 " + bytes(10_000),
    "webp as large as they come": b"RIFF\x1a\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0\xff\x3f\0\xff\x3f\0" + bytes(100),
    "gif as large as they come": b"GIF89a\xff\xff\xff\xff\xf7\0\0"
    + bytes(768)
    + b",\0\0\0\0\xff\xff\xff\xff\0\x08"
    + bytes(50),
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n(/etc/passwd) run\n",
    "tiff": b"II*\0\x08\0\0\0" + bytes(100),
}


@pytest.mark.parametrize("what", list(HOSTILE))
async def test_hostile_files_get_an_error_or_a_safe_answer(shared_homeserver: Homeserver, what: str) -> None:
    alice = await shared_homeserver.register()
    name = await upload(alice, HOSTILE[what], "image/png")
    for query in ({}, {"animated": "true"}):
        for size in ((96, 96, "crop"), (640, 480, "scale"), (10_000, 10_000, "scale")):
            answer = await thumbnail(alice, name, *size, **query)
            assert answer.status in (200, 400, 413), what
            if answer.status == 200:
                assert opened(answer.body).format in ("PNG", "JPEG", "WEBP", "GIF")
                assert answer.headers["Content-Type"] in ("image/png", "image/jpeg", "image/webp", "image/gif")
    assert (await thumbnail(alice, await upload(alice, GOOD_PNG), 32, 32)).ok()  # the server lives on


async def test_what_is_no_image_is_read_once(shared_homeserver: Homeserver) -> None:
    alice = await shared_homeserver.register()
    assert shared_homeserver.running is not None
    registry = shared_homeserver.running.server.metrics.registry

    def failed() -> float:
        return registry.get_sample_value("media_thumbnails_total", {"result": "failed"}) or 0

    name, before = await upload(alice, b"no image", "image/png"), failed()
    for width in (10, 20, 30):
        (await thumbnail(alice, name, width, 50, "crop")).error(400, "M_UNKNOWN")
        (await thumbnail(alice, name, width, 50, "scale")).error(400, "M_UNKNOWN")
    assert failed() - before == 1


async def test_images_are_bounded_by_their_pixels(start_server: StartServer) -> None:
    async with start_server(media=Media(max_image_pixels=1_000_000, unauthenticated_until="2100-01-01")) as homeserver:
        alice = await homeserver.register()
        text = await upload(alice, b"no picture")
        large = await upload(alice, image_bytes((1100, 1000)))
        assert (await thumbnail(alice, large, 32, 32)).error(413, "M_TOO_LARGE")
        assert (await thumbnail(alice, large, 32, 32)).error(413, "M_TOO_LARGE")  # remembered
        # The same where no token is wanted.
        old = "/_matrix/media/v3/thumbnail/"
        (await homeserver.fetch("GET", old + large, width=32, height=32)).error(413, "M_TOO_LARGE")
        (await homeserver.fetch("GET", old + text, width=32, height=32)).error(400, "M_UNKNOWN")
        assert (await download(alice, large)).status == 200
        assert (await thumbnail(alice, await upload(alice, image_bytes((1000, 1000))), 32, 32)).ok()


async def test_broken_images_get_an_error_or_a_safe_answer(shared_homeserver: Homeserver) -> None:
    """Images of every format with some bytes changed, some left out, some added."""
    rng = seeded_random()
    alice = await shared_homeserver.register()
    originals = [GOOD_PNG, GOOD_JPEG, GOOD_GIF, GOOD_WEBP, animation("PNG"), image_bytes((300, 200), "AVIF")]

    async def check(number: int) -> None:
        data = bytearray(originals[number % len(originals)])
        for _ in range(rng.randint(1, 12)):
            at = rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(min(len(data), 100))
            match rng.randrange(3):
                case 0:
                    data[at] = rng.randrange(256)
                case 1:
                    del data[at : at + rng.randint(1, 50)]
                case _:
                    data[at:at] = rng.randbytes(rng.randint(1, 8))
        name = await upload(alice, bytes(data), "image/png")
        for query in ({}, {"animated": "true"}):
            answer = await thumbnail(alice, name, 96, 96, "crop", **query)
            assert answer.status in (200, 400, 413)
            if answer.status == 200:
                assert opened(answer.body).format in ("PNG", "JPEG", "WEBP", "GIF")

    for start in range(0, 90, 15):
        await asyncio.gather(*(check(number) for number in range(start, start + 15)))


async def test_a_worker_that_dies_is_replaced(shared_homeserver: Homeserver) -> None:
    alice = await shared_homeserver.register()
    server = psutil.Process()

    def workers() -> list[psutil.Process]:
        return [child for child in server.children() if "homeserver.services.media.worker" in child.cmdline()]

    for round_number in range(3):
        (await thumbnail(alice, await upload(alice, image_bytes((100 + round_number, 90))), 32, 32, "crop")).ok()
        assert workers()
        for worker in workers():
            worker.kill()
        (await thumbnail(alice, await upload(alice, image_bytes((200 + round_number, 90))), 32, 32, "crop")).ok()
