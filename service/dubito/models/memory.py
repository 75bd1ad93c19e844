"""How much an engine holds, and giving memory back to the system."""

from __future__ import annotations

import ctypes
import gc
import sys

import torch

from dubito.engine import Engine
from dubito.engine.replicas import replicas


def weight_bytes(engine: Engine) -> int:
    """Bytes of an engine's weights, in the bundle and on its devices; shared ones once."""
    storages = {
        (storage.device, storage.data_ptr()): storage.nbytes()
        for replica in replicas(engine)
        for tensors in (replica.bundle.weights, replica.placed.weights, replica.placed.rounded)
        for storage in (tensor.untyped_storage() for tensor in tensors.values())
    }
    return sum(storages.values())


def give_back() -> None:
    """Free what nothing refers to any more, and return it to the device and to the system."""
    gc.collect()
    torch.cuda.empty_cache()  # does nothing where no GPU is in use
    trim()


def trim() -> None:
    """Return freed pages to the system, which glibc keeps otherwise."""
    if sys.platform == "linux":
        malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if malloc_trim is not None:
            malloc_trim(0)
