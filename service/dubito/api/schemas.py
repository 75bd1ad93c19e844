"""What JSON and query parameters may say; unknown fields are refused everywhere.

Bounds that depend on the settings or the version are checked behind the border, where the
command line meets them too.
"""

from __future__ import annotations

from typing import Annotated, Literal, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from dubito.acquisition import Acquisition
from dubito.acquisition.order import DEFAULT_CANDIDATES
from dubito.asked import PredictOrder, SamplingOrder
from dubito.calibration.choices import IntervalsName, ScalingName, SetsName
from dubito.engine import Inputs
from dubito.labels import LabelsAre
from dubito.serving.selecting import SelectOrder

Rows = Annotated[
    object,
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "items": {}, "description": "Nested lists, rows first."},
                {"type": "object", "additionalProperties": {"type": "array", "items": {}}},
            ]
        }
    ),
]
_LABELS = (
    "Class indices or names, one per row. For several labels: the names of those "
    "that are on, or 0 or 1 for each. For positions: nested lists, with -1 where a "
    "position is unlabelled."
)
_LABELS_ARE = Field(
    default=None,
    description="Whether integers among the labels are class `names` or `indices`. Default: "
    "indices, which are refused where another class has that number as its name.",
)
Values = Annotated[object, WithJsonSchema({"type": "array", "items": {}})]


class _Schema(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SamplingFields(_Schema):
    """How to sample; a field that is left out takes the version's default."""

    num_samples: int | None = Field(default=None, description="T, masked passes per row.")
    seed: int | None = Field(default=None, description="Seed of the masks, 0 to 2**63 - 1.")
    masks: Literal["shared", "independent"] | None = Field(
        default=None,
        description="`shared`: one mask per pass for all rows. `independent`: one per row.",
    )
    draw: Literal["iid", "stratified"] | None = Field(
        default=None,
        description="`stratified` spreads the masks evenly over the passes, `iid` does not.",
    )
    method: Literal["mc", "point", "moments", "ensemble"] | None = Field(
        default=None,
        description="`mc`: T masked passes. `point`: one pass with weight scaling. `moments`: mean "
        "and variance are propagated in one pass, without sampling. `ensemble`: T "
        "masked passes of each of `members`.",
    )
    members: list[int | str] | None = Field(
        fail_fast=True,
        default=None,
        description="The 2 to 16 versions of the model that answer together, by number or alias.",
    )
    tolerance: float | None = Field(
        default=None,
        description="A row stops once the standard error of each of its outputs is at most this. "
        "`num_samples` is then the maximum.",
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
    """All fields of a prediction but its rows; query parameters of binary bodies."""

    coverage: float | None = Field(
        default=None,
        description="Coverage of sets and intervals, in (0, 1). Default: the calibration's.",
    )
    calibration: Literal["active", "none"] = Field(
        default="active",
        description="`active` applies the active calibration, `none` gives the raw figures.",
    )
    outputs: list[str] | None = Field(
        fail_fast=True,
        default=None,
        description="Names of the outputs to return. `samples` are returned only on request.",
    )

    def predict_order(
        self, model: str, version: str, inputs: object, request_id: str | None = None
    ) -> PredictOrder:
        """The prediction of rows that are checked later."""
        return PredictOrder(
            model=model,
            version=version,
            inputs=cast(Inputs, inputs),
            sampling=self.order(),
            coverage=self.coverage,
            calibration=self.calibration,
            outputs=self.outputs,
            request_id=request_id,
        )


class PredictBody(PredictOptions):
    """A prediction of rows or of a stored pool, as JSON."""

    inputs: Rows = Field(
        default=None, description="The rows. For several inputs: an object that maps names to rows."
    )
    pool: str | None = Field(
        default=None, description="Stored pool, in place of `inputs`. A job does the work."
    )
    format: Literal["npz", "parquet"] | None = Field(
        default=None, description="Format of the job's result. Default: npz."
    )


class PoolQuery(_Schema):
    """The fields of a pool beside its rows."""

    name: str | None = Field(default=None, description="Name of the pool. Default: its digest.")


class PoolAddressBody(PoolQuery):
    """The address of a pool's rows."""

    address: str = Field(
        description="Address of the file, s3://BUCKET/KEY or file:///PATH, below a prefix that the "
        "operator allows."
    )
    format: Literal["npy", "npz", "parquet"] | None = Field(
        default=None, description="Format of the file. Default: by the ending of the address."
    )


class CalibrateOptions(SamplingFields):
    """All fields of a calibration but its rows; query parameters of binary bodies."""

    alpha: float = Field(default=0.05, description="False-alarm rate of the flag, in (0, 1).")
    coverage: float = Field(default=0.9, description="Coverage of sets and intervals, in (0, 1).")
    noise_precision: float | None = Field(
        default=None, description="Regression: 1 / noise variance. Default: fitted."
    )
    scaling: ScalingName | None = Field(
        default=None,
        description="Classification: what is fitted to the logits of every pass. Default: "
        "`temperature`.",
    )
    sets: SetsName | None = Field(
        default=None,
        description="Classification: score that orders the classes of a set. Default: `lac`.",
    )
    per_class: bool | None = Field(
        default=None,
        description="Classification: whether the coverage holds for each class on its own.",
    )
    intervals: IntervalsName | None = Field(
        default=None,
        description="Regression: what intervals are built around. Default: `normalised`.",
    )
    ood_score: str | None = Field(
        default=None,
        description="Score of the flag, or `auto`: chosen on half of `ood_inputs`. Default: the "
        "task's.",
    )
    target_risk: float | None = Field(
        default=None,
        description="Classification: maximum share of errors among accepted rows, in (0, 1).",
    )
    risk_confidence: float | None = Field(
        default=None, description="Confidence of `target_risk`. Default: 0.95."
    )
    target_acceptance: float | None = Field(
        default=None, description="Minimum share of rows that are accepted, in (0, 1)."
    )
    position_share: float | None = Field(
        default=None,
        description="Share of a row's labels or positions that its sets must hold at once, in (0, "
        "1]. Default: 1 for labels, 0.95 for positions.",
    )
    labels_are: LabelsAre | None = _LABELS_ARE


class CalibrateBody(CalibrateOptions):
    """A calibration as JSON."""

    inputs: Rows = Field(description="Held-out rows.")
    labels: Values = Field(default=None, description=_LABELS)
    targets: Values = Field(default=None, description="Regression: true values, (B,) or (B, D).")
    ood_inputs: Rows = Field(default=None, description="Out-of-distribution rows.")


class EvaluateOptions(SamplingFields):
    """All fields of an evaluation but its rows; query parameters of binary bodies."""

    coverage: float | None = Field(
        default=None,
        description="Coverage of sets and intervals, in (0, 1). Default: the calibration's.",
    )
    calibration: Literal["active", "none"] = Field(
        default="active", description="`active` judges what is served, `none` the raw figures."
    )
    labels_are: LabelsAre | None = _LABELS_ARE


class EvaluateBody(EvaluateOptions):
    """An evaluation as JSON."""

    inputs: Rows = Field(description="Rows that neither training nor calibration has seen.")
    labels: Values = Field(default=None, description=_LABELS)
    targets: Values = Field(default=None, description="Regression: true values, (B,) or (B, D).")
    ood_inputs: Rows = Field(default=None, description="Out-of-distribution rows.")


class SelectOptions(SamplingFields):
    """All fields of a selection but its rows; query parameters of binary bodies."""

    strategy: str = Field(
        description="Name of the strategy. docs/http.md lists all of them, with the meaning of the "
        "`scores` in the reply (for the improvements: their natural logarithms)."
    )
    k: int = Field(description="Number of rows to choose.")
    exclude: list[int] = Field(
        fail_fast=True, default=[], description="Rows that are never chosen."
    )
    candidates: int = Field(
        default=DEFAULT_CANDIDATES,
        description="Maximum number of rows that a joint strategy compares.",
    )
    per_class: int | None = Field(
        default=None, description="Maximum number of chosen rows of one predicted class."
    )
    diversity: int | None = Field(
        default=None,
        description="Spread the k rows over the features of the best `diversity` x k rows.",
    )
    maximize: bool = Field(default=True, description="Optimisation: whether large values are good.")
    incumbent: float | None = Field(
        default=None, description="Optimisation: the best value so far, in target units."
    )
    beta: float | None = Field(
        default=None,
        description="Weight of the variance in upper_confidence_bound (default: 4) or exponent of "
        "power_bald (default: 1).",
    )
    xi: float = Field(
        default=0.0, description="Optimisation: smallest improvement that counts, in target units."
    )
    noise_variance: float | None = Field(
        default=None,
        description="Regression: noise variance in squared target units, if none is predicted.",
    )

    def select_order(
        self, model: str, version: str, inputs: object, targets: object
    ) -> SelectOrder:
        """The selection from rows that are checked later."""
        acquisition = Acquisition(
            strategy=self.strategy,
            k=self.k,
            exclude=tuple(self.exclude),
            candidates=self.candidates,
            per_class=self.per_class,
            diversity=self.diversity,
            maximize=self.maximize,
            incumbent=self.incumbent,
            beta=self.beta,
            xi=self.xi,
            noise_variance=self.noise_variance,
        )
        return SelectOrder(
            model=model,
            version=version,
            inputs=cast(Inputs, inputs),
            targets=cast("Inputs | None", targets),
            acquisition=acquisition,
            sampling=self.order(),
        )


class SelectBody(SelectOptions):
    """A selection as JSON."""

    inputs: Rows = Field(default=None, description="The rows to choose from, rows first.")
    pool: str | None = Field(
        default=None, description="Stored pool, in place of `inputs`. A job does the work."
    )
    targets: Rows = Field(
        default=None, description="Rows like those to be predicted later, for `epig`."
    )


def _one_label(label: object) -> object:
    if isinstance(label, list):
        raise PydanticCustomError(
            "several_labels",
            "expected one class of the row, by index or name, got a list: outcomes of several"
            " labels or positions are not taken, send such rows to evaluate",
        )
    return label


class TruthBody(_Schema):
    """The truth of one row."""

    row: int = Field(ge=0, description="Index of the row in the request, from 0.")
    label: Annotated[int | str | None, BeforeValidator(_one_label)] = Field(
        default=None, description="True class, by index or name."
    )
    target: float | Annotated[list[float], Field(fail_fast=True)] | None = Field(
        default=None, description="Regression: true value, or one value per output."
    )


class FeedbackBody(_Schema):
    """True outcomes for an earlier prediction."""

    request_id: str = Field(
        min_length=1, max_length=128, description="The `request_id` of the reply."
    )
    rows: list[TruthBody] = Field(
        fail_fast=True,
        min_length=1,
        max_length=100_000,
        description="The truths, one entry per row.",
    )
    labels_are: LabelsAre | None = _LABELS_ARE


class AliasBody(_Schema):
    """The version that an alias shall point to."""

    version: int = Field(ge=1, description="Number of the version.")


class RetireBody(_Schema):
    """Why a version is retired."""

    reason: str = Field(
        min_length=1, max_length=500, description="Reason, told to whoever asks for the version."
    )


class ActiveBody(_Schema):
    """The calibration to make active."""

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
