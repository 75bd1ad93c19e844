"""How fast a device is, by its own account.

Its job: time three small things once per process and device, for the cost model of `choice.py`.

    seconds = max(FLOPs / rate, bytes / bandwidth) + operators · overhead

Source: Williams, Waterman, Patterson 2009, "Roofline".
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch

from dubito.engine.kernels.products import linear

_SIDE = 512
_COPIED = 2**23  # float32 numbers, beyond most caches
_REPEATS = 3


@dataclass(frozen=True, slots=True)
class Work:
    """What a computation asks of a device.

    Args:
        flops: floating-point operations in matrix products.
        moved: bytes read and written.
        operators: calls.
    """

    flops: float
    moved: float
    operators: float


@dataclass(frozen=True, slots=True)
class Rates:
    """A device's speed.

    Args:
        flops_per_s: of a matrix product in float32.
        bytes_per_s: of a copy, read and written.
        operator_s: seconds of an operator on almost nothing.
    """

    flops_per_s: float
    bytes_per_s: float
    operator_s: float

    def seconds(self, work: Work) -> float:
        """Return the estimated time of some work, in seconds."""
        moving = max(work.flops / self.flops_per_s, work.moved / self.bytes_per_s)
        return moving + work.operators * self.operator_s


@lru_cache(maxsize=8)
def rates(device: torch.device) -> Rates:
    """The device's speed, measured at the first call."""
    generator = torch.Generator().manual_seed(0)
    square = torch.randn(_SIDE, _SIDE, generator=generator).to(device)
    long = torch.zeros(_COPIED, device=device)
    to = torch.empty_like(long)
    small = torch.zeros(8, device=device)

    def many_small() -> None:
        for _ in range(50):
            small.add(1.0)

    return Rates(
        flops_per_s=2 * _SIDE**3 / _least(lambda: linear(square, square), device),
        bytes_per_s=8 * _COPIED / _least(lambda: to.copy_(long), device),
        operator_s=_least(many_small, device) / 50,
    )


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    """Time of one run, to its end on the device."""
    _wait(device)
    start = time.perf_counter()
    run()
    _wait(device)
    return time.perf_counter() - start


def _least(run: Callable[[], object], device: torch.device) -> float:
    """Least time of a few runs after a first one."""
    seconds_of(run, device)
    return min(seconds_of(run, device) for _ in range(_REPEATS))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
