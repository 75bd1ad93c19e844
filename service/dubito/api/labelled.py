"""Bodies of labelled rows: JSON, or a `.npz` with the other fields as query parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar, cast

from dubito.api.arrays import named, read_npz
from dubito.api.bodies import JSON, NPZ, parse_json
from dubito.api.fields import no_query, read_fields, read_query
from dubito.api.intake import Given
from dubito.api.schemas import SamplingFields
from dubito.engine import Inputs

Options = TypeVar("Options", bound=SamplingFields)

KINDS = (JSON, NPZ)
ARRAYS = ("inputs", "labels", "targets", "ood_inputs")


@dataclass(frozen=True)
class LabelledBody:
    """Rows and truths as they came: checked by who takes them."""

    inputs: Inputs
    labels: object
    targets: object
    ood_inputs: Inputs | None


def read_labelled(
    given: Given, body: type[Options], options: type[Options]
) -> tuple[Options, LabelledBody]:
    """The fields of a body, and its rows.

    Args:
        given: the body.
        body: schema of all fields as JSON.
        options: schema of the query beside a `.npz`.

    Raises:
        FieldsError: a field or an array is wrong, unknown or missing.
        InputError: a body that cannot be read.
    """
    found: Options
    arrays: Mapping[str, object]
    if given.kind == JSON:
        no_query(given.query)
        found = read_fields(body, parse_json(given.body))
        arrays = {name: getattr(found, name) for name in ARRAYS}
    else:
        found = read_query(options, given.query)
        arrays = named(read_npz(given.body, given.held.settings.max_body_bytes), ARRAYS)
    return found, LabelledBody(
        inputs=cast(Inputs, arrays["inputs"]),
        labels=arrays.get("labels"),
        targets=arrays.get("targets"),
        ood_inputs=cast("Inputs | None", arrays.get("ood_inputs")),
    )
