"""Tables: columns by name, side by side in the inputs that they name."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dubito.preprocess.cells import numbers_of
from dubito.preprocess.part import Rows
from dubito.preprocess.texts import Texts, typed
from dubito.preprocess.wanted import Cells
from dubito_nn import InputSpec
from dubito_nn.preprocess import Column, TableInput


class TableKind:
    """Runs tables."""

    def needs(self, part: TableInput) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(column.name for column in part.columns)

    def make(
        self,
        part: TableInput,
        columns: Mapping[str, Cells],
        specs: Mapping[str, InputSpec],
        warnings: list[str],
    ) -> dict[str, Rows]:
        """The numbers of the columns, (B, width) for each input, or (B,)."""
        made: dict[str, Rows] = {}
        for name in map(str, part.inputs):
            own = [column for column in part.columns if column.input == name]
            numbers_BW = np.concatenate(
                [numbers_of(column, _cells(column, columns), warnings) for column in own], axis=1
            )
            made[name] = numbers_BW if specs[name].shape else numbers_BW[:, 0]
        return made


def _cells(column: Column, columns: Mapping[str, Cells]) -> Cells:
    cells = columns[column.name]
    return typed(column, cells) if isinstance(cells, Texts) else cells
