"""A few numbers on a device.

Its job: bring them there once. A copy from the host makes the device's queue wait, and a recorded
answer (`recording.py`) may hold none.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import torch
from torch import Tensor


def constant(numbers: Iterable[float], like: Tensor) -> Tensor:
    """A vector of numbers, on the device and of the type of another tensor; not to be written to.

    Args:
        numbers: of the vector.
        like: another tensor.
    """
    return _constant(tuple(numbers), like.dtype, like.device)


@lru_cache(maxsize=256)
def _constant(numbers: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(numbers, dtype=dtype, device=device)
