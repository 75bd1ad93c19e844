"""A class at every position of a row: P distributions over C classes, along any axes.

Dimensions: T samples, B rows, P positions (one axis or more), C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor

from dubito.engine.heads.head import Shape
from dubito.engine.heads.logits import has_many_classes
from dubito.engine.heads.several import SeveralDistributions


class PositionOutputs(SeveralDistributions):
    """A class at every position."""

    is_mean: ClassVar[bool] = True

    @property
    def class_axis(self) -> int:
        """Axis of the classes in the output, the rows being axis 0."""
        assert self.manifest.class_axis is not None
        return self.manifest.class_axis

    @property
    def is_curved(self) -> bool:
        return has_many_classes(self.manifest)

    def position_shape(self, output_shape: Callable[[], Shape]) -> Shape:
        shape = output_shape()
        return tuple(size for axis, size in enumerate(shape) if axis not in (0, self.class_axis))

    def expected_output(self, rows: int, output_shape: Shape) -> Shape | None:
        if len(output_shape) < 3 or self.class_axis >= len(output_shape) or 0 in output_shape:
            return None
        is_binary = self.manifest.output == "sigmoid_logits"
        sizes = list(output_shape)
        sizes[0], sizes[self.class_axis] = rows, 1 if is_binary else self.manifest.num_outputs
        return tuple(sizes)

    def classes_last(self, raw: Tensor) -> Tensor:
        return raw.movedim(self.class_axis + 1, -1)
