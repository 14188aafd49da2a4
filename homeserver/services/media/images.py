"""Thumbnails by Pillow. Only `worker` imports this: the server itself opens no image.

https://spec.matrix.org/v1.19/client-server-api/#thumbnails
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from PIL import Image, ImageFile

from matrix.thumbnail_sizes import Plan, plan_thumbnail

FORMATS: Final = ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP")
# What clients may be given as it is, and as what: https://spec.matrix.org/v1.19/client-server-api/#thumbnails
SERVABLE: Final = {
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",
    "PNG": "image/png",
    "GIF": "image/gif",
    "WEBP": "image/webp",
}
MAX_FRAMES: Final = 400
MAX_ANIMATION_PIXELS: Final = 256_000_000
"""Of all frames together, as they are read."""
MAX_ANIMATED_PIXELS: Final = 16_000_000
"""Of all frames together, as they are made: they are in memory at once."""
MAX_PROFILE_BYTES: Final = 256 * 1024
JPEG_QUALITY: Final = 82
WEBP_QUALITY: Final = 75
DEFAULT_FRAME_MS: Final = 100
MIN_FRAME_MS: Final = 20

# https://www.cipa.jp/std/documents/e/DC-008-2012_E.pdf, tag 0x0112: how a camera was held
ORIENTATION_TAG: Final = 0x0112
TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
LIES_ON_ITS_SIDE: Final = (5, 6, 7, 8)

ImageFile.LOAD_TRUNCATED_IMAGES = False


def make_thumbnail(job: dict[str, Any], max_pixels: int) -> dict[str, Any]:
    """Writes a thumbnail of the file `source` to `target`: `{"made": content type}`.

    `{"original": content type}` where the image itself is to be shown, being no larger than asked for.
    """
    with _open(job["source"], max_pixels) as image:
        if image.width * image.height > max_pixels:
            return {"error": "too_large"}
        turn = image.getexif().get(ORIENTATION_TAG) if image.format in ("JPEG", "MPO", "PNG", "WEBP", "AVIF") else None
        wanted = (job["width"], job["height"])
        if turn in LIES_ON_ITS_SIDE:
            wanted = (wanted[1], wanted[0])
        plan = plan_thumbnail(image.size, wanted, job["method"])
        moves = bool(getattr(image, "is_animated", False)) and image.format != "MPO"
        if plan is None and image.format in SERVABLE and (job["animated"] or not moves):
            image.load()  # what cannot be read is not served as an image
            return {"original": SERVABLE[image.format]}
        if plan is None:
            plan = Plan((0, 0, image.width, image.height), image.size)
        target = Path(job["target"])
        if job["animated"] and moves and _may_move(image, plan):
            return _save_animated(image, plan, target)
        return _save_still(image, plan, TURNS.get(turn) if turn else None, target)


def measure_image(job: dict[str, Any], max_pixels: int) -> dict[str, Any]:
    """Width, height and content type of an image that clients may be given as it is."""
    with _open(job["source"], max_pixels) as image:
        if image.width * image.height > max_pixels:
            return {"error": "too_large"}
        if image.format not in SERVABLE:
            return {"error": "unreadable"}
        return {"width": image.width, "height": image.height, "content_type": SERVABLE[image.format]}


def _open(path: str, max_pixels: int) -> Image.Image:
    """The image, of which nothing but its head has been read. Raises what `worker.UNREADABLE` names."""
    Image.MAX_IMAGE_PIXELS = max_pixels  # some readers find other dimensions in the body than in the head
    warnings.simplefilter("ignore")
    try:
        return Image.open(path, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise MemoryError from error


def _may_move(image: Image.Image, plan: Plan) -> bool:
    frames: int = getattr(image, "n_frames", 1)
    return (
        frames <= MAX_FRAMES
        and frames * image.width * image.height <= MAX_ANIMATION_PIXELS
        and frames * plan.size[0] * plan.size[1] <= MAX_ANIMATED_PIXELS
    )


def _save_still(image: Image.Image, plan: Plan, turn: Image.Transpose | None, target: Path) -> dict[str, Any]:
    source_format, profile = image.format, image.info.get("icc_profile")
    if source_format in ("JPEG", "MPO"):
        plan = _draft(image, plan)
    shown = _show(image)
    has_same_colours = shown.mode[:3] == image.mode[:3]  # RGB and RGBA are; a profile for grey says nothing of either
    small = shown.resize(plan.size, Image.Resampling.LANCZOS, box=plan.box, reducing_gap=3.0)
    if turn is not None:
        small = small.transpose(turn)
    more: dict[str, Any] = {}
    if has_same_colours and isinstance(profile, bytes) and len(profile) <= MAX_PROFILE_BYTES:
        more["icc_profile"] = profile
    if small.mode == "RGBA" or source_format in ("PNG", "GIF"):
        small.save(target, "PNG", **more)
        return {"made": "image/png"}
    small.save(target, "JPEG", quality=JPEG_QUALITY, progressive=True, optimize=True, **more)
    return {"made": "image/jpeg"}


def _draft(image: Image.Image, plan: Plan) -> Plan:
    """Lets the JPEG reader leave out what will not be seen; the plan for what it gives instead."""
    width, height = image.size
    box_width, box_height = plan.box[2] - plan.box[0], plan.box[3] - plan.box[1]
    # Twice the size of the thumbnail is enough for it to be sharp.
    factor = 2 * max(plan.size[0] / box_width, plan.size[1] / box_height)
    if factor < 1:
        image.draft(None, (max(1, round(width * factor)), max(1, round(height * factor))))
    across, down = image.size[0] / width, image.size[1] / height
    left, top, right, bottom = plan.box
    box = (left * across, top * down, min(right * across, image.size[0]), min(bottom * down, image.size[1]))
    return Plan(box, plan.size)


def _show(image: Image.Image) -> Image.Image:
    """The image in a mode that can be resized and saved: L, RGB or RGBA."""
    if image.mode in ("LA", "PA", "RGBa", "La") or (image.mode in ("P", "L", "RGB") and "transparency" in image.info):
        return image.convert("RGBA")  # a colour that stands for nothing would mix with those around it
    if image.mode in ("L", "RGB", "RGBA"):
        return image
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        wide = image if image.mode in ("I", "F") else image.convert("I")
        return wide.point(lambda value: value * (1 / 256)).convert("L")
    if image.mode == "1":
        return image.convert("L")
    return image.convert("RGB")


def _save_animated(image: Image.Image, plan: Plan, target: Path) -> dict[str, Any]:
    pause: list[int] = []
    frames = list(_frames(image, plan, pause))
    frames[0].save(
        target,
        "WEBP",
        save_all=True,
        append_images=frames[1:],
        duration=pause,
        loop=int(image.info.get("loop", 0)),
        quality=WEBP_QUALITY,
        method=2,
    )
    return {"made": "image/webp"}


def _frames(image: Image.Image, plan: Plan, pause: list[int]) -> Iterator[Image.Image]:
    for number in range(getattr(image, "n_frames", 1)):
        image.seek(number)
        frame = image.convert("RGBA")
        pause.append(max(MIN_FRAME_MS, int(image.info.get("duration", 0) or DEFAULT_FRAME_MS)))
        yield frame.resize(plan.size, Image.Resampling.LANCZOS, box=plan.box, reducing_gap=3.0)
