"""Several labels of a row, each on or off.

A label is on or off, so its probability is one number: `mean` and its like are (B, L), that of
being on.

Dimensions: B rows, L labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dubito.calibration import reading
from dubito.calibration.heads.head import Floats
from dubito.calibration.heads.logits import OUTPUTS, expect_classes
from dubito.calibration.heads.served import Columns, Request
from dubito.calibration.heads.several import BY_POSITION, ServedSeveral, SeveralHead
from dubito.calibration.promises.positions import ALL_LABELS, Positions
from dubito.calibration.sampled import Indices, Sampled
from dubito.calibration.terms import Terms
from dubito.columns import ClassSets, Column
from dubito.engine import Prediction
from dubito.errors import InputError


@dataclass(frozen=True)
class LabelHead(SeveralHead):
    """Labels that are on or off; members as of `dubito.calibration.heads.head.Head`."""

    positions: Positions = ALL_LABELS
    name: ClassVar[str] = "multilabel"
    outputs: ClassVar[tuple[str, ...]] = (*OUTPUTS, "certain_set", *BY_POSITION)
    named: ClassVar[str] = "labels"
    are_switches: ClassVar[bool] = True

    def read(self, written: reading.Written) -> Indices:
        return reading.read_labels(written)

    def refuse(self, terms: Terms) -> None:
        if terms.choices.scaling == "vector":
            raise InputError(
                "`scaling` `vector` expects classes that exclude each other, got labels that are "
                "each on or off: use `temperature`, `isotonic` or `none`"
            )

    def unseen(self, rows: Sampled) -> list[str]:
        never = np.flatnonzero(~(rows.labels == 1).any(axis=0)).tolist()
        if not never:
            return []
        return [f"label number {', '.join(map(str, never))} is on in no labelled row"]

    def served(self, prediction: Prediction, request: Request) -> ServedLabels:
        return ServedLabels(self, expect_classes(prediction), request)


@dataclass(frozen=True)
class ServedLabels(ServedSeveral):
    """A prediction of labels; members as of `dubito.calibration.heads.head.Served`."""

    @property
    def is_known(self) -> NDArray[np.bool_]:
        """Rows without an overflow, (B,): of a row all labels are known, or none."""
        return np.asarray(np.isfinite(self.prediction.mean).all(axis=(-2, -1)))

    def shown(self, value: Floats) -> Floats:
        return np.ascontiguousarray(value[..., 1])

    def columns(self) -> Columns:
        return {**super().columns(), "certain_set": self._certain}

    def labels(self) -> ClassSets:
        return self.sets_of(self.prediction.label_index == 1)

    def _shown_members(self) -> NDArray[np.bool_]:
        """Labels that may be on."""
        return self.members[..., 1]

    def _certain(self) -> Column:
        """Labels that must be on: whose set holds nothing else."""
        if self.head.promise is None:
            return None
        return self.sets_of(self.members[..., 1] & ~self.members[..., 0])
