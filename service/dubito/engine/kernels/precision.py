"""How numbers are computed on a device: without gradients, in full float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from dubito.errors import InputError


@contextmanager
def running(device: torch.device) -> Iterator[None]:
    """Run without gradients, and in full float32 also where cuDNN would round to TF32."""
    try:
        with torch.no_grad(), full_float32(device):
            yield
    except IndexError as error:
        raise InputError(
            "the network looks up an entry that it does not have, by an index that it computes of"
            " the rows: send rows like those that it was trained with"
        ) from error


def full_float32(device: torch.device) -> AbstractContextManager[None]:
    """No TF32 in cuDNN, whose other settings stay as they are."""
    if device.type != "cuda":
        return nullcontext()
    cudnn = torch.backends.cudnn
    held: AbstractContextManager[None] = cudnn.flags(
        enabled=cudnn.enabled,
        benchmark=cudnn.benchmark,
        deterministic=cudnn.deterministic,
        allow_tf32=False,
    )
    return held
