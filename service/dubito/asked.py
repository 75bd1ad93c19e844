"""What is asked of the service: every field of a request, declared once.

Name, type, default and description stand here and nowhere else. JSON bodies, the parameters of a
query, the options of the command line and the rows of jobs are all read into these dataclasses.

    ...Options  all fields but the rows: the query beside a binary body, options of a command
    ...Body     with the rows, or the name of a stored pool: a JSON body
    ...Order    with what stands beside the body: model and version of the path, who asks

Their constructors take types strictly, as JSON is read; a query is read by pydantic's lax rules.
`None` means: the version's default. Bounds that depend on the version or the settings are checked
by `serving.resolve` and by what reads the field, where all callers meet them.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Literal, TypeAlias, TypeVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from dubito.acquisition import Acquisition
from dubito.acquisition.order import DEFAULT_CANDIDATES
from dubito.as_it_comes import ArrayField, MaybeRowsField, RowsField
from dubito.calibration.choices import IntervalsName, ScalingName, SetsName
from dubito.engine.calling.sampling import Draw, Masks, Method, SitesName
from dubito.labels import LabelsAre
from dubito.names import ANONYMOUS, DEFAULT_ALIAS

Order = TypeVar("Order", bound="SamplingOptions")

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)
TruthsField: TypeAlias = ArrayField
SitesList: TypeAlias = Annotated[list[int | str], Field(fail_fast=True)]
LabelsAreField: TypeAlias = Annotated[
    LabelsAre | None,
    Field(
        description="Whether integers among the labels are class `names` or `indices`. Default: "
        "indices, which are refused where another class has that number as its name.",
    ),
]


AskedMethod = Literal[Method, "auto"]
METHODS = (
    "`mc`: T masked passes. `point`: one pass with weight scaling. `moments`: mean and variance are"
    " propagated in one pass, without sampling. `ensemble`: T masked passes of each of `members`."
    " `laplace`: T last linear maps drawn from the active fit. `distilled`: one pass, and a head"
    " that has learned what T passes say."
)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SamplingOptions:
    """How to sample; a field that is left out takes the version's default."""

    num_samples: int | None = Field(default=None, description="T, masked passes per row.")
    seed: int | None = Field(default=None, description="Seed of the masks, 0 to 2**63 - 1.")
    masks: Masks | None = Field(
        default=None,
        description="`shared`: one mask per pass for all rows. `independent`: one per row.",
    )
    draw: Draw | None = Field(
        default=None,
        description="`stratified` spreads the masks evenly over the passes, `iid` does not.",
    )
    method: Method | None = Field(default=None, description=METHODS)
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
    sites: SitesName | SitesList | None = Field(
        default=None,
        description="The sites that are sampled: `all`, `last` (from which no other site can be "
        "reached), or site numbers and patterns of module paths. The others stand at their means.",
    )
    fallback: float | None = Field(
        default=None,
        description="`distilled`: share of rows like those of its fit that `mc` answers in its "
        "place, the strangest ones, and with them all stranger rows, in (0, 1). Default: none.",
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RowsOptions(SamplingOptions):
    """How the rows are to be read, and how to sample."""

    preprocess: bool | None = Field(
        default=None,
        description="`false`: the rows are what the network reads, although the version declares "
        "how that is made of rows as people have them.",
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TableOptions(RowsOptions):
    """A column of a table that the reply has beside its rows."""

    id_column: str | None = Field(
        default=None,
        description="Column of a table whose cells the reply has as `ids`, one for each row.",
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TruthsOptions(RowsOptions):
    """Columns of a table that hold the truths."""

    label: list[str] | None = Field(
        fail_fast=True,
        default=None,
        description="Columns of a table that hold the labels or targets, in place of `labels` or "
        "`targets`.",
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CalibratedOptions(SamplingOptions):
    """Which calibration the figures are of."""

    coverage: float | None = Field(
        default=None,
        description="Coverage of sets and intervals, in (0, 1). Default: the calibration's.",
    )
    calibration: Literal["active", "none"] = Field(
        default="active",
        description="`active` applies the active calibration, `none` gives the raw figures.",
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PoolBody:
    """Rows, or a stored pool of them."""

    inputs: RowsField = Field(  # type: ignore[assignment]  # null is refused by who reads rows
        default=None, description="The rows. For several inputs: an object that maps names to rows."
    )
    pool: str | None = Field(
        default=None, description="Stored pool, in place of `inputs`. A job does the work."
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LabelledBody:
    """Rows with their truths, and maybe others that are out of distribution."""

    inputs: RowsField = Field(
        description="Labelled rows that training has not seen, nor, for an evaluation, calibration."
    )
    labels: TruthsField = Field(
        default=None,
        description="Class indices or names, one per row. For several labels: the names of those "
        "that are on, or 0 or 1 for each. For positions: nested lists, with -1 where a "
        "position is unlabelled.",
    )
    targets: TruthsField = Field(
        default=None,
        description="Regression: true values, (B,) or (B, D). For positions: nested lists, the "
        "outputs last, with null where nothing was measured.",
    )
    ood_inputs: MaybeRowsField = Field(default=None, description="Out-of-distribution rows.")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Addressed:
    """The version that is asked."""

    model: str = Field(description="Name of the model.")
    version: str = Field(default=DEFAULT_ALIAS, description="Version, by number or alias.")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PredictOptions(CalibratedOptions, TableOptions):
    """All fields of a prediction but its rows; query parameters of binary bodies."""

    method: AskedMethod | None = Field(  # type: ignore[assignment]  # of rows in the request alone
        default=None,
        description=f"{METHODS} `auto`: of all these the way that a fit of `agreement` found within"
        " `tolerance`, then the largest error of the mean, and `budget_ms`.",
    )
    budget_ms: float | None = Field(
        default=None, description="`auto`: longest time of the computation, in milliseconds."
    )
    outputs: list[str] | None = Field(
        fail_fast=True,
        default=None,
        description="Names of the outputs to return. `samples` are returned only on request.",
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PredictBody(PoolBody, PredictOptions):
    """A prediction of rows or of a stored pool, as JSON."""

    format: Literal["npz", "parquet"] | None = Field(
        default=None, description="Format of the job's result. Default: npz."
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PredictOrder(Addressed, PredictBody):
    """A prediction that is asked for.

    Args:
        request_id: under which what is answered is observed and kept; None: it is not.
    """

    request_id: str | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CalibrateOptions(TruthsOptions):
    """All fields of a calibration but its rows; query parameters of binary bodies."""

    alpha: float = Field(default=0.05, description="False-alarm rate of the flag, in (0, 1).")
    coverage: float = Field(default=0.9, description="Coverage of sets and intervals, in (0, 1).")
    noise_precision: float | None = Field(
        default=None, description="Regression: 1 / noise variance. Default: fitted."
    )
    scaling: ScalingName | None = Field(
        default=None,
        description="Classification: what is fitted to the logits of every pass. Default: "
        "`temperature`, left out where it does not help.",
    )
    sets: SetsName | None = Field(
        default=None,
        description="Classification: score that orders the classes of a set. Default: `lac`.",
    )
    per_class: bool | None = Field(
        default=None,
        description="Classification: whether the coverage holds for each class on its own.",
    )
    empty_sets: bool | None = Field(
        default=None,
        description="Classification: whether a set may be empty. Default: false; every set then "
        "holds the predicted class.",
    )
    intervals: IntervalsName | None = Field(
        default=None,
        description="Regression: what intervals are built around. Default: `normalised`, or `cqr` "
        "of quantiles.",
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
        description="Share of a row's labels or positions that its sets or intervals must hold at "
        "once, in (0, 1]. Default: 1 for labels, 0.95 for positions.",
    )
    labels_are: LabelsAreField = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CalibrateBody(LabelledBody, CalibrateOptions):
    """A calibration as JSON."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CalibrateOrder(Addressed, CalibrateBody):
    """A calibration that is asked for.

    Args:
        actor: who asks, for the audit.
    """

    actor: str = ANONYMOUS


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvaluateOptions(CalibratedOptions, TruthsOptions):
    """All fields of an evaluation but its rows; query parameters of binary bodies."""

    labels_are: LabelsAreField = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvaluateBody(LabelledBody, EvaluateOptions):
    """An evaluation as JSON."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvaluateOrder(Addressed, EvaluateBody):
    """An evaluation that is asked for.

    Args:
        compare: whether to judge the raw figures beside the calibrated ones.
    """

    compare: bool = False


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SelectOptions(TableOptions):
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

    def acquisition(self, seed: int) -> Acquisition:
        """Return what is asked of the search.

        Raises:
            InputError: an option is out of its bounds.
        """
        names = (field.name for field in fields(Acquisition) if field.name != "seed")
        asked = {name: getattr(self, name) for name in names}
        return Acquisition(**{**asked, "exclude": tuple(self.exclude), "seed": seed})


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SelectBody(PoolBody, SelectOptions):
    """A selection as JSON."""

    targets: MaybeRowsField = Field(
        default=None, description="Rows like those to be predicted later, for `epig`."
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SelectOrder(Addressed, SelectBody):
    """A selection; its seed breaks ties too."""


def order_of(kind: type[Order], options: SamplingOptions, **beside: object) -> Order:
    """An order of the fields that were read, and of what stands beside them.

    Args:
        kind: class of the order.
        options: options or a body of the same kind.
        beside: model, version and others by name; the rows where the options are without them.

    Raises:
        ValidationError: a field is missing or of another type.
    """
    return kind(**{**own_fields(options), **beside})  # type: ignore[arg-type]


def own_fields(options: object, kind: type | None = None) -> dict[str, object]:
    """Fields of an order by name, as they are.

    Args:
        options: an order, a body or options.
        kind: a class that it is one of, whose fields are asked for; None: all.
    """
    names = (field.name for field in fields(kind or type(options)))
    return {name: getattr(options, name) for name in names}
