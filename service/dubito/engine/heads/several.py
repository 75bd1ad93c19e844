"""What heads with several distributions per row share: labels, or a class at every position.

    multilabel   L labels, taken as independent: entropies, information, energies are sums over them
    dense        P positions: everything that is said of the row is the mean over them

A variation ratio is a share of votes, and the mean over positions or labels for both.

Dimensions: T samples, B rows, P positions (one axis or more) or labels, C classes; of a label 2.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dubito.engine.calling.columns import Columns, Sums
from dubito.engine.calling.prediction import Classification, PositionMeasures, Prediction
from dubito.engine.calling.sampling import Sampling
from dubito.engine.heads.answers import LEAN_COLUMNS, SPREAD_COLUMNS, answer, mixed_classes
from dubito.engine.heads.head import OutputHead, Shape
from dubito.engine.heads.logits import logits, of_logits, to_sum
from dubito.engine.heads.scaling import Scaling
from dubito.engine.summing.figures import Draws
from dubito.engine.summing.forms import (
    ClassPasses,
    class_columns,
    class_figures,
    class_sums,
    lean_class_sums,
)
from dubito.engine.summing.logits import Logits
from dubito.engine.summing.statistics import RunningSums
from dubito.errors import InputError

Floats = NDArray[np.float64]

GROUPS = 8  # sums of the jackknife; a row of maps has no room for 64
MEASURES = (
    *("predictive_entropy", "expected_entropy", "mutual_information"),
    *("mutual_information_corrected", "variation_ratio"),
)
"""Columns of a row that are made of one figure per position."""
AT_ONCE_ELEMENTS = 2**20  # of float64: what is made of a few passes over maps is not much larger
_STATE = 48  # numbers of float64 that the sums keep, at most, for each class of each position
_LEAN_STATE = 2


def of_rows(value_BP: Floats, head: str, name: str = "") -> Floats:
    """One number per row of one number per position, (B, P) -> (B,).

    Args:
        value_BP: one axis of positions or more.
        head: `multilabel` takes the sum, `dense` the mean.
        name: of the column; a variation ratio is a mean for both.
    """
    flat_BP = value_BP.reshape(len(value_BP), -1)
    is_sum = head == "multilabel" and name != "variation_ratio"
    row_B: Floats = flat_BP.sum(axis=1) if is_sum else flat_BP.mean(axis=1)
    return row_B


def refuse_moments(method: str, head: str) -> None:
    """Refuse the method `moments` for a head that has several distributions per row.

    Raises:
        InputError: it is asked for.
    """
    if method == "moments":
        raise InputError(
            f"method `moments` expects one distribution per row, got a {head} head, which has one "
            "for each label or position: use `mc`"
        )


class SeveralDistributions(OutputHead):
    """A head of classes that has several distributions per row."""

    is_mean: ClassVar[bool]
    """Whether what is said of a row is the mean over its positions; else the sum."""
    lean_columns: ClassVar[frozenset[str]] = LEAN_COLUMNS | {
        f"position_{name}" for name in MEASURES if name in LEAN_COLUMNS
    }
    spread_columns: ClassVar[Mapping[str, str]] = SPREAD_COLUMNS

    @abstractmethod
    def classes_last(self, raw: Tensor) -> Tensor:
        """The declared outputs with the classes on an axis of their own, the last."""

    def logits(self, raw: Tensor) -> Tensor:
        """Numbers in float64 whose softmax over the last axis are probabilities: (T, B, P, C)."""
        return logits(self.classes_last(raw), self.manifest.output)

    def of_row(self, sizes_TBP2: Tensor) -> Tensor:
        """How large the logits of a row are, (T, B, 2), of those of positions in one axis."""
        return sizes_TBP2.mean(2) if self.is_mean else sizes_TBP2.sum(2)

    def sum_bytes(self, output_shape: Shape, *, is_lean: bool) -> int:
        is_binary = self.manifest.output == "sigmoid_logits"
        numbers = math.prod(output_shape[1:]) * (2 if is_binary else 1)
        return 8 * numbers * (_LEAN_STATE if is_lean else _STATE)

    def check_method(self, method: str) -> None:
        refuse_moments(method, self.manifest.head)
        super().check_method(method)

    def before_link(self, raw: Tensor) -> Tensor:
        return logits(raw, self.manifest.output)

    def parts(self, raw: Tensor, scaling: Scaling) -> Iterator[tuple[Tensor, Tensor]]:
        at_once = max(1, AT_ONCE_ELEMENTS // max(1, raw[:1].numel()))
        for part in torch.split(raw, at_once):
            probs, sizes = of_logits(self.logits(part), scaling)
            yield probs, self.of_row(sizes.flatten(2, -2))

    def sums(self, left: float | None, scaling: Scaling, device: torch.device) -> RunningSums:
        return class_sums(self._passes(scaling), left, device)

    def columns_at_once(
        self, raw: Tensor, left: float | None, scaling: Scaling, *, is_lean: bool
    ) -> Columns | None:
        return class_columns(self._passes(scaling), raw, left, is_lean=is_lean)

    def lean_sums(self, scaling: Scaling, device: torch.device) -> RunningSums:
        return lean_class_sums(self._passes(scaling), device)

    def _passes(self, scaling: Scaling) -> ClassPasses:
        return ClassPasses(
            partial(self._to_sum, scaling=scaling),
            partial(self.parts, scaling=scaling),
            GROUPS,
            self.is_mean,
        )

    def _to_sum(self, raw: Tensor, scaling: Scaling) -> Logits:
        found = to_sum(self.classes_last(raw), self.manifest.output, scaling)
        if found.sizes is None:
            return found
        return replace(found, sizes=self.of_row(found.sizes.flatten(2, -2)))

    def figures(self, sums: Sums, draws: Draws) -> Columns:
        return class_figures(sums, draws)

    def mixed(self, answers: Sequence[Prediction]) -> Columns:
        return mixed_classes(answers)

    def prediction(self, columns: Columns, sampling: Sampling) -> Classification:
        head, each = self.manifest.head, {name: columns[name] for name in MEASURES}
        rows = {name: of_rows(value_BP, head, name) for name, value_BP in each.items()}
        positions = PositionMeasures(head, **each)
        return answer({**columns, **rows}, self.manifest, sampling, positions)
