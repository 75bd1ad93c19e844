"""Several labels of a row, each on or off: L distributions over two classes.

Dimensions: T samples, B rows, L labels.
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
from dubito.engine.heads.logits import logits
from dubito.engine.heads.scaling import Scaling, Vector, check_scaling
from dubito.engine.summing.figures import Draws, classification
from dubito.engine.summing.statistics import ClassificationSums
from dubito.errors import InputError
from dubito_nn import Manifest


@dataclass(frozen=True)
class LabelOutputs:
    """Labels that are on or off; members as of `dubito.engine.heads.head.OutputHead`."""

    manifest: Manifest
    sample_names: ClassVar[tuple[str, ...]] = ("samples",)
    has_probabilities: ClassVar[bool] = True
    per_position: ClassVar[int] = 1
    is_curved: ClassVar[bool] = False
    moments: ClassVar[None] = None

    def position_shape(self, output_shape: Callable[[], Shape]) -> Shape:
        return (self.manifest.num_outputs,)

    def expected_output(self, rows: int, output_shape: Shape) -> Shape:
        return (rows, self.manifest.num_outputs)

    def most_rows(self, output_shape: Shape, budget_bytes: int) -> int:
        numbers = several.num_probabilities(output_shape, self.manifest.output)
        return several.most_rows(numbers, budget_bytes)

    def check_scaling(self, scaling: object) -> None:
        if isinstance(scaling, Vector):
            raise InputError(
                "`temperature` expects a number or a rising function for labels, got a factor per "
                "class: labels are on or off"
            )
        check_scaling(scaling, self.manifest.num_outputs)

    def logits(self, raw: Tensor) -> Tensor:
        """Numbers in float64 whose softmax are the probabilities of off and on: (T, B, L, 2)."""
        return logits(raw.unsqueeze(-1), self.manifest.output)

    def before_link(self, raw: Tensor) -> Tensor:
        return logits(raw, self.manifest.output)

    def parts(self, raw: Tensor, scaling: Scaling) -> Iterator[tuple[Tensor, Tensor]]:
        return several.distributions(raw, self.logits, scaling, lambda sizes: sizes.sum(2))

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
