"""Inputs that are looked up in a table, such as tokens, held to the rows that the table has.

Its job: say which input, value and position is out of bounds before anything runs, so that such a
row harms nobody that is computed with it. Indices that a network computes are its own affair:
what they miss is told by `kernels.precision.running`.
"""

from __future__ import annotations

from torch import Tensor

from dubito.errors import InputError
from dubito_nn import Bundle


def check_lookups(rows: dict[str, Tensor], bundle: Bundle) -> dict[str, Tensor]:
    """Return the rows, once their indices are known to lie in the tables that they index.

    Args:
        rows: CPU tensors by input name, rows first.
        bundle: that reads them.

    Raises:
        InputError: an index below 0, or not below the number of a table's entries.
    """
    for name, size in bundle.table_sizes.items():
        tensor = rows[name]
        low, high = (int(end) for end in tensor.aminmax())
        if low >= 0 and high < size:
            continue
        position = ((tensor < 0) | (tensor >= size)).nonzero()[0].tolist()
        raise InputError(
            f"input `{name}` expects indices from 0 to {size - 1}, since the network looks them up "
            f"in a table of {size} entries, got {int(tensor[tuple(position)])} at position "
            f"{position}: send indices within, for instance tokens of the vocabulary that it was "
            "trained with"
        )
    return rows
