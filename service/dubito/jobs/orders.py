"""From orders to what the record of a job keeps of them, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dubito.asked import (
    PredictOptions,
    PredictOrder,
    SamplingOptions,
    SelectOrder,
    order_of,
    own_fields,
)
from dubito.engine import Inputs, Sampling
from dubito.registry import JobFact


def settled(
    sampling: Sampling, members: Sequence[int] | None, pool_format: str, **others: object
) -> dict[str, object]:
    """An order in plain values.

    Args:
        sampling: all choices, made.
        members: versions of an ensemble.
        pool_format: of the pool's object.
        others: what the kind of job needs.
    """
    return {
        "sampling": sampling.to_json(),
        "members": None if members is None else list(members),
        "pool_format": pool_format,
        **others,
    }


def sampling_of(fact: JobFact) -> Sampling:
    """The sampling of a job."""
    stored = fact.order["sampling"]
    assert isinstance(stored, Mapping)
    return Sampling(**stored)


def predict_fields(order: PredictOrder) -> dict[str, object]:
    """Return the fields of a prediction beside its sampling and its rows."""
    sampling = own_fields(order, SamplingOptions)
    beside = {k: v for k, v in own_fields(order, PredictOptions).items() if k not in sampling}
    beside.pop("budget_ms")  # of method `auto`, which no job takes
    return {**beside, "format": order.format or "npz"}


def predict_order(fact: JobFact) -> PredictOrder:
    """Return the order of a prediction, without its rows."""
    empty = PredictOrder(model=fact.model, version=str(fact.version), inputs=[])
    stored = {name: fact.order[name] for name in predict_fields(empty) if name in fact.order}
    return order_of(PredictOrder, empty, **stored)


def select_order(fact: JobFact, targets: Inputs | None) -> SelectOrder:
    """Return the order of a selection, without its rows.

    Args:
        fact: the job.
        targets: rows that `epig` cares about.
    """
    stored = fact.order["acquisition"]
    assert isinstance(stored, Mapping)
    chosen = {name: value for name, value in stored.items() if name != "seed"}  # the sampling's
    version = str(fact.version)
    return SelectOrder(model=fact.model, version=version, inputs=[], targets=targets, **chosen)


def members_of(fact: JobFact) -> tuple[int, ...] | None:
    """The versions of an ensemble; None where it is none."""
    members = fact.order["members"]
    assert members is None or isinstance(members, list)
    return None if members is None else tuple(members)
