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
                {"type": "array", "items": {}, "description": "nested lists, rows first"},
                {"type": "object", "additionalProperties": {"type": "array", "items": {}}},
            ]
        }
    ),
]
_LABELS = (
    "Class indices or names, one per row; of several labels the names of those that are on or 0 or "
    "1 for each, of positions nested lists, -1 where unlabelled."
)
_LABELS_ARE = Field(
    default=None,
    description="Whether integers among the labels are class `names` or `indices`; left out: "
    "indices, and refused where a class of that name is another.",
)
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
    """A prediction as JSON, of rows or of a stored pool."""

    inputs: Rows = Field(
        default=None, description="Rows first; an object of name and rows for several inputs."
    )
    pool: str | None = Field(
        default=None, description="Name of a stored pool in place of `inputs`: answered by a job."
    )
    format: Literal["npz", "parquet"] | None = Field(
        default=None, description="Of the job's result, where a pool is predicted; default: npz."
    )


class PoolQuery(_Schema):
    """What is said of the rows of a pool beside them."""

    name: str | None = Field(default=None, description="Of the pool; default: by its digest.")


class PoolAddressBody(PoolQuery):
    """Where the rows of a pool lie."""

    address: str = Field(description="s3://BUCKET/KEY or file:///PATH that the operator allowed.")
    format: Literal["npy", "npz", "parquet"] | None = Field(
        default=None, description="Of the file; default: by the ending of the address."
    )


class CalibrateOptions(SamplingFields):
    """All of a calibration but its rows; query parameters of binary bodies."""

    alpha: float = Field(default=0.05, description="False-alarm rate of the flag, in (0, 1).")
    coverage: float = Field(default=0.9, description="Of sets and intervals, in (0, 1).")
    noise_precision: float | None = Field(
        default=None, description="Regression: 1 / noise variance; left out: fitted."
    )
    scaling: ScalingName | None = Field(
        default=None,
        description="Classification: what is fitted to the logits of every pass; left out: "
        "`temperature`.",
    )
    sets: SetsName | None = Field(
        default=None,
        description="Classification: score that orders the classes of a set; left out: `lac`.",
    )
    per_class: bool | None = Field(
        default=None,
        description="Classification: coverage for the rows of each class on their own.",
    )
    intervals: IntervalsName | None = Field(
        default=None,
        description="Regression: what intervals are built around; left out: `normalised`.",
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
    position_share: float | None = Field(
        default=None,
        description="Several labels or positions per row: share of them that a row's sets shall "
        "hold at once, in (0, 1]; left out: 1 of labels, 0.95 of positions.",
    )
    labels_are: LabelsAre | None = _LABELS_ARE


class CalibrateBody(CalibrateOptions):
    """A calibration as JSON."""

    inputs: Rows = Field(description="Held-out rows.")
    labels: Values = Field(default=None, description=_LABELS)
    targets: Values = Field(default=None, description="Regression: true values, (B,) or (B, D).")
    ood_inputs: Rows = Field(default=None, description="Rows known to be strange.")


class EvaluateOptions(SamplingFields):
    """All of an evaluation but its rows; query parameters of binary bodies."""

    coverage: float | None = Field(
        default=None, description="Of sets and intervals, in (0, 1); default: the calibration's."
    )
    calibration: Literal["active", "none"] = Field(
        default="active", description="`none` judges the raw figures."
    )
    labels_are: LabelsAre | None = _LABELS_ARE


class EvaluateBody(EvaluateOptions):
    """An evaluation as JSON."""

    inputs: Rows = Field(description="Rows that neither training nor calibration has seen.")
    labels: Values = Field(default=None, description=_LABELS)
    targets: Values = Field(default=None, description="Regression: true values, (B,) or (B, D).")
    ood_inputs: Rows = Field(default=None, description="Rows known to be strange.")


class SelectOptions(SamplingFields):
    """All of a selection but its rows; query parameters of binary bodies."""

    strategy: str = Field(
        description="Its name; docs/reference.md lists them with what the `scores` of the reply are"
        " (of the improvements: their natural logarithms)."
    )
    k: int = Field(description="Rows to choose.")
    exclude: list[int] = Field(
        fail_fast=True, default=[], description="Indices that are never chosen."
    )
    candidates: int = Field(
        default=DEFAULT_CANDIDATES, description="Most rows that a joint strategy compares."
    )
    per_class: int | None = Field(
        default=None, description="Most chosen rows of one predicted class."
    )
    diversity: int | None = Field(
        default=None,
        description="Spread the k over the features of the best diversity x k rows.",
    )
    maximize: bool = Field(default=True, description="Optimisation: whether large is good.")
    incumbent: float | None = Field(
        default=None, description="Optimisation: the best value so far, in target units."
    )
    beta: float | None = Field(
        default=None,
        description="Weight of the variance in upper_confidence_bound (4), exponent of power_bald"
        " (1).",
    )
    xi: float = Field(default=0.0, description="Optimisation: least improvement, in target units.")
    noise_variance: float | None = Field(
        default=None,
        description="Regression: of a target, in its units squared, where the network predicts"
        " none.",
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

    inputs: Rows = Field(default=None, description="The pool, rows first.")
    pool: str | None = Field(
        default=None, description="Name of a stored pool in place of `inputs`: answered by a job."
    )
    targets: Rows = Field(default=None, description="Rows that `epig` cares about.")


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

    row: int = Field(ge=0, description="Row of the request, from 0.")
    label: Annotated[int | str | None, BeforeValidator(_one_label)] = Field(
        default=None, description="True class, by index or name."
    )
    target: float | Annotated[list[float], Field(fail_fast=True)] | None = Field(
        default=None, description="Regression: true value, or one per output."
    )


class FeedbackBody(_Schema):
    """True outcomes for an earlier prediction."""

    request_id: str = Field(
        min_length=1, max_length=128, description="The `request_id` of its reply."
    )
    rows: list[TruthBody] = Field(
        fail_fast=True, min_length=1, max_length=100_000, description="Truths, by row."
    )
    labels_are: LabelsAre | None = _LABELS_ARE


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
