"""What is asked of a fit: the fields of a request, declared once, as in `asked.py`.

FitOptions  all fields but the rows: the query beside a binary body, options of the command
FitBody     with the rows, or the name of a stored pool: a JSON body
FitOrder    with what stands beside the body: model and version of the path, who asks
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from dubito.asked import STRICT, Addressed, LabelsAreField, PoolBody, TruthsField, own_fields
from dubito.names import ANONYMOUS

FitMethod = Literal["laplace", "distilled", "agreement"]
PriorName = Literal["marginal_likelihood", "held_out"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FitOptions:
    """All fields of a fit but its rows; query parameters of binary bodies."""

    method: FitMethod = Field(
        description="Method that the fit is for. `laplace`: a Gaussian over the weights of the last"
        " linear map. `distilled`: a head that learns what the masked passes say. `agreement`: how "
        "far each method is from many passes, and how long it takes, by which `auto` chooses."
    )
    num_samples: int | None = Field(
        default=None,
        description="`distilled`: T, the masked passes per row that it learns from. Default: 64.",
    )
    seed: int | None = Field(
        default=None,
        description="`agreement`: seed of the passes that the methods are held against. "
        "`distilled`: seed of these passes, of the copies of rows that it learns from "
        "too, and of what it learns. Default: 0.",
    )
    num_training_rows: int | None = Field(
        default=None,
        description="`laplace`: number of rows that the network was trained on. Default: those "
        "given.",
    )
    prior: PriorName | None = Field(
        default=None,
        description="Classification: what the prior precision is chosen by, `marginal_likelihood` "
        "(no labels needed) or `held_out`, the likelihood of the labelled rows. Default: "
        "`marginal_likelihood`.",
    )
    prior_precision: float | None = Field(
        default=None, description="Classification: the prior precision, in place of `prior`."
    )
    rank: int | None = Field(
        default=None,
        description="`laplace` of classes: how many eigenpairs of the classes' factor are kept; "
        "the rest counts class by class, and the report states the error. Default: all, of more "
        "than 2,000 classes 256, or as many as memory is bound to.",
    )
    labels_are: LabelsAreField = None
    preprocess: bool | None = Field(
        default=None,
        description="`false`: the rows are what the network reads, although the version declares "
        "how that is made of rows as people have them.",
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FitBody(PoolBody, FitOptions):
    """A fit to rows or to a stored pool, as JSON."""

    labels: TruthsField = Field(
        default=None,
        description="Class indices or names, one per row, for `held_out`; of `distilled` for the "
        "certificate.",
    )
    targets: TruthsField = Field(
        default=None,
        description="Regression: true values, (B,) or (B, D), which `laplace` needs, null for rows "
        "that only shape it, as those of the training; of `distilled` for the certificate.",
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FitOrder(Addressed, FitBody):
    """A fit that is asked for.

    Args:
        actor: who asks, for the audit.
    """

    actor: str = ANONYMOUS


def fit_order(options: FitOptions, **beside: object) -> FitOrder:
    """An order of the fields that were read, and of what stands beside them.

    Args:
        options: options or a body.
        beside: model, version and others by name; the rows where the options are without them.

    Raises:
        ValidationError: a field is missing or of another type.
    """
    return FitOrder(**{**own_fields(options), **beside})  # type: ignore[arg-type]
