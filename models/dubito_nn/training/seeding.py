"""Randomness that ends where the block ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int, device: str | torch.device = "cpu") -> Iterator[None]:
    """Seed torch's generators, of the CPU and of the device, inside the block alone.

    Args:
        seed: Of both.
        device: A CUDA device is forked and seeded as well.
    """
    device = torch.device(device)
    index = (
        torch.cuda.current_device()
        if device.type == "cuda" and device.index is None
        else device.index
    )
    devices = [index] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        # Not torch.manual_seed: that would seed every CUDA device, and they are not all forked.
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.default_generators[index].manual_seed(seed)
        yield
