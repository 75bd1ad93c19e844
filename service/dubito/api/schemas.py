"""What JSON and query parameters may say; unknown fields are refused everywhere.

Bounds that depend on the settings or the version are checked behind the border, where the
command line meets them too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema

from dubito.api.errors import FieldProblem, FieldsError, fields_error
from dubito.serving.orders import SamplingOrder

Body = TypeVar("Body", bound=BaseModel)
_MAX_UNKNOWN = 10

Rows = Annotated[
    object,
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "items": {}, "description": "nested lists, rows first"},
                {"type": "object", "additionalProperties": {"type": "array", "items": {}}},
            ]
        }
    ),
]
Values = Annotated[object, WithJsonSchema({"type": "array", "items": {}})]


class _Schema(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SamplingFields(_Schema):
    """How to draw; what is left out is the version's default."""

    num_samples: int | None = Field(default=None, description="T, masked passes per row.")
    seed: int | None = Field(default=None, description="Seed of the masks, 0 to 2**63 - 1.")
    masks: Literal["shared", "independent"] | None = Field(
        default=None, description="One mask per pass for all rows, or one per row."
    )
    draw: Literal["iid", "stratified"] | None = Field(
        default=None, description="`stratified` spreads the masks evenly over the passes."
    )
    method: Literal["mc", "point", "moments", "ensemble"] | None = Field(
        default=None,
        description="`mc`: T masked passes; `point`: one pass with weight scaling; `moments`: mean "
        "and variance propagated in one pass, without sampling; `ensemble`: T masked passes of "
        "each of `members`.",
    )
    members: list[int | str] | None = Field(
        fail_fast=True,
        default=None,
        description="Versions of the model that answer together, by number or alias; 2 to 16.",
    )
    tolerance: float | None = Field(
        default=None,
        description="A row stops when the standard error of all its outputs is at most this; "
        "num_samples is then the most.",
    )

    def order(self) -> SamplingOrder:
        """These choices, as the service takes them."""
        return SamplingOrder(
            num_samples=self.num_samples,
            seed=self.seed,
            masks=self.masks,
            draw=self.draw,
            method=self.method,
            members=self.members,
            tolerance=self.tolerance,
        )


class PredictOptions(SamplingFields):
    """All of a prediction but its rows; query parameters of binary bodies."""

    coverage: float | None = Field(
        default=None, description="Of sets and intervals, in (0, 1); default: the calibration's."
    )
    calibration: Literal["active", "none"] = Field(
        default="active", description="`none` gives the raw figures."
    )
    outputs: list[str] | None = Field(
        fail_fast=True,
        default=None,
        description="Names of the outputs wanted; `samples` only on request.",
    )


class PredictBody(PredictOptions):
    """A prediction as JSON."""

    inputs: Rows = Field(description="Rows first; an object of name and rows for several inputs.")


class CalibrateOptions(SamplingFields):
    """All of a calibration but its rows; query parameters of binary bodies."""

    alpha: float = Field(default=0.05, description="False-alarm rate of the flag, in (0, 1).")
    coverage: float = Field(default=0.9, description="Of sets and intervals, in (0, 1).")
    noise_precision: float | None = Field(
        default=None, description="Regression: 1 / noise variance; left out: fitted."
    )
    ood_score: str | None = Field(
        default=None,
        description="Score of the flag, or `auto`: chosen on half of `ood_inputs`; left out: the "
        "default of the task.",
    )
    target_risk: float | None = Field(
        default=None,
        description="Classification: most share of wrong ones among accepted rows, in (0, 1).",
    )
    risk_confidence: float | None = Field(
        default=None, description="With which `target_risk` is promised; left out: 0.95."
    )
    target_acceptance: float | None = Field(
        default=None, description="Least share of rows that is accepted, in (0, 1)."
    )


class CalibrateBody(CalibrateOptions):
    """A calibration as JSON."""

    inputs: Rows = Field(description="Held-out rows.")
    labels: Values = Field(default=None, description="Class indices or names, one per row.")
    targets: Values = Field(default=None, description="Regression: true values, (B,) or (B, D).")
    ood_inputs: Rows = Field(default=None, description="Rows known to be strange.")


class AliasBody(_Schema):
    """Where an alias shall point."""

    version: int = Field(ge=1, description="Number of the version.")


class RetireBody(_Schema):
    """Why a version shall answer no more."""

    reason: str = Field(min_length=1, max_length=500, description="Told to whoever asks for it.")


class ActiveBody(_Schema):
    """Which calibration shall be active."""

    active: int | None = Field(ge=1, description="Number of a calibration, or null for none.")


class FieldPage(BaseModel):
    """One refused field."""

    path: str
    message: str


class ProblemPage(BaseModel):
    """The body of every error."""

    type: str
    title: str
    status: int
    detail: str
    error: str
    request_id: str
    fields: list[FieldPage] | None = None


def read_fields(schema: type[Body], fields: Mapping[str, object]) -> Body:
    """The fields of a JSON body, types taken strictly.

    Raises:
        FieldsError: a wrong type, an unknown field, or one that is missing.
    """
    unknown = [name for name in fields if name not in schema.model_fields]
    if len(unknown) > _MAX_UNKNOWN:
        raise FieldsError(
            [FieldProblem(unknown[0], f"unknown field, as are {len(unknown) - 1} others")]
        )
    try:
        return schema.model_validate(fields, strict=True)
    except ValidationError as error:
        raise fields_error(error) from error


def read_query(schema: type[Body], items: list[tuple[str, str]]) -> Body:
    """The fields of a query; lists are written with commas.

    Raises:
        FieldsError: a wrong type, an unknown field, or one given twice.
    """
    fields: dict[str, object] = {}
    for name, text in items:
        if name in fields:
            raise FieldsError([FieldProblem(f"query.{name}", "expected once, got it twice")])
        fields[name] = text.split(",") if name in ("outputs", "members") else text
    try:
        return schema.model_validate(fields)
    except ValidationError as error:
        raise fields_error(error, where="query") from error


def no_query(items: list[tuple[str, str]]) -> None:
    """Refuse query parameters where a JSON body says all.

    Raises:
        FieldsError: there is one.
    """
    if items:
        problem = "unknown with a JSON body: put it into the body"
        raise FieldsError([FieldProblem(f"query.{name}", problem) for name, _ in items])
