"""What the JSON of `/v2` may say; unknown fields are refused, and tensors are read elsewhere."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, WithJsonSchema
from pydantic.dataclasses import dataclass

from dubito.api.open_inference.datatypes import MAX_AXES, Datatype
from dubito.as_it_comes import ArrayField
from dubito.asked import STRICT, CalibratedOptions

_MAX_TENSORS = 64
LISTS = ("members", "sites")
"""Options that are lists elsewhere; a parameter is text, with commas."""


class _Schema(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class InferOptions(CalibratedOptions):
    """The parameters of an inference."""

    binary_data_output: bool = Field(
        default=False,
        description="Whether outputs come in the binary form where they do not say so themselves.",
    )
    timeout: int | None = Field(
        default=None, ge=1, description="Microseconds within which the answer is wanted."
    )


def _as_parameters() -> dict[str, object]:
    """The JSON schema of `InferOptions`, where lists are text."""
    schema = TypeAdapter(InferOptions).json_schema()
    for name in LISTS:
        means = schema["properties"][name]["description"]
        schema["properties"][name] = {
            "anyOf": [{"type": "string"}, {"type": "null"}],
            "description": f"{means} Written with commas.",
        }
    return schema


ParametersField = Annotated[dict[str, object] | None, WithJsonSchema(_as_parameters())]


class TensorParameters(_Schema):
    """How an input is sent."""

    binary_data_size: int | None = Field(
        default=None, ge=0, description="Bytes of the tensor behind the JSON, in place of `data`."
    )


class InputTensor(_Schema):
    """One input of the network: all its rows."""

    name: str = Field(max_length=256, description="Name of the input.")
    shape: Annotated[list[Annotated[int, Field(ge=0)]], Field(fail_fast=True)] = Field(
        min_length=1, max_length=MAX_AXES, description="Shape of the tensor, the rows first."
    )
    datatype: Datatype = Field(description="Datatype of the numbers that are sent.")
    parameters: TensorParameters | None = Field(default=None, description="How it is sent.")
    data: ArrayField = Field(
        default=None, description="The numbers in one list, or in nested lists of the shape."
    )


class OutputParameters(_Schema):
    """How an output is wanted."""

    binary_data: bool | None = Field(
        default=None, description="Whether it comes in the binary form, behind the JSON."
    )


class WantedTensor(_Schema):
    """An output that is wanted."""

    name: str = Field(
        max_length=256,
        description="Name of an output, or the part before its dot for all of the group.",
    )
    parameters: OutputParameters | None = Field(default=None, description="How it is wanted.")


class InferBody(_Schema):
    """An inference."""

    id: str | None = Field(
        default=None, max_length=256, description="Identifier that the reply repeats."
    )
    model_name: str | None = Field(
        default=None, description="Name of the model, which the path has as well; for clients."
    )
    model_version: str | None = Field(
        default=None, description="The version, where the path has one as well; for clients."
    )
    parameters: ParametersField = Field(
        default=None, description="How to sample, and which calibration the figures are of."
    )
    inputs: Annotated[list[InputTensor], Field(fail_fast=True)] = Field(
        min_length=1,
        max_length=_MAX_TENSORS,
        description="The inputs of the network, in any order.",
    )
    outputs: Annotated[list[WantedTensor], Field(fail_fast=True)] | None = Field(
        default=None, description="The outputs that are wanted. Default: all but `samples`."
    )


class IndexBody(_Schema):
    """Which models are wanted."""

    ready: bool = Field(default=False, description="Whether only those that are ready are wanted.")


class LoadBody(_Schema):
    """A model that shall be loaded."""

    parameters: Annotated[dict[str, object], Field(max_length=0)] | None = Field(
        default=None, description="Parameters of a load, of which there are none."
    )


class UnloadParameters(_Schema):
    """How to unload."""

    unload_dependents: bool = Field(
        default=False, description="Of no effect, since no model depends on another."
    )


class UnloadBody(_Schema):
    """A model that shall be unloaded."""

    parameters: UnloadParameters | None = Field(default=None, description="How to unload.")
