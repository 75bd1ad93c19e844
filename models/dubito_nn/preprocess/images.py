"""What the rows of an input are made of where they are images.

A file is decoded, turned as its EXIF says, brought to one mode, resized, cropped or padded about
its centre, and standardised: (x · scale - mean) / std, x being 0 to 255, or 0 to 65,535 of `I;16`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

ImageMode = Literal["RGB", "BGR", "L", "I;16"]
Filter = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
Layout = Literal["CHW", "HWC", "HW"]
CropRounding = Literal["down", "even"]

CHANNELS: dict[ImageMode, int] = {"RGB": 3, "BGR": 3, "L": 1, "I;16": 1}


@dataclass(frozen=True, slots=True)
class ImageInput:
    """Images: PNG, JPEG, WebP and TIFF files.

    One of `size`, `shorter_side` and `longer_side` says what is resized; without them nothing is.

    Args:
        mode: `RGB`; `BGR`, the channels the other way round; `L`, grey of 8 bits; or `I;16`, grey
            of 16 bits. Whatever comes is converted; 16 bits become 8 by division by 257.
        size: (height, width) after resizing.
        shorter_side: of the image after resizing, in pixels; its sides keep their ratio, the other
            one is rounded down.
        longer_side: likewise.
        filter: with which is resized, by Pillow, over an area that grows with the reduction.
        crop: (height, width) that are cut out of the middle then; where the image is smaller,
            `fill` stands around it.
        crop_rounding: where one more pixel lies on one side than on the other: `down` begins
            at the place rounded down, `even` at the even one, as torchvision does.
        fill: a value of pixels before they are standardised.
        background: red, green and blue that shine through where an image is transparent; None:
            transparency is passed over.
        scale: factor of the pixels' values.
        mean: taken off then; one number, or one for each channel.
        std: by which what is left is divided, likewise.
        layout: axes of a row.
        orient: whether an image is turned as its EXIF says.
        input: of the network; None: its only one.
    """

    mode: ImageMode = "RGB"
    size: tuple[int, int] | None = None
    shorter_side: int | None = None
    longer_side: int | None = None
    filter: Filter = "bilinear"
    crop: tuple[int, int] | None = None
    fill: int = 0
    background: tuple[int, int, int] | None = (255, 255, 255)
    scale: float = 1 / 255
    mean: float | Sequence[float] = 0.0
    std: float | Sequence[float] = 1.0
    layout: Layout = "CHW"
    orient: bool = True
    input: str | None = None
    crop_rounding: CropRounding = "down"
    kind: Literal["image"] = field(default="image", init=False)

    @property
    def inputs(self) -> tuple[str | None, ...]:
        """The inputs that it makes."""
        return (self.input,)

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Shape of a row; None where it is that of the image."""
        height, width = self.crop or self.size or (None, None)
        sizes = {"C": CHANNELS[self.mode], "H": height, "W": width}
        return tuple(sizes[axis] for axis in self.layout)
