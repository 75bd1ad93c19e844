"""Rows of images, to one array, on a few threads: Pillow decodes and resizes without the GIL.

Dimensions: B rows.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dubito.errors import InputError, TooLargeError
from dubito.preprocess.images.bounds import ImageBounds
from dubito.preprocess.images.cells import EXPECTED, StoredImages, file_of
from dubito.preprocess.images.decoding import decoded, need_pillow, opened
from dubito.preprocess.images.pixels import numbers_of
from dubito.preprocess.part import Rows
from dubito.preprocess.wanted import Cells
from dubito_nn import InputSpec
from dubito_nn.preprocess import ImageInput

if TYPE_CHECKING:
    from PIL import Image

_MOST_THREADS = 8
_FLOAT_BYTES = 4
_OF_PILLOW, _STORED = ImageBounds(), ImageBounds(pixels=2**31)


@dataclass(frozen=True)
class ImageKind:
    """Runs images.

    Args:
        bounds: how large they may be.
    """

    bounds: ImageBounds = _OF_PILLOW

    def needs(self, part: ImageInput) -> tuple[str, ...]:
        """The input's own name."""
        return (str(part.input),)

    def make(
        self,
        part: ImageInput,
        columns: Mapping[str, Cells],
        specs: Mapping[str, InputSpec],
        warnings: list[str],
    ) -> dict[str, Rows]:
        """Numbers of all images, (B, ...).

        Raises:
            InputError: a row is no image, or images of different sizes stay so.
            TooLargeError: an image, or all of them, are larger than they may be.
        """
        need_pillow()
        name = str(part.input)
        cells = _listed(columns[name], name)
        if not cells:
            return {name: cells}  # refused by who checks rows
        bounds = _STORED if isinstance(cells, StoredImages) else self.bounds
        _check_made(part, len(cells), name, bounds)
        images, pixels = {}, 0
        for row, cell in enumerate(cells):
            image = _opened(cell, bounds.pixels, _where(name, cells, row))
            images[row] = image
            pixels += image.width * image.height
            if bounds.total_pixels is not None and pixels > bounds.total_pixels:
                raise TooLargeError(
                    f"input `{name}`: expected at most {bounds.total_pixels} pixels in all images, "
                    f"got more by row {row}: send them in several requests"
                )
        return {name: _Making(part, name, cells, images).array()}


@dataclass(frozen=True)
class _Making:
    """Images that become one array."""

    part: ImageInput
    name: str
    cells: Sequence[object]
    images: dict[int, Image.Image]

    def array(self) -> NDArray[np.generic]:
        """All rows; several at once where there are several."""
        count, first = len(self.images), self._row(0)
        made = np.empty((count, *first.shape), first.dtype)
        made[0] = first

        def put(row: int) -> None:
            numbers = self._row(row)
            if numbers.shape != first.shape:
                raise InputError(
                    f"input `{self.name}`: expected images of one size, got rows of shape "
                    f"{first.shape} and, in row {row}, {numbers.shape}: send those of each size "
                    "on their own"
                )
            made[row] = numbers

        threads = min(_MOST_THREADS, len(os.sched_getaffinity(0)), count - 1)
        if threads < 2:
            for row in range(1, count):
                put(row)
            return made
        with ThreadPoolExecutor(threads, "images") as pool:
            try:
                list(pool.map(put, range(1, count)))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return made

    def _row(self, row: int) -> NDArray[np.generic]:
        where = _where(self.name, self.cells, row)
        image = decoded(self.images.pop(row), where, orient=self.part.orient)
        return numbers_of(image, self.part, where)  # then its pixels are let go


def _where(name: str, cells: Sequence[object], row: int) -> str:
    """The input and the row, or the file of a pool, whose rows come a block at a time."""
    if isinstance(cells, StoredImages):
        return f"input `{name}`, file `{cells.names[row][:80]}`"
    return f"input `{name}`, row {row}"


def _opened(cell: object, most_pixels: int, where: str) -> Image.Image:
    """The image of a cell, its pixels not decoded yet."""
    from PIL import Image

    if isinstance(cell, Image.Image):
        return cell
    return opened(file_of(cell, where), most_pixels, where)


def _listed(cells: Cells, name: str) -> Sequence[object]:
    if isinstance(cells, np.ndarray) and cells.dtype.kind == "O":
        return list(cells)
    if isinstance(cells, str | bytes) or not isinstance(cells, Sequence):
        got = (
            f"an array of shape {cells.shape}" if hasattr(cells, "shape") else type(cells).__name__
        )
        raise InputError(
            f"input `{name}` expects a list of images, each {EXPECTED} in base64, got {got}: the "
            "network's own tensors need `preprocess` false"
        )
    return cells


def _check_made(part: ImageInput, num_rows: int, name: str, bounds: ImageBounds) -> None:
    """Refuse what would become too large, where its size is known."""
    sides = [size for size in part.shape if size is not None]
    num_bytes = num_rows * int(np.prod(sides)) * _FLOAT_BYTES
    if bounds.made_bytes is not None and num_bytes > bounds.made_bytes:
        raise TooLargeError(
            f"input `{name}`: expected images that become at most {bounds.made_bytes} bytes, got "
            f"{num_rows}, which become {num_bytes}: send them in several requests"
        )
