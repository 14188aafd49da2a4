"""A program that reads hostile files: images to make thumbnails of, web pages to preview.

It runs beside the server, with little memory and no secrets, so that whatever a file does to it, the server lives on:
what takes too long is killed, what takes too much fails. Jobs come on standard input, a JSON object a line, and are
answered on standard output. See `homeserver.services.media.workers` for the other side.
"""

from __future__ import annotations

import json
import resource
import struct
import sys
import zlib
from collections.abc import Callable
from typing import Any, Final

BASE_MEMORY_BYTES: Final = 768 * 1024 * 1024
BYTES_PER_PIXEL: Final = 12
"""An image, and what it is turned into: 4 bytes each, and some to spare."""
MAX_OPEN_FILES: Final = 32
MAX_TARGET_BYTES: Final = 256 * 1024 * 1024

# What the readers of images and pages raise for files that are not what they seem.
UNREADABLE: Final = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    AssertionError,
    struct.error,
    zlib.error,
)


def main() -> None:
    """Does jobs until there are no more. The only argument is how many pixels an image may have."""
    max_pixels = int(sys.argv[1])
    memory = BASE_MEMORY_BYTES + max_pixels * BYTES_PER_PIXEL
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_OPEN_FILES, MAX_OPEN_FILES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_TARGET_BYTES, MAX_TARGET_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(json.dumps(work(json.loads(line), max_pixels)).encode() + b"\n")
        sys.stdout.buffer.flush()


def work(job: dict[str, Any], max_pixels: int) -> dict[str, Any]:
    """The answer to a job: what was made, or `{"error": "unreadable" | "too_large"}`."""
    try:
        return _handler(job["job"])(job, max_pixels)
    except MemoryError:
        return {"error": "too_large"}
    except UNREADABLE:
        return {"error": "unreadable"}


def _handler(job: str) -> Callable[[dict[str, Any], int], dict[str, Any]]:
    if job == "page":
        from homeserver.services.media import pages

        return pages.read_page
    from homeserver.services.media import images

    return {"thumbnail": images.make_thumbnail, "measure": images.measure_image}[job]


if __name__ == "__main__":
    main()
