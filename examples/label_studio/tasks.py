"""From the data of a task to a row of numbers.

A field holds the numbers themselves, as a list or as text with a list in it, or an image: a data
URI, a path on the Label Studio server, or an address that begins as one of those allowed does.

Flow: field → list, or image → gray or RGB, in the size of the network → numbers from 0 to 1.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

MOST_BYTES = 20 * 2**20
MOST_PIXELS = 50_000_000


class TaskError(ValueError):
    """A task of which no row can be made."""


@dataclass(frozen=True)
class Reader:
    """Makes rows of tasks.

    Args:
        field: of the task's data.
        shape: of a row: any shape of numbers; for images (H, W), (1, H, W), (3, H, W) or the
            (H · W,) of a square.
        label_studio: where paths such as /data/upload/1/7.png are fetched.
        token: of a user there, sent to no other address.
        allowed: how other addresses may begin.
        is_inverted: whether dark ink shall be a large number.
    """

    field: str
    shape: tuple[int, ...]
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
                f'expected a task with "data", got {str(task)[:40]}: send what Label Studio sends'
            )
        name = f"task {task.get('id', '?')}"
        given = task["data"].get(self.field)
        if given is None or given == "":
            raise TaskError(
                f"{name}: expected {self.field!r} in its data, got {_shown(task['data'])}: import "
                "the task with it, or let the labelling configuration show another field"
            )
        try:
            made: list[object] = self._numbers(given).reshape(self.shape).tolist()
        except (OSError, ValueError, httpx.HTTPError, Image.DecompressionBombError) as error:
            raise TaskError(f"{name}: {error}") from error
        return made

    def _numbers(self, given: object) -> NDArray[np.float64]:
        if isinstance(given, str) and not given.lstrip().startswith("["):
            return self._pixels(self._content(given))
        try:
            numbers = np.array(json.loads(given) if isinstance(given, str) else given, np.float64)
        except (ValueError, TypeError) as error:
            raise TaskError(
                f"expected numbers in {self.field!r}, got {str(given)[:40]}: send a list of them"
            ) from error
        if numbers.size != math.prod(self.shape) or not np.isfinite(numbers).all():
            raise TaskError(
                f"expected {math.prod(self.shape)} finite numbers in {self.field!r}, got "
                f"{numbers.size}: the network takes rows of shape {self.shape}"
            )
        return numbers

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
            f"{address[:60]}: allow it with --images-from, or name --label-studio"
        )

    def _pixels(self, content: bytes) -> NDArray[np.float64]:
        channels, height, width = _image_shape(self.shape)
        with Image.open(io.BytesIO(content)) as image:
            if image.width * image.height > MOST_PIXELS:
                raise TaskError(
                    f"expected an image of at most {MOST_PIXELS} pixels, got {image.width} x "
                    f"{image.height}: make it smaller"
                )
            sized = image.convert("L" if channels == 1 else "RGB").resize((width, height))
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


def _inline(address: str) -> bytes:
    head, _, body = address.partition(",")
    try:
        encoded = unquote_to_bytes(body)
        return base64.b64decode(encoded, validate=True) if head.endswith(";base64") else encoded
    except binascii.Error as error:
        raise TaskError(
            f"expected base64 behind {head[:40]!r}, got something else: encode the image again"
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


def _shown(data: dict[str, object]) -> str:
    return ", ".join(repr(key)[:40] for key in list(data)[:5]) or "nothing"
