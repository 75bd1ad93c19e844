"""The arguments of an engine, checked before they can be taken for a fault of the bundle.

Its job: refuse what is no source, no device, no budget, no sampling or no precision of the device,
by name.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch

from dubito.engine.calling.sampling import Sampling
from dubito.errors import InputError
from dubito_nn import Bundle

Check: TypeAlias = Callable[[], None]
"""Called between chunks of a call; whatever it raises ends the call."""


def check_load(source: object, memory_budget_bytes: int, proof_limit_s: object) -> None:
    """Refuse what is neither a path nor bytes nor a bundle, no number of bytes, or no time."""
    if not isinstance(source, (str, Path, bytes, Bundle)):
        kind = type(source).__name__
        raise InputError(f"`source` expects a path, bytes or a Bundle, got {kind}: name the file")
    is_count = isinstance(memory_budget_bytes, int) and not isinstance(memory_budget_bytes, bool)
    if not is_count or memory_budget_bytes < 1:
        raise InputError(
            "`memory_budget_bytes` expects an integer above 0, got"
            f" {memory_budget_bytes!r}: such as 2**29"
        )
    if proof_limit_s is not None and not is_above_0(proof_limit_s):
        raise InputError(
            f"`proof_limit_s` expects seconds above 0, got {proof_limit_s!r}: None is no limit"
        )


def budget_bytes(device: torch.device) -> int:
    """The memory budget where none is given: 512 MiB, on a GPU a sixteenth of its memory."""
    if device.type != "cuda":
        return 512 * 2**20
    return int(torch.cuda.get_device_properties(device).total_memory) // 16


def is_above_0(value: object) -> bool:
    """Tell whether it is a number, numpy's included, that float64 holds in full."""
    number = value.item() if isinstance(value, np.floating | np.integer) else value
    if not isinstance(number, int | float) or isinstance(number, bool):
        return False
    return sys.float_info.min <= number < sys.float_info.max


def as_device(name: str) -> torch.device:
    """The device of that name, which is there.

    Raises:
        InputError: there is none.
    """
    try:
        device = torch.device(name)
        is_there = device.type != "meta" and torch.empty(1, device=device).numel() == 1
    except (RuntimeError, TypeError, AssertionError):
        is_there = False
    if not is_there:
        raise InputError(f"`device` expects one that torch has here, got {name!r}: such as cpu")
    return device


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse TF32 where there is no GPU: it is a way of theirs to multiply float32 numbers."""
    if precision == "tf32" and device.type != "cuda":
        raise InputError(
            f"`precision` tf32 expects a device of CUDA, got {device}: TF32 is how its matrix units"
            " read float32; take float32, or bfloat16, which runs everywhere"
        )


def as_sampling(sampling: object, default: Sampling) -> Sampling:
    """Return the sampling of a call in the precision of the network, or the default for None.

    Raises:
        InputError: it is something else, or names a precision that the network was not loaded in.
    """
    if sampling is None:
        sampling = default
    if not isinstance(sampling, Sampling):
        raise InputError(
            f"`sampling` expects a Sampling, got {type(sampling).__name__}: such as"
            " Sampling(num_samples=64)"
        )
    if sampling.precision == default.precision:
        return sampling
    if sampling.precision != "float32":
        raise InputError(
            f"`precision` expects {default.precision}, in which the network was loaded, got"
            f" {sampling.precision}: leave it out, or load the network in it"
        )
    return replace(sampling, precision=default.precision)
