"""From what a client of the protocol sends to an order.

Flow: body → JSON and the bytes behind it → `Inference` → `PredictOrder`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from dubito.api.border.bodies import parse_json
from dubito.api.border.errors import FieldProblem, FieldsError, fields_error
from dubito.api.border.fields import names_of, read_fields
from dubito.api.open_inference.schemas import InferBody, InferOptions
from dubito.api.open_inference.tensors import raw_rows, read_tensors, split
from dubito.arrays import Arrays
from dubito.asked import CalibratedOptions, PredictOrder, own_fields
from dubito.engine.calling.sampling import read_sites
from dubito.models.library import Library
from dubito.names import version_number
from dubito_nn.manifest_reader import manifest_from_json

_MAX_LETTERS = 1000


@dataclass(frozen=True)
class Addressee:
    """The version that is asked, as the path or the message names it."""

    model: str
    version: str


@dataclass(frozen=True)
class Wanted:
    """An output that is wanted, and whether in the binary form; None: as the request says."""

    name: str
    is_binary: bool | None = None

    def covers(self, name: str) -> bool:
        """Whether an array is the output, or part of the group that has its name."""
        return name == self.name or name.startswith(f"{self.name}.")


@dataclass(frozen=True)
class Inference:
    """An inference that is asked for.

    Args:
        id: which the reply repeats.
        options: the parameters.
        inputs: rows by input.
        wanted: the outputs; empty: all.
    """

    id: str | None
    options: InferOptions
    inputs: Arrays
    wanted: tuple[Wanted, ...] = ()

    @property
    def num_rows(self) -> int:
        """Rows of every input."""
        return max((len(rows) for rows in self.inputs.values()), default=0)

    def order(self, to: Addressee, observed_as: str | None) -> PredictOrder:
        """What the service is asked; a group of outputs is asked for once.

        Args:
            to: the version.
            observed_as: id of the request for monitoring; None: it is not observed.
        """
        groups = dict.fromkeys(wanted.name.partition(".")[0] for wanted in self.wanted)
        return PredictOrder(
            **own_fields(self.options, CalibratedOptions),  # type: ignore[arg-type]
            model=to.model,
            version=to.version,
            inputs=self.inputs,
            preprocess=False,  # the protocol's tensors are those that its metadata describe
            outputs=list(groups) or None,
            request_id=observed_as,
        )

    def deadline_s(self, latest_s: float) -> float:
        """The deadline on the clock of `time.monotonic`, at most the one given."""
        if self.options.timeout is None:
            return latest_s
        return min(latest_s, time.monotonic() + self.options.timeout / 1e6)


def read_inference(
    body: bytes, json_length: str | None, library: Library, to: Addressee
) -> Inference:
    """The inference that an HTTP body asks for.

    Args:
        body: JSON, JSON and bytes behind it, or the numbers of the one input alone.
        json_length: the header `Inference-Header-Content-Length`.
        library: knows the inputs of a version.
        to: the version.

    Raises:
        DubitoError: of the class that names the reason.
    """
    json, behind = split(body, json_length)
    if json_length is not None and not json:
        specs = manifest_from_json(library.version(to.model, to.version).manifest).inputs
        return Inference(None, InferOptions(binary_data_output=True), raw_rows(behind, specs))
    read = read_fields(InferBody, parse_json(json))
    for name, said, known in (
        ("model_name", read.model_name, to.model),
        ("model_version", read.model_version, to.version),
    ):
        if said not in (None, "", known):
            problem = f"expected what the path says, {known[:80]!r}, got {said[:80]!r}: correct it"
            raise FieldsError([FieldProblem(name, problem)])
    wanted = (
        Wanted(tensor.name, tensor.parameters.binary_data if tensor.parameters else None)
        for tensor in read.outputs or ()
    )
    options = read_options(read.parameters or {})
    return Inference(read.id, options, read_tensors(read.inputs, behind), tuple(wanted))


def read_options(parameters: Mapping[str, object]) -> InferOptions:
    """The parameters of a request, types taken strictly; lists are text with commas.

    Raises:
        FieldsError: a wrong type, or one that is unknown.
    """
    fields = {name: _listed(name, value) for name, value in parameters.items()}
    try:
        return InferOptions(**fields)  # type: ignore[arg-type]
    except ValidationError as error:
        raise fields_error(error, where="parameters", known=names_of(InferOptions)) from error


def _listed(name: str, value: object) -> object:
    if not isinstance(value, str):
        return value
    if len(value) > _MAX_LETTERS:
        problem = f"expected at most {_MAX_LETTERS} letters, got {len(value)}: shorten it"
        raise FieldsError([FieldProblem(f"parameters.{name}", problem)])
    if name == "sites":
        return read_sites(value)
    if name == "members":
        return [version_number(part) or part for part in value.split(",")]
    return value
