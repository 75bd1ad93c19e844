"""A class at every position of a row: P distributions over C classes, along any axes.

Dimensions: T samples, B rows, P positions (one axis or more), C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from dubito.engine.calling.columns import Column, Columns, Sums
from dubito.engine.calling.prediction import Classification, Prediction
from dubito.engine.calling.sampling import Sampling
from dubito.engine.heads import answers, several
from dubito.engine.heads.head import Shape, in_numpy
from dubito.engine.heads.logits import has_many_classes, logits
from dubito.engine.heads.scaling import Scaling, check_scaling
from dubito.engine.summing.figures import Draws, classification
from dubito.engine.summing.statistics import ClassificationSums
from dubito_nn import Manifest


@dataclass(frozen=True)
class PositionOutputs:
    """A class at every position; members as of `dubito.engine.heads.head.OutputHead`."""

    manifest: Manifest
    sample_names: ClassVar[tuple[str, ...]] = ("samples",)
    has_probabilities: ClassVar[bool] = True
    moments: ClassVar[None] = None

    @property
    def class_axis(self) -> int:
        """Axis of the classes in the output, the rows being axis 0."""
        assert self.manifest.class_axis is not None
        return self.manifest.class_axis

    @property
    def per_position(self) -> int:
        return self.manifest.num_outputs

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

    def most_rows(self, output_shape: Shape, budget_bytes: int) -> int:
        numbers = several.num_probabilities(output_shape, self.manifest.output)
        return several.most_rows(numbers, budget_bytes)

    def check_scaling(self, scaling: object) -> None:
        check_scaling(scaling, self.manifest.num_outputs)

    def logits(self, raw: Tensor) -> Tensor:
        """Numbers in float64 whose softmax over the last axis are probabilities: (T, B, P, C)."""
        return logits(raw.movedim(self.class_axis + 1, -1), self.manifest.output)

    def before_link(self, raw: Tensor) -> Tensor:
        return logits(raw, self.manifest.output)

    def parts(self, raw: Tensor, scaling: Scaling) -> Iterator[tuple[Tensor, Tensor]]:
        return several.distributions(raw, self.logits, scaling, lambda sizes: sizes.mean(2))

    def few_parts(self, raw: Tensor, scaling: Scaling) -> Iterator[tuple[Column, Column]]:
        return in_numpy(self.parts(raw, scaling))

    def sums(self, left: float | None) -> ClassificationSums[Any]:
        return ClassificationSums(left, several.GROUPS)

    def figures(self, sums: Sums, draws: Draws) -> Columns:
        return classification(sums, draws)

    def mixed(self, members: Sequence[Prediction]) -> Columns:
        return answers.mixed_classes(members)

    def prediction(self, columns: Columns, sampling: Sampling) -> Classification:
        folded = several.folded(columns, self.manifest.head)
        return answers.classification(folded, self.manifest, sampling)
