"""The sums over the passes as compiled loops, for a processor.

compiling      how loops are compiled and kept
formulas       exp, log and others of single numbers
tiles          what is summed of a tile, place by place
class_state    what the loops over a classification take
class_loops    a classification's sums, from logits
lane_loops     the passes of a tile of few classes
number_loops   a regression's sums, from numbers
spread         sums of any numbers, on their way in and out
classes        the sums of a classification that stream
at_once        the columns of a small call, and what each shape needs worked out once
lean           those of which no spread is wanted
numbers        those of a regression
figure_loops   what the sums of a classification say
figures        the same, by name
threads        tiles on all cores
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec

import torch

_IS_INSTALLED = find_spec("numba") is not None
_left_out: list[object] = []


def is_compiled(device: torch.device) -> bool:
    """Whether loops are there for a device: numba is installed, and it is a processor."""
    return _IS_INSTALLED and device.type == "cpu"


def is_used(device: torch.device) -> bool:
    """Whether sums that the reference can make too are made by loops."""
    return is_compiled(device) and not _left_out


@contextmanager
def left_out() -> Iterator[None]:
    """Sum by the reference inside: for one small call, which is over before the loops are read."""
    _left_out.append(None)
    try:
        yield
    finally:
        _left_out.pop()


@cache
def warm_up() -> None:
    """Compile all loops, or read what was compiled before: seconds the first time, then a half."""
    from dubito.engine.summing.compiled import at_once, classes, figures, lean, numbers
    from dubito.engine.summing.logits import Logits

    logits = torch.zeros(2, 1, 2)
    class_sums, lean_sums = classes.CompiledClassSums(Logits, None), lean.LeanClassSums(Logits)
    for sums in (class_sums, lean_sums):
        sums.add(logits, is_last=True)
    figures.classification(class_sums.sums(), class_sums.draws())
    lean.figures(lean_sums.sums(), lean_sums.draws())
    at_once.class_columns(
        Logits(logits), at_once.FiguresWanted(None, 2, is_mean=False, is_lean=False)
    )
    number_sums = numbers.CompiledNumberSums(lambda raw: iter([(raw.double(), raw)]), None)
    numbers_of_passes = torch.zeros(2, 1, 1)
    number_sums.add(numbers_of_passes, is_last=True)
    at_once.number_columns(numbers_of_passes.double(), numbers_of_passes.double(), None)
