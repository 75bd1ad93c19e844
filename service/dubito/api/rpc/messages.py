"""An inference as the protocol's messages have it: read from a request, written to a reply.

Numbers come as `raw_input_contents`, the bytes of all inputs, or in each input's `contents`; they
go out as bytes.
"""

from __future__ import annotations

from collections.abc import Mapping

from dubito.api.border.errors import FieldProblem, FieldsError
from dubito.api.open_inference import datatypes
from dubito.api.open_inference.reply import Inferred
from dubito.api.open_inference.request import Inference, Wanted, read_options
from dubito.api.rpc import inference_pb2 as pb
from dubito.arrays import Arrays

_MAX_LETTERS = 256
_CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}


def read_request(message: pb.ModelInferRequest) -> Inference:
    """The inference that a message asks for.

    Raises:
        InputError: naming what is wrong with it.
    """
    for place, output in enumerate(message.outputs):
        _refuse_others(output.parameters, "binary_data", f"outputs.{place}")
    wanted = tuple(Wanted(output.name) for output in message.outputs)
    options = read_options(read_parameters(message.parameters))
    if len(message.id) > _MAX_LETTERS:
        raise FieldsError([FieldProblem("id", f"expected at most {_MAX_LETTERS} letters")])
    return Inference(message.id or None, options, _arrays(message), wanted)


def read_parameters(
    parameters: Mapping[str, pb.InferParameter] | Mapping[str, pb.ModelRepositoryParameter],
) -> dict[str, object]:
    """The parameters of a message as plain values; one without a value is None."""
    values: dict[str, object] = {}
    for name, parameter in parameters.items():
        choice = parameter.WhichOneof("parameter_choice")
        values[name] = None if choice is None else getattr(parameter, choice)
    return values


def write_reply(answer: Inferred) -> pb.ModelInferResponse:
    """The message of a reply, its outputs as bytes."""
    message = pb.ModelInferResponse(
        model_name=answer.model, model_version=answer.version, id=answer.id or ""
    )
    for name, value in answer.parameters.items():
        parameter = message.parameters[name]
        match value:
            case bool():
                parameter.bool_param = value
            case int():
                parameter.int64_param = value
            case float():
                parameter.double_param = value
            case str():
                parameter.string_param = value
    for name, array in answer.outputs.items():
        message.outputs.add(name=name, datatype=datatypes.of_array(array), shape=array.shape)
        message.raw_output_contents.append(datatypes.to_bytes(array))
    return message


def _arrays(message: pb.ModelInferRequest) -> Arrays:
    raw, arrays = message.raw_input_contents, Arrays()
    if not message.inputs or (raw and len(raw) != len(message.inputs)):
        raise FieldsError(
            [
                FieldProblem(
                    "inputs",
                    f"expected one or more, each with its numbers, got {len(message.inputs)} and "
                    f"{len(raw)} `raw_input_contents`: send the bytes of all inputs, or of none",
                )
            ]
        )
    for place, tensor in enumerate(message.inputs):
        where = f"inputs.{place}"
        _refuse_others(tensor.parameters, "binary_data_size", where)
        _check_tensor(tensor, where, arrays)
        shape = list(tensor.shape)
        if raw:
            array = datatypes.from_bytes(raw[place], tensor.datatype, shape, tensor.name)
        else:
            values = list(
                getattr(tensor.contents, _CONTENTS.get(tensor.datatype, "bytes_contents"))
            )
            array = datatypes.from_json(values, tensor.datatype, shape, tensor.name)
        arrays[tensor.name] = array
    return arrays


def _check_tensor(
    tensor: pb.ModelInferRequest.InferInputTensor, where: str, arrays: Arrays
) -> None:
    problem = None
    if tensor.name in arrays:
        problem = FieldProblem(where, f"`{tensor.name}`: expected once, got it twice")
    elif tensor.datatype not in datatypes.NAMES:
        known = ", ".join(datatypes.NAMES)
        got = tensor.datatype[:40]
        problem = FieldProblem(f"{where}.datatype", f"expected one of {known}, got {got!r}")
    elif not 1 <= len(tensor.shape) <= datatypes.MAX_AXES or min(tensor.shape) < 0:
        problem = FieldProblem(f"{where}.shape", "expected sizes of 0 or more, the rows first")
    if problem is not None:
        raise FieldsError([problem])


def _refuse_others(parameters: Mapping[str, object], known: str, where: str) -> None:
    """Refuse all parameters of a tensor but the one that says again that it is bytes."""
    paths = [f"{where}.parameters.{name}" for name in parameters if name != known]
    if paths:
        raise FieldsError([FieldProblem(path, "unknown parameter: leave it out") for path in paths])
