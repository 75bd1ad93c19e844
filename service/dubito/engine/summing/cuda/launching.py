"""A kernel on the device of its tensors.

Its job: launch, and find out whether it can be. Triton compiles at the first launch, for which it
needs a C compiler, a folder to keep the result in and a GPU that it knows; where one of them is
missing the reference serves.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import structlog
import torch
from torch import Tensor

_log = structlog.get_logger(__name__)


def launch(
    kernel: Any, programs: tuple[int, ...], like: Tensor, *given: object, warps: int = 4
) -> None:
    """Launch a kernel in the current stream.

    Args:
        kernel: of Triton.
        programs: how many, by axis.
        like: a tensor on the device.
        given: what the kernel takes, in its order.
        warps: of each program.
    """
    with torch.cuda.device_of(like):  # type: ignore[no-untyped-call]
        kernel[programs](*given, num_warps=warps)


@cache
def is_working(device: torch.device) -> bool:
    """Whether a kernel compiles and starts on a device; asked once a process."""
    from dubito.engine.summing.cuda.columns import ColumnSums

    try:
        ColumnSums(None).add(torch.zeros((1, 1), dtype=torch.float64, device=device))
    except Exception as error:  # of Triton, of the compiler that it calls, or of the driver
        _log.warning("triton_does_not_run", device=str(device), error=str(error))
        return False
    return True
