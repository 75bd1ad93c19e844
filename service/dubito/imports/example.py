"""Rows to record a network with: made up by a shape, or read from a file.

8x784                     8 rows of 784 standard normal numbers
image=8x1x28x28           the same for the input that `forward` calls `image`
tokens=8x16:int64:0..999  8 rows of 16 integers from 0 to 999
rows.npy, image=rows.npy  real rows; the best choice
rows.npz                  several inputs by name
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from dubito.arrays import Arrays, DamagedArrayError, load
from dubito.errors import InputError
from dubito_nn.program import DTYPES

Example: TypeAlias = "Tensor | dict[str, Tensor]"

_SHAPE = re.compile(
    r"(?P<sizes>\d{1,9}(x\d{1,9})*)(:(?P<dtype>\w+))?(:(?P<low>-?\d{1,18})\.\.(?P<high>-?\d{1,18}))?"
)
_MAX_NUMBERS = 2**28
_EXPECTED = "expected a shape such as 8x784 or tokens=8x16:int64:0..999, or a .npy or .npz file"


def read_example(texts: Sequence[str]) -> Example:
    """The example of all inputs.

    Args:
        texts: one for each input; named where there are several.

    Returns:
        A tensor where one input has no name, else tensors by name.

    Raises:
        InputError: naming the text and what was expected.
    """
    tensors: dict[str, Tensor] = {}
    for text in texts:
        name, source = text.split("=", 1) if "=" in text else ("", text)
        for key, tensor in _read(text, source).items():
            if (name or key) in tensors:
                raise InputError(f"--example {text}: the input `{name or key}` is given twice")
            tensors[name or key] = tensor
    if not tensors or (len(tensors) > 1 and "" in tensors):
        raise InputError(f"--example: {_EXPECTED}, named where there are several inputs")
    return tensors.get("", tensors)


def _read(text: str, source: str) -> dict[str, Tensor]:
    if source.endswith((".npy", ".npz")):
        return {key: torch.from_numpy(rows) for key, rows in _arrays(Path(source)).items()}
    match = _SHAPE.fullmatch(source)
    if match is None:
        raise InputError(f"--example {text}: {_EXPECTED}, got neither")
    size = [int(part) for part in match["sizes"].split("x")]
    dtype = DTYPES.get(match["dtype"] or "float32")
    if dtype is None:
        raise InputError(f"--example {text}: expected one of {', '.join(DTYPES)} for its type")
    if not 0 < np.prod(np.array(size, dtype=object)) <= _MAX_NUMBERS:
        raise InputError(f"--example {text}: expected 1 to {_MAX_NUMBERS} numbers")
    return {"": made_up(size, dtype, match["low"], match["high"], f"--example {text}")}


def made_up(
    size: Sequence[int], dtype: torch.dtype, low: str | None, high: str | None, where: str
) -> Tensor:
    """Rows of that shape; integers hold both of their bounds.

    Raises:
        InputError: integers without bounds, or bounds the wrong way round.
    """
    generator = torch.Generator().manual_seed(0)
    if dtype.is_floating_point:
        return torch.randn(tuple(size), generator=generator).to(dtype)
    if dtype == torch.bool:
        low, high = "0", "1"
    if low is None or high is None or int(low) > int(high):
        raise InputError(
            f"{where}: integers expect their least and greatest value, such as"
            " tokens=8x16:int64:0..999, or real rows in a .npy file"
        )
    drawn = torch.randint(int(low), int(high) + 1, tuple(size), generator=generator)
    drawn.view(-1)[0], drawn.view(-1)[-1] = int(low), int(high)
    return drawn.to(dtype)


def _arrays(path: Path) -> Arrays:
    try:
        with path.open("rb") as file:
            loaded = load(file)
    except DamagedArrayError as error:
        raise InputError(
            f"{path}: expected arrays of numbers, got something else ({error}): write the file with"
            " numpy.save or numpy.savez"
        ) from error
    arrays = loaded if isinstance(loaded, dict) else {"": loaded}
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf" or array.ndim == 0:
            raise InputError(f"{path}: `{name}` expects numbers with the rows first")
    return arrays
