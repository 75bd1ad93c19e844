"""What figures were taken on, so that they can be compared with others later."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import torch

import dubito


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine, and the versions that ran on it.

    Args:
        processor: its model, where the system tells it.
        cores: of the processor.
        threads: that torch used of them.
        device: model of the accelerator, or `cpu`.
        torch: version.
        dubito: version.
    """

    processor: str
    cores: int
    threads: int
    device: str
    torch: str
    dubito: str


def describe_machine(device: torch.device) -> Machine:
    """Describe this machine as it is set up now.

    Args:
        device: that the network runs on.
    """
    on_cuda = device.type == "cuda"
    return Machine(
        processor=_processor(),
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        device=torch.cuda.get_device_name(device) if on_cuda else device.type,
        torch=torch.__version__,
        dubito=dubito.__version__,
    )


def _processor() -> str:
    """The model's name where Linux tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
