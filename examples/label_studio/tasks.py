"""From the data of a task to a row of numbers.

A field holds the numbers themselves, as a list or as text with a list in it, or an image: a data
URI, a path on the Label Studio server, or an address that begins as one of those allowed does.

Flow: field → list, or image → gray or RGB, in the size of the network → numbers from 0 to 1.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from typing import Any
from urllib.parse import unquote_to_bytes

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

MOST_BYTES = 20 * 2**20
MOST_PIXELS = 50_000_000
LARGEST = {
    "float16": 65504.0,
    "bfloat16": (2 - 2**-7) * 2.0**127,
    "float32": float(np.finfo(np.float32).max),
    "float64": float(np.finfo(np.float64).max),
}


class TaskError(ValueError):
    """A task of which no row can be made."""


@dataclass(frozen=True)
class Reader:
    """Makes rows of tasks.

    Args:
        field: of the task's data.
        shape: of a row: any shape of numbers; for images (H, W), (1, H, W), (3, H, W) or the
            (H · W,) of a square.
        dtype: of the numbers, such as `float32` or `int64`.
        label_studio: where paths such as /data/upload/1/7.png are fetched.
        token: of a user there, sent to no other address.
        allowed: how other addresses may begin.
        is_inverted: whether dark ink shall be a large number.
    """

    field: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    label_studio: str | None = None
    token: str | None = None
    allowed: Sequence[str] = ()
    is_inverted: bool = False

    def row(self, task: object) -> list[object]:
        """The row of a task, as nested lists.

        Raises:
            TaskError: Naming the task, what was expected, and what to do.
        """
        if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
            raise TaskError(
                f'expected a task with "data", got {_short(task)}: send what Label Studio sends'
            )
        try:
            made: list[object] = self._numbers(self._given(task["data"])).tolist()
        except TaskError as error:
            raise TaskError(f"{name_of(task)}: {error}") from error
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise TaskError(
                f"{name_of(task)}: expected an address that can be reached, got "
                f"{type(error).__name__} for {_short(task['data'][self.field])}: see whether the "
                "image is there"
            ) from error
        return made

    def _given(self, data: dict[str, object]) -> object:
        """What the field holds."""
        given = data.get(self.field)
        if given is not None and given != "":
            return given
        if self.field not in data:
            got = ", ".join(_short(key) for key in list(data)[:5]) or "nothing"
        else:
            got = "null there" if given is None else "an empty text there"
        raise TaskError(
            f"expected {self.field!r} in its data, got {got}: import the task with numbers or an "
            "image in it, or let the labelling configuration show another field"
        )

    def _numbers(self, given: object) -> NDArray[np.float64]:
        """The row, in the shape that the network takes."""
        if isinstance(given, str) and not given.lstrip().startswith("["):
            return self._pixels(given).reshape(self.shape)
        try:
            plain = json.loads(given) if isinstance(given, str) else given
            numbers = np.array(plain, np.float64)
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise TaskError(
                f"expected numbers in {self.field!r}, got {_short(given)}: send a list of them"
            ) from error
        if numbers.size != math.prod(self.shape):
            raise TaskError(
                f"expected {math.prod(self.shape)} finite numbers in {self.field!r}, got "
                f"{numbers.size}: the network takes rows of shape {self.shape}"
            )
        self._check(numbers, plain)
        return numbers.reshape(self.shape)

    def _check(self, numbers: NDArray[np.float64], plain: Any) -> None:
        """Refuse what is missing, and what the network's type of numbers does not hold."""
        is_held = np.isfinite(numbers)
        kind = "finite numbers"
        if is_held.all():
            is_held, kind = _held(numbers, self.dtype)
        if is_held.all():
            return
        place = tuple(np.argwhere(~is_held)[0].tolist())
        value = reduce(getitem, place, plain)
        raise TaskError(
            f"expected {numbers.size} {kind} in {self.field!r}, got "
            f"{'null' if value is None else _short(value)} at position {list(place)}: fill in what "
            "is missing, and send numbers in the units of the network's training"
        )

    def _content(self, address: str) -> bytes:
        """The bytes of an image."""
        if address.startswith("data:"):
            return _inline(address)
        if address.startswith("/") and self.label_studio is not None:
            sent = {} if self.token is None else {"Authorization": f"Token {self.token}"}
            return _fetched(self.label_studio.rstrip("/") + address, sent)
        if any(address.startswith(start) for start in self.allowed):
            return _fetched(address, {})
        known = [*self.allowed, *([] if self.label_studio is None else ["/"])]
        raise TaskError(
            f"expected numbers, a data URI, or an address that begins with one of {known}, got "
            f"{_short(address)}: allow it with --images-from, or name --label-studio"
        )

    def _pixels(self, address: str) -> NDArray[np.float64]:
        channels, height, width = _image_shape(self.shape)
        content = self._content(address)
        try:
            with Image.open(io.BytesIO(content)) as image:
                _check_size(image.width, image.height)
                sized = image.convert("L" if channels == 1 else "RGB").resize((width, height))
        except TaskError:
            raise
        except Image.DecompressionBombError as error:
            raise TaskError(
                f"expected an image of at most {MOST_PIXELS} pixels, got far more: make it smaller"
            ) from error
        except Exception as error:  # its readers let errors of many kinds through on damaged files
            raise TaskError(
                f"expected an image in {self.field!r}, whole and in a format such as PNG or JPEG, "
                f"got {len(content)} bytes that begin with {content[:8]!r} ({_short(address)}): "
                "see whether it opens in a viewer, and save it once more"
            ) from error
        pixels = np.asarray(sized, np.float64).reshape(height, width, channels) / 255
        return (1 - pixels if self.is_inverted else pixels).transpose(2, 0, 1)


def _image_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Channels, height and width of what a network takes as an image."""
    if len(shape) == 1 and math.isqrt(shape[0]) ** 2 == shape[0]:
        side = math.isqrt(shape[0])
        return 1, side, side
    if len(shape) == 2:
        return 1, shape[0], shape[1]
    if len(shape) == 3 and shape[0] in (1, 3):
        return shape[0], shape[1], shape[2]
    raise TaskError(
        f"expected a network that takes images, got one of rows {shape}: send numbers, not images"
    )


def _held(numbers: NDArray[np.float64], dtype: str) -> tuple[NDArray[np.bool_], str]:
    """Which of these finite numbers a type holds, and what it holds in words."""
    if dtype in LARGEST:
        return np.abs(numbers) <= LARGEST[dtype], f"numbers of type {dtype}"
    low, high = (0, 1) if dtype == "bool" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    is_held = (numbers == np.floor(numbers)) & (numbers >= low) & (numbers <= high)
    return is_held, f"whole numbers from {low} to {high}"


def _check_size(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise TaskError(
            f"expected an image of at most {MOST_PIXELS} pixels, got {width} x {height}: make it "
            "smaller"
        )


def _inline(address: str) -> bytes:
    head, _, body = address.partition(",")
    try:
        encoded = unquote_to_bytes(body)
        return base64.b64decode(encoded, validate=True) if head.endswith(";base64") else encoded
    except ValueError as error:
        raise TaskError(
            f"expected base64 or %XX behind {_short(head)}, got something else: encode the image "
            "again"
        ) from error


def _fetched(address: str, headers: dict[str, str]) -> bytes:
    """What lies at an address, within bounds; a redirection is not followed."""
    parts, length = [], 0
    with httpx.stream("GET", address, headers=headers, timeout=30) as reply:
        if reply.status_code != httpx.codes.OK:
            raise TaskError(
                f"expected an image at {address[:80]}, got status {reply.status_code}: see whether "
                "it is there, and whether LABEL_STUDIO_API_KEY opens it"
            )
        for part in reply.iter_bytes():
            parts.append(part)
            length += len(part)
            if length > MOST_BYTES:
                raise TaskError(
                    f"expected at most {MOST_BYTES} bytes at {address[:80]}, got more: make the "
                    "image smaller"
                )
    return b"".join(parts)


def name_of(task: object) -> str:
    """What a task is called in messages."""
    return f"task {_short(task.get('id', '?') if isinstance(task, dict) else '?')}"


def _short(value: object) -> str:
    """The beginning of what was sent, in plain characters."""
    try:
        return ascii(value)[:60]
    except RecursionError:
        return "lists in lists without end"
