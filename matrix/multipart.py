"""What a server answers another one that asks for a file: two parts, the first of which says nothing so far.

https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1mediadownloadmediaid,
https://www.rfc-editor.org/rfc/rfc2046#section-5.1
"""

from typing import NamedTuple


class Frame(NamedTuple):
    """What stands before and after the bytes of a file."""

    content_type: str
    head: bytes
    tail: bytes


def frame_file(boundary: str, *, content_type: str, disposition: str) -> Frame:
    """The frame of a file that follows. The boundary must not stand in it: a long random one does not."""
    return _frame(boundary, f"Content-Type: {content_type}\r\nContent-Disposition: {disposition}\r\n")


def frame_location(boundary: str, location: str) -> Frame:
    """The frame of nothing, since the file is at another URL."""
    return _frame(boundary, f"Location: {location}\r\n")


def _frame(boundary: str, headers: str) -> Frame:
    head = f"--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--{boundary}\r\n{headers}\r\n"
    return Frame(f"multipart/mixed; boundary={boundary}", head.encode(), f"\r\n--{boundary}--\r\n".encode())
