"""Arrays inside a record that is JSON: their bytes as base64, exact from one reading to the next.

What is fitted is packed before it is used, so that the record and the fit hold the same numbers to
the last bit, also where float32 has to do.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dubito.errors import InputError

Kind = Literal["float32", "float64"]
_KINDS: dict[Kind, np.dtype[np.floating]] = {
    "float32": np.dtype("<f4"),
    "float64": np.dtype("<f8"),
}


@dataclass(frozen=True)
class PackedArray:
    """An array of finite numbers.

    Args:
        shape: of the array.
        data: its bytes in base64, little-endian, the last axis fastest.
        kind: of the numbers.

    Raises:
        InputError: the bytes do not fill the shape, or hold a number that is not finite.
    """

    shape: tuple[int, ...]
    data: str
    kind: Kind = "float64"

    def __post_init__(self) -> None:
        try:
            raw = b64decode(self.data, validate=True)
        except (Error, ValueError) as error:
            raise InputError(
                f"an array of a record expects base64, got other text ({error}): calibrate again"
            ) from error
        size = prod(self.shape) * _KINDS[self.kind].itemsize
        if min(self.shape, default=1) < 0 or len(raw) != size:
            raise InputError(
                f"an array of shape {self.shape} expects {size} bytes, got {len(raw)}: calibrate "
                "the version again"
            )
        if not np.isfinite(np.frombuffer(raw, _KINDS[self.kind])).all():
            raise InputError("an array of a record expects finite numbers: calibrate again")

    @classmethod
    def of(cls, array: NDArray[np.floating], kind: Kind = "float64") -> PackedArray:
        """Return the array packed, its numbers rounded to that kind."""
        raw = np.ascontiguousarray(array, dtype=_KINDS[kind]).tobytes()
        return cls(array.shape, b64encode(raw).decode("ascii"), kind)

    def array(self) -> NDArray[np.float64]:
        """Return the numbers as a float64 array, which nobody may write to."""
        return self._numbers

    @cached_property
    def _numbers(self) -> NDArray[np.float64]:
        flat = np.frombuffer(b64decode(self.data), _KINDS[self.kind])
        numbers = flat.reshape(self.shape).astype(np.float64)
        numbers.flags.writeable = False
        return numbers
