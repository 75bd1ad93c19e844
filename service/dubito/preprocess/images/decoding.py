"""One file of a stranger to one image, with Pillow, within bounds.

The format is told by the first bytes, and only the decoder of it is tried. Size, frames and scans
are looked at before anything of that size is decoded. Colour profiles are passed over.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

from dubito.errors import InputError, TooLargeError
from dubito.preprocess.images.cells import EXPECTED

if TYPE_CHECKING:
    from PIL import Image

_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
}
_OTHERS = {
    **{b"GIF8": "a GIF", b"BM": "a BMP", b"PK": "a ZIP archive", b"%PDF": "a PDF"},
    **{b"<": "markup, such as an SVG", b"\x00\x00\x00": "a video or HEIC"},
}
_ADDRESS = re.compile(r"<[^<>]* object at 0x[0-9a-f]+>")
_MAX_SCANS = 100  # of a JPEG, each of which costs a pass over all pixels
_SCAN = b"\xff\xda"
_ORIENTATION = 0x0112
_MANY_FRAMES = ("PNG", "WEBP", "TIFF")  # a JPEG of several has one that is meant


def need_pillow() -> None:
    """Refuse images without Pillow.

    Raises:
        InputError: it is not installed.
    """
    try:
        import PIL  # noqa: F401
    except ModuleNotFoundError as error:
        raise InputError(
            "images expect Pillow, which is not installed here: pip install 'dubito[images]', or "
            "send the network's own tensors with `preprocess` false"
        ) from error


def opened(content: bytes, most_pixels: int, where: str) -> Image.Image:
    """An image whose size is known, and whose pixels are not decoded yet.

    Args:
        content: of the file.
        most_pixels: that it may have.
        where: the input and the row, for a refusal.

    Raises:
        InputError: no such file, or one of several frames.
        TooLargeError: it has more pixels.
    """
    from PIL import Image

    format = _format(content, where)
    try:
        image = Image.open(io.BytesIO(content), formats=(format,))
        has_several = format in _MANY_FRAMES and _has_several(image, format)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooLargeError(_too_large(where, most_pixels, "more than Pillow opens")) from error
    except Exception as error:  # whatever a decoder raises on a stranger's bytes
        raise _damaged(error, where) from error
    if image.width * image.height > most_pixels:
        size = f"{image.width} x {image.height}"
        raise TooLargeError(_too_large(where, most_pixels, size))
    if has_several:
        raise InputError(f"{where}: expected one frame, got several: send the one that is meant")
    return image


def decoded(image: Image.Image, where: str, *, orient: bool) -> Image.Image:
    """The pixels of an image, turned as its EXIF says.

    Args:
        image: opened.
        where: the input and the row, for a refusal.
        orient: whether it is turned.

    Raises:
        InputError: it is damaged.
    """
    from PIL import Image

    try:
        image.load()
    except Exception as error:  # whatever a decoder raises on a stranger's bytes
        raise _damaged(error, where) from error
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    turn = turns.get(_orientation(image)) if orient else None
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """What EXIF says of how the image was held; 1 where it is damaged, as viewers take it."""
    try:
        said = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # of bytes that are no EXIF
        return 1
    return said if isinstance(said, int) else 1


def _format(content: bytes, where: str) -> str:
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WEBP"
    found = [name for signature, name in _SIGNATURES.items() if content.startswith(signature)]
    if not found:
        start = content[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
        got = next((name for first, name in _OTHERS.items() if start.startswith(first)), None)
        raise InputError(
            f"{where}: expected {EXPECTED}, got {got or 'something else'}: convert it first"
        )
    if found[0] == "JPEG" and content.count(_SCAN) > _MAX_SCANS:
        raise InputError(
            f"{where}: expected a JPEG of at most {_MAX_SCANS} scans, got "
            f"{content.count(_SCAN)}: save it anew"
        )
    return found[0]


def _has_several(image: Image.Image, format: str) -> bool:
    """Whether there is a frame behind the first; those of a TIFF are not counted."""
    if format != "TIFF":
        return getattr(image, "n_frames", 1) > 1
    try:
        image.seek(1)
    except EOFError:
        image.seek(0)
        return False
    return True


def _damaged(error: Exception, where: str) -> InputError:
    said = _ADDRESS.sub("the file", " ".join(str(error).split()))[:120] or type(error).__name__
    return InputError(f"{where}: expected {EXPECTED}, got a damaged one ({said}): save it anew")


def _too_large(where: str, most_pixels: int, got: str) -> str:
    return (
        f"{where}: expected at most {most_pixels} pixels, got {got}: send a smaller image, or "
        "raise DUBITO_MAX_IMAGE_PIXELS"
    )
