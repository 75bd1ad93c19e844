"""How numbers are computed on a device: without gradients, and in which precision.

`float32` and `bfloat16` (`lowered.py`) multiply float32 numbers in full. `tf32` lets a GPU's matrix
units read them with 10 bits of their significands, in cuBLAS and cuDNN alike, which is a setting of
the whole process: threads that need another one take turns.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType

import torch

from dubito.engine.calling.sampling import Precision
from dubito.errors import InputError


def running(device: torch.device, precision: Precision = "float32") -> AbstractContextManager[None]:
    """Run without gradients, and in full float32 also where cuDNN would round to TF32.

    An index out of range becomes a refusal of the rows, `InputError`.

    Args:
        device: to run on.
        precision: `tf32` rounds to it.
    """
    return _Running(device, precision)


class _Running(AbstractContextManager[None]):
    """What `running` returns: a call enters several of them, and a generator costs more."""

    def __init__(self, device: torch.device, precision: Precision) -> None:
        self._gradients = torch.no_grad()
        self._float32 = multiplying(device, precision)

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
        if isinstance(error, IndexError) or _is_lookup(error):
            raise InputError(
                "the network looks up an entry that it does not have, by an index that it computes"
                " of the rows: send rows like those that it was trained with"
            ) from error


def _is_lookup(error: BaseException | None) -> bool:
    """Whether an operator such as `gather` met an index beyond its axis."""
    return isinstance(error, RuntimeError) and "is out of bounds for dimension" in str(error)


def multiplying(
    device: torch.device, precision: Precision = "float32"
) -> AbstractContextManager[None]:
    """TF32 or none of it in cuDNN, and TF32 in cuBLAS where asked; other settings stay.

    Args:
        device: to run on.
        precision: `tf32` rounds to it. Within another such block of the thread that one holds.
    """
    return _AS_IT_IS if device.type != "cuda" else _with_tf32(precision == "tf32")


_AS_IT_IS = nullcontext()
_turn = threading.Condition()
_within = 0  # threads that need a setting now: it is one of the whole process
_is_allowed = False
_before = False, False  # what cuDNN and cuBLAS were set to
_mine = threading.local()


@contextmanager
def _with_tf32(allowed: bool) -> Iterator[None]:
    """The first thread that comes changes the setting, the last that leaves puts it back."""
    if getattr(_mine, "is_within", False):
        yield
        return
    _enter(allowed)
    _mine.is_within = True
    try:
        yield
    finally:
        _mine.is_within = False
        _leave()


def _enter(allowed: bool) -> None:
    global _within, _is_allowed, _before
    cudnn, cublas = torch.backends.cudnn, torch.backends.cuda.matmul
    with _turn:
        _turn.wait_for(lambda: not _within or _is_allowed == allowed)
        if not _within:
            _before = cudnn.allow_tf32, cublas.allow_tf32
            _is_allowed, cudnn.allow_tf32 = allowed, allowed
            if allowed:
                cublas.allow_tf32 = True
        _within += 1


def _leave() -> None:
    global _within
    with _turn:
        _within -= 1
        if not _within:
            torch.backends.cudnn.allow_tf32 = _before[0]
            if _is_allowed:
                torch.backends.cuda.matmul.allow_tf32 = _before[1]
            _turn.notify_all()
