"""How numbers are computed on a device: without gradients, in full float32."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType

import torch

from dubito.errors import InputError


def running(device: torch.device) -> AbstractContextManager[None]:
    """Run without gradients, and in full float32 also where cuDNN would round to TF32.

    An index out of range becomes a refusal of the rows, `InputError`.

    Args:
        device: to run on.
    """
    return _Running(device)


class _Running(AbstractContextManager[None]):
    """What `running` returns: a call enters several of them, and a generator costs more."""

    def __init__(self, device: torch.device) -> None:
        self._gradients, self._float32 = torch.no_grad(), full_float32(device)

    def __enter__(self) -> None:
        self._gradients.__enter__()
        self._float32.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._float32.__exit__(kind, error, trace)
        self._gradients.__exit__(kind, error, trace)
        if isinstance(error, IndexError):
            raise InputError(
                "the network looks up an entry that it does not have, by an index that it computes"
                " of the rows: send rows like those that it was trained with"
            ) from error


def full_float32(device: torch.device) -> AbstractContextManager[None]:
    """No TF32 in cuDNN, whose other settings stay as they are."""
    return _AS_IT_IS if device.type != "cuda" else _without_tf32()


_AS_IT_IS = nullcontext()
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
