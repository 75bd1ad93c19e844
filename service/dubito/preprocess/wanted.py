"""The columns that are wanted of a table, and the rows that it may have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dubito.errors import InputError

_SHOWN = 12

Cells: TypeAlias = NDArray[np.generic] | Sequence[object]
"""The cells of a column; an empty one is None or NaN."""


def check_names(found: Iterable[str], wanted: Sequence[str]) -> None:
    """Refuse a table that lacks a column, or has a wanted one twice.

    Raises:
        InputError: naming those that are missing, and those that are there.
    """
    there = list(found)
    missing = [name for name in wanted if name not in set(there)]
    if missing:
        raise InputError(
            f"the table expects the columns {_shown(wanted)}, got {_shown(there)}: add "
            f"{_shown(missing)}"
        )
    if len(set(there)) < len(there):
        for name in wanted:
            if there.count(name) > 1:
                raise InputError(
                    f"the table expects column `{name}` once, got it {there.count(name)} times: "
                    "rename the others"
                )


def check_count(num_rows: int, most_rows: int | None) -> None:
    """Refuse a table of no rows, or of too many.

    Raises:
        InputError: it is one.
    """
    if not num_rows:
        raise InputError("`inputs` expects at least one row, got none: send one")
    check_most(num_rows, most_rows)


def check_most(num_rows: int, most_rows: int | None) -> None:
    """Refuse too many rows.

    Raises:
        InputError: there are more than `most_rows`.
    """
    if most_rows is not None and num_rows > most_rows:
        raise InputError(
            f"`inputs` expects at most {most_rows} rows, got {num_rows} or more: send them in "
            "several requests"
        )


def _shown(names: Sequence[str]) -> str:
    if not names:
        return "none"
    rest = len(names) - _SHOWN
    return ", ".join(f"`{name[:60]}`" for name in names[:_SHOWN]) + f" and {rest} more" * (rest > 0)
