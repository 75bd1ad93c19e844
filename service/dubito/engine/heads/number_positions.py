"""D numbers at every position of a row: a depth map, a forecast over a horizon.

Every position is predicted as a row of `numbers` is. What is said of the row is the mean over its
positions, output by output: of the variances, which still add up; of a standard error the root of
the mean of its squares. The mean itself is said of positions alone.

Dimensions: T samples, B rows, P positions (one axis or more), D outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from dubito.engine.calling.columns import Column, Columns
from dubito.engine.calling.prediction import NumberMeasures, Prediction, Regression
from dubito.engine.calling.sampling import Sampling
from dubito.engine.draws.strata import BLOCK
from dubito.engine.heads.head import Shape
from dubito.engine.heads.numbers import NumberOutputs, mean_and_variance
from dubito.engine.heads.scaling import Scaling
from dubito.engine.heads.several import AT_ONCE_ELEMENTS, refuse_moments
from dubito_nn import Manifest

MEASURES = ("variance", "epistemic_variance", "aleatoric_variance", "standard_error")
"""Columns of a row that are made of one figure per position."""
_STATE = 24  # numbers of float64 that the sums keep, at most, for each output of each position


def outputs_last(raw: Tensor, manifest: Manifest) -> Tensor:
    """Declared outputs with their D last: (T, B, P, D), of a pair (T, B, 2, P, D)."""
    assert manifest.channel_axis is not None
    return raw.movedim(manifest.channel_axis + _pair_axes(manifest) + 1, -1)


def of_rows(value_BPD: Column) -> Column:
    """Figures of rows from those of their positions: the mean, (B, D)."""
    row_BD: Column = value_BPD.reshape(len(value_BPD), -1, value_BPD.shape[-1]).mean(axis=1)
    return row_BD


class NumberPositionOutputs(NumberOutputs):
    """Numbers in target units at every position."""

    @property
    def moments(self) -> None:
        return None

    def position_shape(self, output_shape: Callable[[], Shape]) -> Shape:
        sizes = list(output_shape()[1 + _pair_axes(self.manifest) :])
        del sizes[self._axis - 1]
        return tuple(sizes)

    def expected_output(self, rows: int, output_shape: Shape) -> Shape | None:
        pair = (2,) * _pair_axes(self.manifest)
        sizes = list(output_shape[1 + len(pair) :])
        if len(sizes) < 2 or self._axis > len(sizes) or 0 in sizes:
            return None
        sizes[self._axis - 1] = self.manifest.num_outputs
        return (rows, *pair, *sizes)

    def sum_bytes(self, output_shape: Shape, *, is_lean: bool) -> int:
        return _STATE * 8 * math.prod(output_shape[1:])

    def check_method(self, method: str) -> None:
        refuse_moments(method, self.manifest.head)
        super().check_method(method)

    def before_link(self, raw: Tensor) -> Tensor:
        return super().before_link(outputs_last(raw, self.manifest))

    def parts(self, raw: Tensor, scaling: Scaling) -> Iterator[tuple[Tensor, Tensor]]:
        blocks = max(1, AT_ONCE_ELEMENTS // max(1, BLOCK * raw[:1].numel()))
        for part in torch.split(raw, BLOCK * blocks):
            yield mean_and_variance(outputs_last(part, self.manifest), self.manifest)

    def mixed(self, answers: Sequence[Prediction]) -> Columns:
        members = [answer for answer in answers if isinstance(answer, Regression)]
        return super().mixed([replace(answer, **vars(answer.positions)) for answer in members])

    def prediction(self, columns: Columns, sampling: Sampling) -> Regression:
        each = {name: columns[name] for name in MEASURES}
        rows = {name: of_rows(value_BPD) for name, value_BPD in each.items()}
        rows["standard_error"] = np.sqrt(of_rows(np.square(each["standard_error"])))
        said = super().prediction({**columns, **rows}, sampling)
        return replace(said, positions=NumberMeasures(**each))

    @property
    def _axis(self) -> int:
        """Axis of the outputs in each half of a pair, the rows being axis 0."""
        assert self.manifest.channel_axis is not None
        return self.manifest.channel_axis


def _pair_axes(manifest: Manifest) -> int:
    """How many axes the halves of a pair lie along."""
    return int(manifest.output == "mean_and_log_variance")
