"""Read what a bundle declares of images, trust nothing of it, and hold it against the input."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, get_args

from dubito_nn.errors import BundleError
from dubito_nn.preprocess.images import (
    CHANNELS,
    CropRounding,
    Filter,
    ImageInput,
    ImageMode,
    Layout,
)
from dubito_nn.strict_fields import (
    read_integer,
    read_number,
    read_one_of,
    read_optional,
    read_table,
    read_text,
    read_tuple,
)

if TYPE_CHECKING:
    from dubito_nn.manifest import InputSpec

MAX_SIDE = 16_384
MAX_PIXELS = 2**24
"""Most pixels of what is made of one image."""
_GREATEST = 65_535
_RESIZING = ("size", "shorter_side", "longer_side")


def read_image(raw: object, where: str) -> ImageInput:
    """Read a part that is an image, from parsed JSON.

    Raises:
        BundleError: naming the first field that breaks a rule.
    """
    later = {"crop_rounding": "down"}  # which earlier builds do not write
    table = read_table(later | raw if isinstance(raw, dict) else raw, ImageInput, where)
    part = ImageInput(
        mode=read_one_of(table["mode"], get_args(ImageMode), f"{where}: mode"),
        size=read_optional(table["size"], _size, f"{where}: size"),
        shorter_side=read_optional(table["shorter_side"], _side, f"{where}: shorter_side"),
        longer_side=read_optional(table["longer_side"], _side, f"{where}: longer_side"),
        filter=read_one_of(table["filter"], get_args(Filter), f"{where}: filter"),
        crop=read_optional(table["crop"], _size, f"{where}: crop"),
        fill=read_integer(table["fill"], 0, _GREATEST, f"{where}: fill"),
        background=read_optional(table["background"], _colour, f"{where}: background"),
        scale=read_number(table["scale"], f"{where}: scale"),
        mean=_numbers(table["mean"], f"{where}: mean"),
        std=_numbers(table["std"], f"{where}: std"),
        layout=read_one_of(table["layout"], get_args(Layout), f"{where}: layout"),
        orient=_boolean(table["orient"], f"{where}: orient"),
        input=read_optional(table["input"], read_text, f"{where}: input"),
        crop_rounding=read_one_of(
            table["crop_rounding"], get_args(CropRounding), f"{where}: crop_rounding"
        ),
    )
    _check(part, where)
    return part


def check_image(part: ImageInput, spec: InputSpec, where: str) -> None:
    """Refuse images that are no rows of an input.

    Raises:
        BundleError: their shape is another one.
    """
    fits = len(part.shape) == len(spec.shape) and all(
        isinstance(wanted, str) or wanted == size
        for wanted, size in zip(spec.shape, part.shape, strict=True)
    )
    if not fits:
        shown = ", ".join("any" if size is None else str(size) for size in part.shape)
        raise BundleError(
            f"{where}: images for input `{spec.name}` give rows of shape ({shown}), the network"
            f" takes {spec.shape}"
        )


def _check(part: ImageInput, where: str) -> None:
    if sum(getattr(part, key) is not None for key in _RESIZING) > 1:
        raise BundleError(f"{where}: expects one of {list(_RESIZING)} at most, got several")
    channels = CHANNELS[part.mode]
    if part.layout == "HW" and channels != 1:
        raise BundleError(f"{where}: layout expects channels for {part.mode}, got HW")
    for key in ("mean", "std"):
        numbers = getattr(part, key)
        if isinstance(numbers, tuple) and len(numbers) != channels:
            raise BundleError(
                f"{where}: {key} expects a number, or one for each of {channels} channels, got"
                f" {len(numbers)}"
            )
    stds = part.std if isinstance(part.std, tuple) else (part.std,)
    if any(not std or not math.isfinite(1 / std) for std in stds):
        raise BundleError(f"{where}: std expects numbers other than 0, got {stds}")
    if part.mode != "I;16" and part.fill > 255:
        raise BundleError(f"{where}: fill expects at most 255 for {part.mode}, got {part.fill}")


def _size(raw: object, where: str) -> tuple[int, int]:
    sides = read_tuple(raw, _side, 2, where)
    if len(sides) != 2 or sides[0] * sides[1] > MAX_PIXELS:
        raise BundleError(f"{where}: expects a height and a width of at most {MAX_PIXELS} pixels")
    return sides[0], sides[1]


def _side(raw: object, where: str) -> int:
    return read_integer(raw, 1, MAX_SIDE, where)


def _colour(raw: object, where: str) -> tuple[int, int, int]:
    values = read_tuple(raw, _value, 3, where)
    if len(values) != 3:
        raise BundleError(f"{where}: expects red, green and blue, got {len(values)} values")
    return values[0], values[1], values[2]


def _value(raw: object, where: str) -> int:
    return read_integer(raw, 0, 255, where)


def _numbers(raw: object, where: str) -> float | tuple[float, ...]:
    if isinstance(raw, list | tuple):
        return read_tuple(raw, read_number, 4, where)
    return read_number(raw, where)


def _boolean(raw: object, where: str) -> bool:
    if not isinstance(raw, bool):
        raise BundleError(f"{where}: expects true or false, got {str(raw)[:40]}")
    return raw
