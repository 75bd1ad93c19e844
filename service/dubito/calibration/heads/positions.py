"""A class at every position of a row; figures of classes keep all of them: (B, P, C).

Dimensions: B rows, P positions (one axis or more), C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dubito.calibration import reading, truths
from dubito.calibration.heads.logits import OUTPUTS, expect_classes
from dubito.calibration.heads.served import Request
from dubito.calibration.heads.several import BY_POSITION, ServedSeveral, SeveralHead
from dubito.calibration.promises.positions import ALL_POSITIONS, UNLABELLED, Positions
from dubito.calibration.sampled import Indices, Sampled
from dubito.calibration.terms import Terms
from dubito.columns import ClassNames
from dubito.engine import Prediction
from dubito.errors import InputError


@dataclass(frozen=True)
class PositionHead(SeveralHead):
    """A class at every position; members as of `dubito.calibration.heads.head.Head`."""

    positions: Positions = ALL_POSITIONS
    name: ClassVar[str] = "dense"
    outputs: ClassVar[tuple[str, ...]] = (*OUTPUTS, *BY_POSITION)
    named: ClassVar[str] = "positions"

    def read(self, written: reading.Written) -> Indices:
        return reading.read_positions(written)

    def refuse(self, terms: Terms) -> None:
        if terms.target.risk is not None:
            raise InputError(
                "`target_risk` expects rows that are right or wrong, got rows of positions of "
                "which a share is wrong: ask for `target_acceptance`"
            )

    def unseen(self, rows: Sampled) -> list[str]:
        label_N = rows.labels[rows.labels != UNLABELLED]
        return truths.absent_classes(label_N, rows.passes[0].shape[-1])

    def served(self, prediction: Prediction, request: Request) -> ServedPositions:
        return ServedPositions(self, expect_classes(prediction), request)


@dataclass(frozen=True)
class ServedPositions(ServedSeveral):
    """A prediction of positions; members as of `dubito.calibration.heads.head.Served`."""

    @property
    def is_known(self) -> NDArray[np.bool_]:
        """Positions without an overflow, (B, P)."""
        return np.asarray(np.isfinite(self.prediction.mean).all(axis=-1))

    def labels(self) -> ClassNames:
        index_BP = np.where(self.is_known, self.prediction.label_index, -1)
        return ClassNames(index_BP, self.prediction.classes)

    def _shown_members(self) -> NDArray[np.bool_]:
        return self.members
