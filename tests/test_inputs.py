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
