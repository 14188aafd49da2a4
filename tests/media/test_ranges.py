"""Parts of files, and files that a client has already: https://www.rfc-editor.org/rfc/rfc9110#name-range-requests"""

from __future__ import annotations

import hashlib
import random
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from matrix.byte_ranges import Part, matches_etag, select_part
from tests.client import Homeserver, User
from tests.media.support import DOWNLOAD, download, upload

SIZE = 700_000
DATA = random.Random(1).randbytes(SIZE)
POSITIONS = st.one_of(st.integers(0, SIZE + 10), st.sampled_from((0, 1, SIZE - 1, SIZE, 262_143, 262_144, 10**17)))


class Stored(NamedTuple):
    """A file of SIZE bytes, and who asks for it."""

    user: User
    name: str


@pytest.fixture(scope="module")
async def stored(shared_homeserver: Homeserver) -> Stored:
    user = await shared_homeserver.register()
    return Stored(user, await upload(user, DATA, "video/mp4"))


@given(first=POSITIONS, last=st.none() | POSITIONS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_a_part_is_a_slice(stored: Stored, first: int, last: int | None) -> None:
    answer = await download(stored.user, stored.name, {"Range": f"bytes={first}-{'' if last is None else last}"})
    end = SIZE if last is None else last + 1
    if end <= first and last is not None:  # nonsense is left aside
        assert answer.ok() == DATA
    elif first >= SIZE:
        assert answer.error(416, "M_UNKNOWN")
        assert answer.headers["Content-Range"] == f"bytes */{SIZE}"
    else:
        expected = DATA[first:end]
        assert answer.body == expected
        assert answer.status == 206  # for all of it too: players take 200 for a server that knows no ranges
        assert answer.headers["Content-Range"] == f"bytes {first}-{first + len(expected) - 1}/{SIZE}"


@given(suffix=POSITIONS)
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_a_part_at_the_end_is_a_slice(stored: Stored, suffix: int) -> None:
    answer = await download(stored.user, stored.name, {"Range": f"bytes=-{suffix}"})
    if suffix:
        assert answer.body == DATA[-suffix:]
    else:
        answer.error(416, "M_UNKNOWN")


@given(header=st.text(st.sampled_from("bytes=-,0123456789 \tx"), max_size=24), size=st.integers(0, 10**6))
def test_no_header_selects_what_is_not_there(header: str, size: int) -> None:
    part = select_part(header, size)
    assert part is None or (part.start >= 0 and part.length >= 0 and part.start + part.length <= size)
    assert select_part(None, size) == Part(0, size, is_asked=False)


@pytest.mark.parametrize("header", ["bytes=0-1,5-6", "lines=1-2", "bytes=a-b", "bytes", "bytes=5-1", ""])
async def test_what_is_not_understood_is_left_aside(stored: Stored, header: str) -> None:
    assert (await download(stored.user, stored.name, {"Range": header})).ok() == DATA


async def test_a_file_that_the_client_has_is_not_sent(stored: Stored) -> None:
    answer = await download(stored.user, stored.name)
    etag = answer.headers["ETag"]
    assert etag == f'"{hashlib.sha256(DATA).hexdigest()}"'
    assert answer.headers["Cache-Control"] == "private, max-age=86400, immutable"
    for header in (etag, f'"x", W/{etag}', "*"):
        again = await download(stored.user, stored.name, {"If-None-Match": header})
        assert (again.status, again.body, again.headers["ETag"]) == (304, b"", etag)
    assert (await download(stored.user, stored.name, {"If-None-Match": '"other"'})).ok() == DATA
    part = {"Range": "bytes=1-2"}
    assert (await download(stored.user, stored.name, {**part, "If-Range": etag})).body == DATA[1:3]
    assert (await download(stored.user, stored.name, {**part, "If-Range": '"other"'})).ok() == DATA
    assert matches_etag('"a,b", "c"', '"a,b"')


async def test_head_tells_without_sending(stored: Stored) -> None:
    user = stored.user
    for headers, status, length in (({}, 200, SIZE), ({"Range": "bytes=5-9"}, 206, 5)):
        answer = await user.homeserver.fetch("HEAD", f"{DOWNLOAD}/{stored.name}", token=user.token, headers=headers)
        assert (answer.status, answer.body, answer.headers["Content-Length"]) == (status, b"", str(length))
