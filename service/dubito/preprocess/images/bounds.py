"""How large images may be."""

from __future__ import annotations

from dataclasses import dataclass

_IMAGES = 16  # of the largest size, whose pixels one request may have
_BODIES = 8  # of the largest size, as which its numbers may be long


@dataclass(frozen=True)
class ImageBounds:
    """Bounds of the images of a request.

    Args:
        pixels: most of one image; as Pillow warns of more, where none is given.
        total_pixels: most of all images together; None: any number.
        made_bytes: most bytes of what is made of them; None: any number.
    """

    pixels: int = 89_000_000
    total_pixels: int | None = None
    made_bytes: int | None = None

    @classmethod
    def of(cls, pixels: int, body_bytes: int) -> ImageBounds:
        """The bounds of a request, by those of an image and of a body."""
        return cls(pixels, _IMAGES * pixels, _BODIES * body_bytes)
