"""Rows as a caller sends them become tensors, or are refused; nothing wraps around."""

import numpy as np
import pytest

from dubito.engine.calling.inputs import read_inputs
from dubito.errors import InputError
from dubito_nn.manifest import InputSpec

TYPES = ("uint8", "int8", "int16", "int32", "int64")


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("sent", [np.float64, np.uint64, list])
def test_whole_numbers_out_of_range_are_refused_however_they_are_sent(
    dtype: str, sent: type
) -> None:
    """2**63 - 1 is no float64: a comparison in floats lets 2**63 through, and it wraps around."""
    spec, largest = InputSpec("x", dtype, (2,)), np.iinfo(dtype).max
    beyond = [[int(largest) + 1, 1]]
    given = beyond if sent is list else np.array(beyond, sent)
    with pytest.raises(InputError, match=rf"expects {dtype} in \["):
        read_inputs(given, [spec])
    inside = 2 ** (np.iinfo(dtype).bits - 2)
    (tensor,) = read_inputs(np.array([[inside, 0]], np.float64), [spec]).values()
    assert tensor.tolist() == [[inside, 0]]


@pytest.mark.parametrize(
    ("rows", "dtype", "told"),
    [
        ([[1.0, 2.0], [3.0, 4.5]], "int64", r"got 4.5 at position \[1, 1\]: send integers"),
        ([[1, 300]], "uint8", "got 1 to 300: send numbers within"),
        ([[1.0, None]], "float32", r"got values of another type at position \[0, 1\]: send an"),
        ([["a", "b"]], "float32", "got values of another type: send an array"),
        ([[]], "float32", "expects at least one row, got an empty one"),
        ([], "float32", "expects at least one row, got none"),
    ],
)
def test_a_refusal_says_where_and_what_to_do(rows: list[object], dtype: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        read_inputs(rows, [InputSpec("x", dtype, (2,))])


def test_inputs_of_several_lengths_are_told_what_to_do() -> None:
    specs = [InputSpec(name, "float32", (1,)) for name in ("x", "y")]
    with pytest.raises(InputError, match="leave the rest out, or send what is missing"):
        read_inputs({"x": [[1.0]], "y": [[1.0], [2.0]]}, specs)
