"""What every format is read as: named columns, each a stream of blocks of rows."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dubito.registry import ColumnFact

BLOCK_BYTES = 8 * 2**20
KINDS = "biuf"  # booleans, integers, floats
UNNAMED = "inputs"  # the rows of a network with one input, whatever its name

Blocks = Generator[NDArray[np.generic]]


@dataclass(frozen=True)
class ColumnStream:
    """One array of a pool on its way in.

    Args:
        fact: its name, type and the shape of a row.
        num_rows: N.
        blocks: its rows, some after the others; closing it closes the file beneath.
        may_be_empty: whether a cell may be NaN: that of a table's column, for a model that declares
            what stands there.
    """

    fact: ColumnFact
    num_rows: int
    blocks: Blocks
    may_be_empty: bool = False

    @property
    def num_bytes(self) -> int:
        """Bytes of all rows."""
        return self.num_rows * row_bytes(self.fact)


def row_bytes(fact: ColumnFact) -> int:
    """Bytes of one row of an array."""
    count = 1
    for size in fact.shape:
        count *= size
    return count * np.dtype(fact.dtype).itemsize


def block_rows(fact: ColumnFact) -> int:
    """Rows that are read at once."""
    return max(1, BLOCK_BYTES // max(1, row_bytes(fact)))
