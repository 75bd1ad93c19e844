"""From the columns of a prediction to the outputs that a client of the protocol wants.

Outputs are the arrays of the `.npz` reply: groups are named with a dot, sets are BOOL over the
classes, and an output that would be null is left out. A number that does not exist is NaN in the
binary form and null in JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dubito.answered import PredictReply, sampling_fields
from dubito.api.open_inference import datatypes
from dubito.api.open_inference.request import Inference, Wanted
from dubito.arrays import Arrays
from dubito.columns import arrays_of, to_json
from dubito.errors import InputError

Parameters = dict[str, bool | int | float | str]


@dataclass(frozen=True)
class Inferred:
    """The outputs of an inference, and what is said beside them.

    Args:
        model: name of the model.
        version: number of the version that answered.
        id: of the request, where it had one.
        parameters: what the outputs were made with, as single values.
        outputs: arrays by name.
    """

    model: str
    version: str
    id: str | None
    parameters: Parameters
    outputs: Arrays


def inferred(asked: Inference, reply: PredictReply, request_id: str) -> Inferred:
    """What was asked for, of what the service answered.

    Args:
        asked: names the outputs.
        reply: all columns of their groups.
        request_id: of the request, for feedback.

    Raises:
        InputError: an output of a group that has none of its name.
    """
    return Inferred(
        reply.model,
        str(reply.version),
        asked.id,
        {"request_id": request_id, **_parameters(reply)},
        _chosen(asked.wanted, reply),
    )


def written(answer: Inferred, asked: Inference) -> tuple[bytes, int | None]:
    """The body of a reply, and the length of its JSON where bytes lie behind it."""
    tensors, behind = [], []
    for name, array in answer.outputs.items():
        tensor: dict[str, object] = {
            "name": name,
            "datatype": datatypes.of_array(array),
            "shape": list(array.shape),
        }
        if _is_binary(name, asked):
            behind.append(datatypes.to_bytes(array))
            tensor["parameters"] = {"binary_data_size": len(behind[-1])}
        else:
            tensor["data"] = datatypes.to_json(array)
        tensors.append(tensor)
    head = to_json(
        {
            "model_name": answer.model,
            "model_version": answer.version,
            **({} if answer.id is None else {"id": answer.id}),
            "parameters": answer.parameters,
            "outputs": tensors,
        }
    )
    return b"".join([head, *behind]), len(head) if behind else None


def _is_binary(name: str, asked: Inference) -> bool:
    for wanted in asked.wanted:
        if wanted.covers(name) and wanted.is_binary is not None:
            return wanted.is_binary
    return asked.options.binary_data_output


def _chosen(wanted: Sequence[Wanted], reply: PredictReply) -> Arrays:
    arrays = dict(arrays_of(reply.outputs))
    if not wanted:
        return arrays
    chosen: dict[str, NDArray[np.generic]] = {}
    for one in wanted:
        named = {name: array for name, array in arrays.items() if one.covers(name)}
        group = one.name.partition(".")[0]
        if not named and reply.outputs[group] is not None:
            known = [name for name in arrays if name.partition(".")[0] == group]
            raise InputError(
                f"output `{one.name[:80]}`: expected some of {', '.join(known)}, got another one: "
                "correct the name"
            )
        chosen |= named
    return chosen


def _parameters(reply: PredictReply) -> Parameters:
    """What a reply has beside its columns; null is left out, lists are text."""
    said: Mapping[str, object] = {
        **sampling_fields(reply.sampling, reply.members),
        "calibration": reply.calibration,
        "warnings": "\n".join(reply.warnings) or None,
    }
    return {name: _single(value) for name, value in said.items() if value is not None}


def _single(value: object) -> bool | int | float | str:
    if isinstance(value, bool | int | float | str):
        return value
    assert isinstance(value, list)
    return ",".join(map(str, value))
