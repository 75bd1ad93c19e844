"""How numbers are computed on a device: without gradients, in full float32."""

from __future__ import annotations

import threading
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
    return nullcontext() if device.type != "cuda" else _without_tf32()


_lock = threading.Lock()
_within = 0  # threads that need full float32 now: the setting is one of the whole process
_was_allowed = False


@contextmanager
def _without_tf32() -> Iterator[None]:
    """The first thread that comes changes the setting, the last that leaves puts it back."""
    global _within, _was_allowed
    cudnn = torch.backends.cudnn
    with _lock:
        if not _within:
            _was_allowed, cudnn.allow_tf32 = cudnn.allow_tf32, False
        _within += 1
    try:
        yield
    finally:
        with _lock:
            _within -= 1
            if not _within:
                cudnn.allow_tf32 = _was_allowed
