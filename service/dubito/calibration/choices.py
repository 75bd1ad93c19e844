"""What a caller may choose of a calibration beside its rates; names are checked here.

scaling      of a classification's logits: temperature, vector, isotonic, none
sets         of classes: lac, aps, raps; per_class: a threshold for each class
             empty_sets: whether sets may be empty
intervals    of a regression: normalised, cqr

and numbers that only some heads have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from dubito.errors import InputError

Task: TypeAlias = Literal["classification", "regression"]
ScalingName: TypeAlias = Literal["temperature", "vector", "isotonic", "none"]
SetsName: TypeAlias = Literal["lac", "aps", "raps"]
IntervalsName: TypeAlias = Literal["normalised", "cqr"]


@dataclass(frozen=True, slots=True)
class Choices:
    """How to fit; what a task does not have is passed over.

    Args:
        scaling: what is fitted to the logits of every pass; None: a temperature, where it helps.
        sets: which score orders the classes of a row.
        per_class: whether the coverage shall hold for the rows of each class on their own.
        empty_sets: whether a set may be empty; else it always holds the predicted class.
        intervals: what an interval is built around; None: what suits the head.
        noise_precision: 1 / noise variance of a network that predicts means alone, in target units
            to the power -2; None: fitted.
        position_share: of a row's labels or positions, the least that its sets or intervals hold
            at once, in (0, 1]; None: all labels, .95 of the positions.

    Raises:
        InputError: a name that is none of these.
    """

    scaling: ScalingName | None = None
    sets: SetsName = "lac"
    per_class: bool = False
    empty_sets: bool = False
    intervals: IntervalsName | None = None
    noise_precision: float | None = None
    position_share: float | None = None

    def __post_init__(self) -> None:
        """Refuse unknown names."""
        if self.scaling is not None:
            _check("scaling", self.scaling, get_args(ScalingName))
        _check("sets", self.sets, get_args(SetsName))
        if self.intervals is not None:
            _check("intervals", self.intervals, get_args(IntervalsName))
        for name in ("per_class", "empty_sets"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"`{name}` expects true or false, got {getattr(self, name)!r}")


def _check(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(
            f"`{name}` expects one of {', '.join(known)}, got {str(value)[:40]!r}: choose one"
        )


DEFAULTS = Choices()
