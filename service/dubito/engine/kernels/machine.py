"""What the last bits of a result hang on, and what a timing holds for: libraries and processor."""

from __future__ import annotations

import platform
from functools import lru_cache
from pathlib import Path

import torch

from dubito.engine.kernels.products import has_fast_onednn


def arithmetic(device: torch.device) -> dict[str, object]:
    """What the last bits of a result hang on, beside the graph: libraries, processor, threads."""
    on_cuda = device.type == "cuda"
    return {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if on_cuda else "cpu",
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "onednn": has_fast_onednn(),
        "threads": torch.get_num_threads(),
    }


@lru_cache(maxsize=1)
def processor() -> str:
    """The model's name where Linux tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
