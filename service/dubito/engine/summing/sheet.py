"""Columns side by side in one tensor.

Its job: bring what was found about some rows to the host in one transfer, since every one makes the
device's queue wait.

Dimensions: B rows, N numbers of a row over all columns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dubito.engine.calling.columns import Column


@dataclass(frozen=True)
class Sheet:
    """Some columns, in float64.

    Args:
        numbers: (B, N) of all columns, one after the other.
        shapes: by name, in that order: of one row's entry.
    """

    numbers: Tensor
    shapes: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, columns: Mapping[str, Tensor]) -> Sheet:
        """Put columns together in one tensor.

        Args:
            columns: rows first, on one device.
        """
        parts = [column.double().reshape(len(column), -1) for column in columns.values()]
        shapes = {name: tuple(column.shape[1:]) for name, column in columns.items()}
        return cls(torch.cat(parts, dim=1), shapes)

    def on_host(self, rows: int | None = None) -> dict[str, Column]:
        """The columns of the first rows, or of all."""
        numbers: Column = self.numbers[:rows].cpu().numpy()
        columns, first = dict[str, Column](), 0
        for name, shape in self.shapes.items():
            last = first + math.prod(shape)
            columns[name] = numbers[:, first:last].reshape(-1, *shape)
            first = last
        return columns


def on_host(columns: Mapping[str, Tensor] | Mapping[str, Column]) -> dict[str, Column]:
    """Columns of one device, or of numpy, on the host."""
    if any(column.device.type != "cpu" for column in tensors(columns).values()):
        return Sheet.of(tensors(columns)).on_host()
    return {
        name: column.numpy() if isinstance(column, Tensor) else column
        for name, column in columns.items()
    }


def tensors(columns: Mapping[str, Tensor] | Mapping[str, Column]) -> dict[str, Tensor]:
    """Return those of the columns that are tensors."""
    return {name: column for name, column in columns.items() if isinstance(column, Tensor)}
