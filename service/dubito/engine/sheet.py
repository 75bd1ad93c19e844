"""Columns side by side in one tensor.

Its job: bring what was found about some rows to the host in one transfer, since every one makes the
device's queue wait.

Dimensions: B rows, N numbers of a row over all columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dubito.engine.prediction import Column


@dataclass(frozen=True)
class Sheet:
    """Some columns, in float64.

    Args:
        numbers: (B, N) of all columns, one after the other.
        widths: by name, in that order; None: a column of single numbers.
    """

    numbers: Tensor
    widths: Mapping[str, int | None]

    @classmethod
    def of(cls, columns: Mapping[str, Tensor]) -> Sheet:
        """Put columns together.

        Args:
            columns: (B,) or (B, n) each, on one device.
        """
        parts = [one.double().reshape(len(one), -1) for one in columns.values()]
        widths = {name: None if one.ndim == 1 else one.shape[1] for name, one in columns.items()}
        return cls(torch.cat(parts, dim=1), widths)

    def on_host(self, rows: int | None = None) -> dict[str, Column]:
        """The columns of the first rows, or of all."""
        number_BN: Column = self.numbers[:rows].cpu().numpy()
        found, first = dict[str, Column](), 0
        for name, width in self.widths.items():
            found[name] = number_BN[:, first : first + (width or 1)]
            if width is None:
                found[name] = found[name][:, 0]
            first += width or 1
        return found
