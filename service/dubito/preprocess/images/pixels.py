"""One image to its numbers: mode → resized → cropped or padded → standardised.

Dimensions: H, W of an image, C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dubito.errors import InputError
from dubito_nn.preprocess import ImageInput
from dubito_nn.preprocess.image_reader import MAX_PIXELS
from dubito_nn.preprocess.images import CropRounding

if TYPE_CHECKING:
    from PIL import Image

_START: dict[CropRounding, Callable[[int], int]] = {
    "down": lambda more: more // 2,
    "even": lambda more: round(more / 2) if more > 0 else -(-more // 2),
}
"""Where a crop begins, by how much longer a side is than what is cut out of it."""
_LEVELS = 257  # of 16 bits for one of 8
_WHOLE = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "La", "RGBa")


def numbers_of(image: Image.Image, part: ImageInput, where: str) -> NDArray[np.generic]:
    """The numbers of an image, as the part lays them out.

    Args:
        image: decoded.
        part: as the bundle declares it.
        where: the input and the row, for a refusal.

    Raises:
        InputError: a mode that has no meaning here, or an image that resizing makes too large.
    """
    image = _resized(_in_mode(image, part, where), part, where)
    x_HWC = np.asarray(image)
    if part.mode == "I;16":
        x_HWC = x_HWC.clip(0, 65_535)  # filters overshoot
    if x_HWC.ndim == 2:
        x_HWC = x_HWC[:, :, None]
    if part.mode == "BGR":
        x_HWC = x_HWC[:, :, ::-1]
    if part.crop is not None:
        x_HWC = _cropped(x_HWC, part.crop, part)
    x_HWC = _standardised(x_HWC, part)
    if part.layout == "HW":
        return x_HWC[:, :, 0]
    return x_HWC.transpose(2, 0, 1) if part.layout == "CHW" else x_HWC


def _in_mode(image: Image.Image, part: ImageInput, where: str) -> Image.Image:
    """The image with the channels that are declared; `F` for grey of 16 bits."""
    from PIL import Image

    is_grey16 = image.mode.startswith("I")
    if not is_grey16 and image.mode not in _WHOLE:
        raise InputError(
            f"{where}: expected an image of 8 bits a channel, or of 16 bits grey, got mode "
            f"{image.mode}: convert it first"
        )
    if is_grey16:
        grey_HW = np.asarray(image.convert("I"))
        if grey_HW.min() < 0 or grey_HW.max() > 65_535:
            raise InputError(f"{where}: expected grey of 16 bits, got more: convert it first")
        if part.mode == "I;16":
            return Image.fromarray(grey_HW.astype(np.float32))
        grey_HW = (grey_HW + _LEVELS // 2) // _LEVELS
        image = Image.fromarray(grey_HW.astype(np.uint8))
    elif part.background is not None and image.has_transparency_data:
        behind = Image.new("RGBA", image.size, (*part.background, 255))
        image = Image.alpha_composite(behind, image.convert("RGBA"))
    if part.mode == "I;16":
        grey = np.asarray(image.convert("L"), np.float32)
        return Image.fromarray(grey * _LEVELS)
    return image.convert("L" if part.mode == "L" else "RGB")


def _resized(image: Image.Image, part: ImageInput, where: str) -> Image.Image:
    from PIL import Image

    width, height = image.size
    if part.size is not None:
        height, width = part.size
    elif part.shorter_side is not None or part.longer_side is not None:
        height, width = _sides(height, width, part)
    if width * height > MAX_PIXELS:
        raise InputError(
            f"{where}: expected an image that has at most {MAX_PIXELS} pixels once it is resized, "
            f"got {width} x {height} of {image.width} x {image.height}: cut it first"
        )
    return image.resize((width, height), Image.Resampling[part.filter.upper()])


def _sides(height: int, width: int, part: ImageInput) -> tuple[int, int]:
    """Height and width, one of which is given, in the ratio of the image."""
    short, long = min(height, width), max(height, width)
    if part.shorter_side is not None:
        short, long = part.shorter_side, part.shorter_side * long // short
    else:
        assert part.longer_side is not None
        short, long = max(1, part.longer_side * short // long), part.longer_side
    return (short, long) if height <= width else (long, short)


def _cropped(
    x_HWC: NDArray[np.generic], size: tuple[int, int], part: ImageInput
) -> NDArray[np.generic]:
    """The middle of an image, (height, width); where it is smaller, `fill` stands around it."""
    start_of = _START[part.crop_rounding]
    starts = [start_of(have - want) for have, want in zip(x_HWC.shape, size, strict=False)]
    taken = tuple(
        slice(max(0, start), max(0, start) + want) for start, want in zip(starts, size, strict=True)
    )
    middle = x_HWC[taken]
    if middle.shape[:2] == size:
        return middle
    made = np.full((*size, x_HWC.shape[2]), part.fill, x_HWC.dtype)
    top, left = (max(0, -start) for start in starts)
    made[top : top + middle.shape[0], left : left + middle.shape[1]] = middle
    return made


def _standardised(x_HWC: NDArray[np.generic], part: ImageInput) -> NDArray[np.generic]:
    """(x · scale - mean) / std; whole numbers stay such where nothing is to be done."""
    if (part.scale, part.mean, part.std) == (1.0, 0.0, 1.0):
        return x_HWC
    mean_C, std_C = np.array(part.mean, np.float64), np.array(part.std, np.float64)
    factor_C, shift_C = part.scale / std_C, mean_C / std_C
    made: NDArray[np.generic] = x_HWC * factor_C.astype(np.float32) - shift_C.astype(np.float32)
    return made
