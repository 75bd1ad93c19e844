"""The sums over the passes as compiled loops, for a processor.

compiling      how loops are compiled and kept
formulas       exp, log and others of single numbers
tiles          what is summed of a tile, place by place
class_loops    a classification's sums, from logits
number_loops   a regression's sums, from numbers
spread         sums of any numbers, on their way in and out
classes        the sums of a classification that stream
numbers        those of a regression
figure_loops   what the sums of a classification say
figures        the same, by name
threads        tiles on all cores
"""

from importlib.util import find_spec

import torch

_IS_INSTALLED = find_spec("numba") is not None


def is_compiled(device: torch.device) -> bool:
    """Whether loops are there for a device: numba is installed, and it is a processor."""
    return _IS_INSTALLED and device.type == "cpu"
