"""Several labels of a row, each on or off: L distributions over two classes.

Dimensions: T samples, B rows, L labels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor

from dubito.engine.heads.head import Shape
from dubito.engine.heads.scaling import Vector
from dubito.engine.heads.several import SeveralDistributions
from dubito.errors import InputError


class LabelOutputs(SeveralDistributions):
    """Labels that are on or off."""

    is_mean: ClassVar[bool] = False

    @property
    def per_position(self) -> int:
        return 1

    @property
    def is_curved(self) -> bool:
        return False

    def position_shape(self, output_shape: Callable[[], Shape]) -> Shape:
        return (self.manifest.num_outputs,)

    def expected_output(self, rows: int, output_shape: Shape) -> Shape:
        return (rows, self.manifest.num_outputs)

    def check_scaling(self, scaling: object) -> None:
        if isinstance(scaling, Vector):
            raise InputError(
                "`temperature` expects a number or a rising function for labels, got a factor per "
                "class: labels are on or off"
            )
        super().check_scaling(scaling)

    def classes_last(self, raw: Tensor) -> Tensor:
        return raw.unsqueeze(-1)
