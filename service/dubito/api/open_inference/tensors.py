"""The inputs of a request, as arrays: from JSON, from the bytes behind it, or from bytes alone.

The binary tensor extension puts the JSON first, whose length stands in a header, and behind it the
bytes of all tensors with a `binary_data_size`, in their order.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from dubito.api.border.errors import FieldProblem, FieldsError
from dubito.api.open_inference import datatypes
from dubito.api.open_inference.schemas import InputTensor
from dubito.arrays import Arrays
from dubito.errors import InputError
from dubito_nn import InputSpec

JSON_LENGTH = "Inference-Header-Content-Length"


def split(body: bytes, length: str | None) -> tuple[bytes, memoryview]:
    """The JSON of a body, and the bytes behind it.

    Args:
        body: all of it.
        length: what the header says of the JSON; None: all is JSON.

    Raises:
        InputError: the header is no number of bytes within the body.
    """
    if length is None:
        return body, memoryview(b"")
    if not (re.fullmatch("[0-9]{1,18}", length) and int(length) <= len(body)):
        raise InputError(
            f"header {JSON_LENGTH}: expected the length of the JSON, at most {len(body)} bytes, "
            f"got {length[:40]!r}: correct it"
        )
    return body[: int(length)], memoryview(body)[int(length) :]


def read_tensors(inputs: Sequence[InputTensor], behind: memoryview) -> Arrays:
    """The inputs by name.

    Args:
        inputs: as the JSON names them.
        behind: the bytes behind it.

    Raises:
        InputError: an input twice, without numbers, or of another length than its shape says; or
            bytes that belong to none.
    """
    arrays: Arrays = {}
    taken = 0
    for place, tensor in enumerate(inputs):
        size = None if tensor.parameters is None else tensor.parameters.binary_data_size
        _check(tensor, place, size, arrays)
        if size is None:
            array = datatypes.from_json(tensor.data, tensor.datatype, tensor.shape, tensor.name)
        else:
            content = behind[taken : taken + size]
            array = datatypes.from_bytes(content, tensor.datatype, tensor.shape, tensor.name)
            taken += size
        arrays[tensor.name] = array
    if taken != len(behind):
        raise InputError(
            f"body: expected {taken} bytes behind the JSON, the sum of all `binary_data_size`, got "
            f"{len(behind)}: correct the sizes, or the header {JSON_LENGTH}"
        )
    return arrays


def raw_rows(body: memoryview, specs: Sequence[InputSpec]) -> Arrays:
    """The rows of a body that is nothing but the numbers of the one input.

    Raises:
        InputError: the network takes several inputs or free sizes, or a row is not whole.
    """
    sizes = [size for size in specs[0].shape if isinstance(size, int)]
    if len(specs) != 1 or len(sizes) != len(specs[0].shape):
        raise InputError(
            "a body of numbers alone expects a model of one input whose rows have one size: send "
            f"the JSON before them, and its length in the header {JSON_LENGTH}"
        )
    name, datatype = specs[0].name, datatypes.of_input(specs[0].dtype)
    row_bytes = math.prod(sizes) * datatypes.item_bytes(datatype)
    if not body or len(body) % row_bytes:
        raise InputError(
            f"input `{name}` expects rows of {row_bytes} bytes ({datatype}), got {len(body)} bytes "
            "in all: send whole rows"
        )
    shape = [len(body) // row_bytes, *sizes]
    return {name: datatypes.from_bytes(body, datatype, shape, name)}


def _check(tensor: InputTensor, place: int, size: int | None, arrays: Arrays) -> None:
    problem = None
    if tensor.name in arrays:
        problem = "expected once, got it twice: leave one out"
    elif size is not None and tensor.data is not None:
        problem = "expected `data` or `binary_data_size`, got both: leave one out"
    elif size is None and tensor.data is None:
        problem = "expected `data` or the parameter `binary_data_size`, got neither: add one"
    if problem is not None:
        raise FieldsError([FieldProblem(f"inputs.{place}", f"`{tensor.name}`: {problem}")])
