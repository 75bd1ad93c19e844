"""Quotes of a CSV: each is closed, before anything is made of the cells.

A cell whose quote is never closed takes in all rows behind it, which a fast parser does without a
word. So quotes are looked at first: one that opens a cell stands behind a comma, a line's end or a
closing one, and one that closes it in front of these. Where that holds, the file is sound. Of
others, such as a file with an inch in a plain cell, Python's parser says whether they are.
"""

from __future__ import annotations

import csv
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from dubito.errors import InputError

_QUOTE = ord('"')
_BESIDE = np.zeros(256, np.bool_)
_BESIDE[[ord(letter) for letter in ',\n\r"']] = True
_BLOCK_BYTES = 2**24


def are_closed(content: NDArray[np.uint8]) -> bool:
    """Whether every quote opens or closes a cell, as far as that is seen by its neighbours.

    Args:
        content: of the file, (N,).
    """
    count, last = 0, len(content) - 1
    for start in range(0, len(content), _BLOCK_BYTES):
        places = start + np.flatnonzero(content[start : start + _BLOCK_BYTES] == _QUOTE)
        opens = (count + np.arange(len(places))) % 2 == 0
        count += len(places)
        beside = places + np.where(opens, -1, 1)
        is_end = (beside < 0) | (beside > last)
        if not (is_end | _BESIDE[content[beside.clip(0, last)]]).all():
            return False
    return count % 2 == 0


def check_quotes(text: TextIO, what: str) -> None:
    """Refuse a CSV that Python's parser finds unsound.

    Args:
        text: of the file, opened without a change of its lines.
        what: it is, for the refusal.

    Raises:
        InputError: naming the line where a quote is not closed, or followed by something else.
    """
    lines = csv.reader(text, strict=True)
    line = 0
    try:
        for _ in lines:
            line = lines.line_num
    except UnicodeDecodeError:
        return  # which is told better by who reads the cells
    except csv.Error as error:
        raise InputError(
            f"{what}: expected quotes that are closed, with a comma or a line's end behind them,"
            f" got others from line {line + 1} on ({str(error)[:80]}): close them, and double those"
            " within a cell"
        ) from error
