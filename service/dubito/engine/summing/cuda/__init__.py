"""The sums over the passes as kernels, for a GPU.

groups       sums over groups of samples
formulas     exp and others of single numbers
passes       what is summed of each pass over its classes
spreads      what is summed over the samples, place by place
corrections  the jackknife's correction, of groups of samples
tiles        how many numbers a program takes
launching    a kernel on the device of its tensors
columns      mean and spread of columns of numbers that stream
classes      the sums of a classification that stream
numbers      those of a regression
"""

from importlib.util import find_spec

import torch

_IS_INSTALLED = find_spec("triton") is not None


def is_launched(device: torch.device) -> bool:
    """Whether kernels run on a device: a GPU of NVIDIA's, for which Triton can compile them."""
    if device.type != "cuda" or torch.version.hip is not None or not _IS_INSTALLED:
        return False
    from dubito.engine.summing.cuda.launching import is_working

    return is_working(device)
