"""What figures were taken on, so that they can be compared with others later."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

import dubito
from dubito.engine.kernels.machine import processor


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
        processor=processor(),
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        device=torch.cuda.get_device_name(device) if on_cuda else device.type,
        torch=torch.__version__,
        dubito=dubito.__version__,
    )
