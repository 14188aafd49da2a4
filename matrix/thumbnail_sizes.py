"""Which part of an image a thumbnail shows, and how large it is.

https://spec.matrix.org/v1.19/client-server-api/#thumbnails: never smaller than asked for, never larger than the image.
"""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

Method = Literal["crop", "scale"]

MAX_DIMENSION: Final = 10_000
"""Above it, what is asked for is brought down: no image is shown as large."""

# The sizes of the specification, and some between and above them.
SCALE_SIZES: Final = (
    *((320, 240), (640, 480), (800, 600), (1600, 1200), (3200, 2400)),
    (MAX_DIMENSION, MAX_DIMENSION),
)
CROP_SIZES: Final = ((32, 32), (96, 96), (256, 256), (512, 512))


class Plan(NamedTuple):
    """How to make a thumbnail: the box (left, top, right, bottom) of the image, and the size that it gets."""

    box: tuple[float, float, float, float]
    size: tuple[int, int]


def standard_size(width: int, height: int, method: Method) -> tuple[int, int]:
    """The size to make for one that is asked for, so that images have few thumbnails: a usual one that is not smaller.

    A crop keeps its proportions, so only squares have usual sizes; what is larger than all of them is made as it is.
    """
    width, height = min(width, MAX_DIMENSION), min(height, MAX_DIMENSION)
    usual: Sequence[tuple[int, int]] = SCALE_SIZES
    if method == "crop":
        usual = CROP_SIZES if width == height else ()
    return next(((w, h) for w, h in usual if w >= width and h >= height), (width, height))


def plan_thumbnail(image: tuple[int, int], wanted: tuple[int, int], method: Method) -> Plan | None:
    """How to make a thumbnail of an image; None where the image itself is what to show, being no larger."""
    width, height = image
    wanted_width, wanted_height = wanted
    if method == "scale":
        factor = max(wanted_width / width, wanted_height / height)
        if factor >= 1:
            return None
        # Rounding may not lose the last pixel of the side that fits exactly.
        size = (max(wanted_width, round(width * factor)), max(wanted_height, round(height * factor)))
        return Plan((0, 0, width, height), (min(size[0], width), min(size[1], height)))
    if wanted_width >= width and wanted_height >= height:
        return None
    if width * wanted_height > height * wanted_width:
        box_width, box_height = max(1.0, height * wanted_width / wanted_height), float(height)
    else:
        box_width, box_height = float(width), max(1.0, width * wanted_height / wanted_width)
    left, top = (width - box_width) / 2, (height - box_height) / 2
    size = (min(wanted_width, max(1, int(box_width))), min(wanted_height, max(1, int(box_height))))
    return Plan((left, top, left + box_width, top + box_height), size)
